"""Measures what one side of a call sends, sees and hears."""

import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from rich.table import Table

from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.audio.speaker import Speaker
from iwcodec.client.link.link_state import LinkStats, RenderedFrame
from iwcodec.client.room.call import Call, Participant
from iwcodec.client.transport.sctp import IP_UDP
from iwcodec.client.video.capture import CapturedFrame
from iwcodec.codec.media.types import AUDIO_RATE, Samples

LISTEN_S: Final = 0.9
"""Time after each test tone within which it must be heard."""
TONE_RMS: Final = 1000.0
"""Root mean square over 5 ms, in int16 steps, at which a tone has begun."""
TABLE_ROWS: Final = {
    "first_picture_s": "first picture after joining, s",
    "frames_per_s": "frames shown per second",
    "picture_delay_p50_ms": "picture delay, glass to glass, median, ms",
    "picture_delay_p95_ms": "picture delay, glass to glass, p95, ms",
    "sound_delay_p50_ms": "sound delay, microphone to ear, median, ms",
    "tones_heard": "test tones heard",
    "sources": "source pictures received",
    "all_sent_kbps": "sent on the wire, picture and sound, kbps",
}
"""Statistics of a side that the table shows, and their labels."""


@dataclass
class Side:
    """One client and what it recorded. All times are of time.monotonic()."""

    name: str
    call: Call
    speaker: Speaker | None
    audio_sender: AudioSender | None
    joined_s: float = 0.0
    began_s: float = 0.0
    """Start of the measurement."""
    sent: list[CapturedFrame] = field(default_factory=list)
    """The camera's pictures."""
    seen: list[tuple[float, RenderedFrame]] = field(default_factory=list)
    heard: list[tuple[float, Samples]] = field(default_factory=list)
    samples: list[LinkStats] = field(default_factory=list)
    """The link's statistics, once per second."""
    tones_s: list[float] = field(default_factory=list)
    """Times at which the other side's microphone captured the start of a test tone."""
    wire: list[tuple[float, float]] = field(default_factory=list)
    """(time, bytes sent so far with IP headers), once per second."""

    def see(self, participant: Participant, frame: RenderedFrame) -> None:
        self.seen.append((time.monotonic(), frame))

    def hear(self, block: Samples, at_s: float) -> None:
        self.heard.append((at_s, block))

    def sample(self) -> None:
        """Record the present statistics; call once per second."""
        for participant in self.call.participants.values():
            stats = participant.stats()
            if stats is not None:
                self.samples.append(stats)
            if participant.peer.connection is not None:
                self.wire.append((time.monotonic(), wire_bytes(participant.peer.connection)))

    def statistics(self) -> dict[str, Any]:
        """Statistics since `began_s`; None where nothing was measured: no sound, or no picture."""
        seen = [(at, frame) for at, frame in self.seen if at >= self.began_s]
        delays = [1000 * frame.delay_s for _, frame in seen]
        sound = self.sound_delays_ms()
        picture_ms = percentile(delays, 50)
        sound_ms = percentile([delay for delay in sound if delay is not None], 50)
        return {
            "first_picture_s": round(self.seen[0][0] - self.joined_s, 2) if self.seen else None,
            "frames_per_s": mean_rate([at for at, _ in seen]),
            "picture_delay_p50_ms": picture_ms,
            "picture_delay_p95_ms": percentile(delays, 95),
            "sound_delay_p50_ms": sound_ms,
            "sound_ahead_ms": None if picture_ms is None or sound_ms is None else picture_ms - sound_ms,
            "tones_heard": f"{sum(delay is not None for delay in sound)} of {len(sound)}" if sound else None,
            "sources": self.samples[-1].sources if self.samples else 0,
            "motion_lost": round(float(np.mean([stats.loss for stats in self.samples])), 3) if self.samples else None,
            "all_sent_kbps": self._sent_kbps(),
            "picture_received_kbps": self._received_kbps(),
        }

    def sound_delays_ms(self) -> list[float | None]:
        """Delay of each test tone from the other side's microphone to our ear; None for a tone that was not heard."""
        if not self.heard:
            return []
        start = self.heard[0][0]
        track = np.concatenate([block for _, block in self.heard]).astype(np.float32)
        window = AUDIO_RATE // 200
        level = np.sqrt(np.convolve(np.square(track), np.ones(window) / window, "valid"))
        delays: list[float | None] = []
        for tone_s in self.tones_s:
            begin = round((tone_s - start) * AUDIO_RATE)
            end = begin + round(LISTEN_S * AUDIO_RATE)
            if tone_s >= self.began_s and end <= len(level):
                loud = np.flatnonzero(level[begin:end] > TONE_RMS)
                delays.append(1000 * float(loud[0]) / AUDIO_RATE if len(loud) else None)
        return delays

    def _sent_kbps(self) -> float | None:
        """Mean bit rate of picture and sound on the wire."""
        if len(self.wire) < 2:
            return None
        (first_s, first), (last_s, last) = self.wire[0], self.wire[-1]
        return round((last - first) * 8 / 1000 / (last_s - first_s), 2)

    def _received_kbps(self) -> dict[str, float]:
        """Mean bit rates by layer."""
        names = self.samples[-1].received_kbps if self.samples else ()
        return {name: round(float(np.mean([s.received_kbps[name] for s in self.samples])), 2) for name in names}


def results_table(statistics: dict[str, Any]) -> Table:
    """The main statistics of both sides, one column each."""
    table = Table(title=f"{statistics['seconds']:.0f} s of a call, as each side received it", title_justify="left")
    for heading in ("", *statistics["sides"]):
        table.add_column(heading, justify="left" if not heading else "right")
    for key, label in TABLE_ROWS.items():
        table.add_row(label, *(str(side[key]) for side in statistics["sides"].values()))
    return table


def percentile(values: list[float], percent: float) -> int | None:
    return round(float(np.percentile(values, percent))) if values else None


def mean_rate(times: list[float]) -> float:
    """Mean number of events per second."""
    return round((len(times) - 1) / (times[-1] - times[0]), 1) if len(times) > 1 else 0.0


def wire_bytes(connection: Any) -> float:
    """Bytes sent over a connection so far: DTLS records and SRTP packets with UDP and IPv4 headers."""
    report = next(iter(connection.sctp.transport._get_stats().values()))
    return float(report.bytesSent + IP_UDP * report.packetsSent)
