"""Statistics of a call for people (window and terminal) and for machines (`--json`)."""

import time
from dataclasses import asdict
from typing import Any

from iwcodec.client.link.link_state import LinkStats
from iwcodec.client.quality import quality_words
from iwcodec.client.room.call import Call, Participant


def stats_lines(stats: LinkStats, participant: Participant) -> tuple[str, ...]:
    """The statistics of one participant as lines of text."""
    rates = wire_kbps(stats, participant)
    lines = [
        *(f"{what} {received:.1f} kbps in, {sent:.1f} out" for what, (sent, received) in rates.items()),
        f"{stats.frames_per_s:.0f} frames/s, {stats.sources} sources",
        f"delay {stats.delay_ms:.0f} ms, loss {100 * stats.loss:.0f} %",
    ]
    if participant.audio_buffer is not None:
        lines.append(f"sound buffer {1000 * participant.audio_buffer.delay_s:.0f} ms")
    return tuple(lines)


def stats_json(call: Call) -> dict[str, Any]:
    """The statistics of all participants: one line of `--json`."""
    participants = []
    for participant in call.participants.values():
        stats, audio = participant.stats(), participant.audio_buffer
        entry: dict[str, Any] = {} if stats is None else asdict(stats)
        entry |= {} if stats is None else {"quality": quality_words(stats)}
        rates = {} if stats is None else wire_kbps(stats, participant)
        entry |= {f"{what}_kbps": {"sent": sent, "received": received} for what, (sent, received) in rates.items()}
        if audio is not None:
            entry["sound_waits_ms"] = 1000 * audio.delay_s
            entry["sound_packets"] = audio.counts["played"] + audio.counts["recovered"]
        participants.append({"name": participant.name, "state": participant.state, "words": participant.words, **entry})
    return {"state": call.state, "participants": participants}


def wire_kbps(stats: LinkStats, participant: Participant) -> dict[str, tuple[float, float]]:
    """(sent, received) bit rates on the wire, headers from IP up included: of the picture and, in a call with sound, of
    the sound and of both."""
    picture = stats.sent_kbps.get("total", 0.0), stats.received_kbps.get("total", 0.0)
    if participant.audio_buffer is None:
        return {"picture": picture}
    now = time.monotonic()
    sound = participant.audio_traffic.sent.kbps(now), participant.audio_traffic.received.kbps(now)
    return {"picture": picture, "sound": sound, "all": (picture[0] + sound[0], picture[1] + sound[1])}
