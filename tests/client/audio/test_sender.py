"""Encoding and adaptation of the outgoing audio."""

import numpy as np
import pytest

from iwcodec.client.audio import sender
from iwcodec.client.audio.sender import AudioSender
from iwcodec.codec.media.audio.opus import OpusDecoder
from support.media.sounds import RATE, voice

BLOCK = 960


class Recording:
    """Track double that keeps the packets."""

    def __init__(self, audio_sender: AudioSender) -> None:
        self.sent: list[tuple[bytes, int]] = []
        audio_sender._tracks.append(self)

    def put(self, payload: bytes, timestamp: int) -> None:
        self.sent.append((payload, timestamp))


def speak(audio_sender: AudioSender, sound: np.ndarray, start_s: float = 100.0) -> None:
    for at in range(0, len(sound), BLOCK):
        audio_sender.push(sound[at : at + BLOCK], start_s + at / RATE)


def test_timestamps_are_the_capture_times_of_the_first_samples() -> None:
    audio_sender = AudioSender()
    out = Recording(audio_sender)
    speak(audio_sender, voice(1.2))
    assert [timestamp for _, timestamp in out.sent] == [100 * RATE + n * 2880 for n in range(20)]


def test_a_gap_in_the_capture_leaves_a_gap_in_the_timestamps() -> None:
    audio_sender = AudioSender()
    out = Recording(audio_sender)
    speak(audio_sender, voice(0.6))
    speak(audio_sender, voice(0.6), start_s=103.0)
    assert [timestamp for _, timestamp in out.sent][10] == 103 * RATE


def test_muting_sends_silence_at_a_negligible_rate() -> None:
    audio_sender = AudioSender()
    out = Recording(audio_sender)
    speak(audio_sender, voice(1.2))
    spoken = len(out.sent)
    audio_sender.mute(True)
    speak(audio_sender, voice(6.0), start_s=101.2)
    silent = out.sent[spoken + 5 :]
    assert sum(len(payload) for payload, _ in silent) * 8 / 6.0 < 1500
    decoder = OpusDecoder()
    heard = np.concatenate([decoder.decode(payload) for payload, _ in out.sent])
    assert np.abs(heard[-5 * 2880 :].astype(int)).max() < 200


def test_packets_carry_copies_while_a_peer_reports_losses() -> None:
    audio_sender = AudioSender()
    out = Recording(audio_sender)

    def kbps(seconds: float) -> float:
        before = len(out.sent)
        speak(audio_sender, voice(seconds), start_s=100.0 + before * 0.06)
        return sum(len(payload) for payload, _ in out.sent[before:]) * 8 / 1000 / seconds

    thin = kbps(3.0)
    audio_sender.report(0.1)
    assert audio_sender.robust
    assert kbps(3.0) > thin + 4
    for _ in range(sender.CALM_REPORTS):
        assert audio_sender.robust
        audio_sender.report(0.0)
    assert not audio_sender.robust
    assert kbps(3.0) == pytest.approx(thin, abs=1.5)


def test_congestion_lowers_the_bit_rate() -> None:
    """Losses under congestion do not switch on redundancy; other losses do."""
    audio_sender = AudioSender()
    asked: list[tuple[int, int]] = []
    adapt = audio_sender._encoder.adapt
    audio_sender._encoder.adapt = lambda *how: (asked.append(how), adapt(*how))[1]
    audio_sender.report(0.2, congested=True)
    assert (audio_sender.congested, audio_sender.robust) == (True, False)
    for _ in range(sender.CALM_REPORTS - 1):
        audio_sender.report(0.2)  # the queue drains, and its losses are still being reported
    audio_sender.report(0.0)
    assert (audio_sender.congested, audio_sender.robust) == (False, False)
    audio_sender.report(0.2)
    assert audio_sender.robust
    audio_sender.report(0.2, congested=True)
    assert not audio_sender.robust
    assert asked == [
        (sender.CONGESTED_BITRATE, 0),
        (sender.BITRATE, 0),
        sender.LOSSY_SETTINGS,
        (sender.CONGESTED_BITRATE, 0),
    ]


def test_audio_waits_briefly_for_the_first_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most MAX_HOLD_S after connecting, and not once the picture has been sent."""
    now = 100.0
    monkeypatch.setattr(sender.time, "monotonic", lambda: now)
    track = AudioSender().track()
    waits = True
    track.waits = lambda: waits
    track.put(b"before the connection", 0)
    track.connected_s = now
    track.put(b"with it", 1)
    now += sender.MAX_HOLD_S - 0.1
    track.put(b"still early", 2)
    assert track._queue.empty()
    now += 0.2
    track.put(b"long enough", 3)
    assert bytes(track._queue.get_nowait()) == b"long enough"
    now, waits = 100.0, False
    track.put(b"nothing to wait for", 4)
    assert bytes(track._queue.get_nowait()) == b"nothing to wait for"
