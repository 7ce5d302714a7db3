"""The jitter buffer of the sound, on a clock of our own: timing, losses, pauses, a new wait, foreign packets."""

import random
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from iwcodec.client.audio import jitter_buffer as playout
from iwcodec.client.audio.jitter_buffer import Playout, Speaker, splice
from iwcodec.client.audio.opus import SILENT, OpusEncoder
from iwcodec.codec.errors import CodecError
from sounds import RATE, delay_ms, voice

COUNT = 2880
SHIFT = 2**32 - 3 * RATE
"""Timestamps begin 3 s before they wrap."""


@dataclass(frozen=True)
class Rtp:
    sequence: int
    timestamp: int
    payload: bytes
    sent_s: float


def sent(sound: np.ndarray) -> list[Rtp]:
    """Packets of 60 ms, each sent when its last sample is there; pauses leave gaps in the timestamps alone."""
    encoder, packets = OpusEncoder(16_000, 60, 25), []
    for at in range(0, len(sound) - COUNT + 1, COUNT):
        payload = encoder.encode(sound[at : at + COUNT])
        if len(payload) > SILENT:
            sequence = (65_500 + len(packets)) % 65_536
            packets.append(Rtp(sequence, (at + SHIFT) % 2**32, payload, (at + COUNT) / RATE))
    return packets


def heard(out: Playout, arrivals: list[tuple[float, Rtp]], seconds: float, wait: dict[float, float]) -> np.ndarray:
    """20 ms at a time; `wait`: what the picture asks for from an instant on."""
    waiting, blocks = sorted(arrivals, key=lambda a: a[0]), []
    for n in range(round(seconds * 50)):
        now = n / 50
        if now in wait:
            out.follow(wait[now])
        while waiting and waiting[0][0] <= now:
            arrived, packet = waiting.pop(0)
            out.push(1, packet.sequence, packet.timestamp, packet.payload, arrived)
        blocks.append(out.pull(960, now))
    return np.concatenate(blocks)


def test_sound_keeps_in_step_with_the_picture() -> None:
    """40 ms on the way, 160 as the picture waits (60 of them while a packet fills), 6.5 in the coder."""
    sound = voice(6.0)
    out = Playout()
    result = heard(out, [(p.sent_s + 0.04, p) for p in sent(sound)], 6.0, {0.0: 0.16})
    lag, likeness = delay_ms(sound, result)
    assert lag == pytest.approx(206, abs=18)
    assert likeness > 0.9
    assert out.counts["late"] == 0
    assert out.concealed_s < 0.1


def test_jitter_is_waited_for() -> None:
    """Packets are up to 80 ms late: hardly any come too late once that is known."""
    rng = random.Random(1)
    out, sound = Playout(), voice(8.0)
    heard(out, [(p.sent_s + 0.02 + 0.08 * rng.random(), p) for p in sent(sound)], 8.0, {})
    assert out.counts["played"] > 115
    assert out.counts["late"] <= 6
    assert 0.06 < out.wait_s < 0.1


@pytest.mark.parametrize(("share", "likeness"), [(0.1, 0.85), (0.3, 0.7)])
def test_losses_leave_the_timing_alone(share: float, likeness: float) -> None:
    rng = random.Random(2)
    out, sound = Playout(), voice(8.0)
    arrivals = [(p.sent_s + 0.03, p) for p in sent(sound) if rng.random() > share]
    lag, alike = delay_ms(sound, heard(out, arrivals, 8.5, {0.0: 0.18}))
    assert lag == pytest.approx(216, abs=25)
    assert alike > likeness
    assert out.counts["recovered"] > 0.4 * share * 133


def test_reordered_and_repeated_packets_are_harmless() -> None:
    rng = random.Random(4)
    sound, tidy, messy = voice(4.0), Playout(), Playout()
    packets = sent(sound)
    straight = heard(tidy, [(p.sent_s + 0.03, p) for p in packets], 4.5, {0.0: 0.26})
    arrivals = [
        (p.sent_s + 0.03 + 0.1 * (rng.random() < 0.2), p) for p in packets for _ in range(1 + (rng.random() < 0.3))
    ]
    assert delay_ms(straight, heard(messy, arrivals, 4.5, {0.0: 0.26}))[1] > 0.98


def test_a_pause_does_not_shift_what_follows() -> None:
    sound = np.concatenate([voice(2.0), np.zeros(3 * RATE, np.int16), voice(2.0, seed=1)])
    packets = sent(sound)
    assert len(packets) < 0.8 * len(sound) / COUNT
    out = Playout()
    result = heard(out, [(p.sent_s + 0.03, p) for p in packets], 7.5, {0.0: 0.16})
    assert delay_ms(sound[5 * RATE :], result[5 * RATE :])[0] == pytest.approx(196, abs=25)
    assert np.abs(result[3 * RATE : 5 * RATE].astype(int)).mean() < 100


@pytest.mark.parametrize(("first", "second"), [(0.1, 0.2), (0.2, 0.1)])
def test_a_new_wait_is_reached_without_a_gap(first: float, second: float) -> None:
    out, sound = Playout(), voice(10.0)
    result = heard(out, [(p.sent_s + 0.03, p) for p in sent(sound)], 10.0, {0.0: 0.06 + first, 4.0: 0.06 + second})
    before = delay_ms(sound[RATE : 4 * RATE], result[RATE : 5 * RATE])[0]
    after = delay_ms(sound[7 * RATE : 9 * RATE], result[7 * RATE : 10 * RATE])[0]
    assert after - before == pytest.approx(1000 * (second - first), abs=35)
    assert out.concealed_s < 0.2


def test_an_outage_ends_in_silence_and_then_goes_on_in_time() -> None:
    out, sound = Playout(), voice(12.0)
    arrivals = [(p.sent_s + 0.03, p) for p in sent(sound) if not 3 < p.sent_s < 8]
    result = heard(out, arrivals, 12.0, {0.0: 0.16})
    assert not result[round(5.0 * RATE) : round(7.9 * RATE)].any()
    assert delay_ms(sound[9 * RATE : 11 * RATE], result[9 * RATE :])[0] == pytest.approx(196, abs=25)


def test_another_connection_begins_anew() -> None:
    out, sound = Playout(), voice(3.0)
    packets = sent(sound)
    heard(out, [(p.sent_s, p) for p in packets], 3.0, {})
    for packet in packets[:20]:
        out.push(2, packet.sequence, (packet.timestamp + 12345678) % 2**32, packet.payload, 10 + packet.sent_s)
    assert np.concatenate([out.pull(960, 10 + n / 50) for n in range(60)]).any()


def test_foreign_packets_change_nothing_for_long() -> None:
    rng = random.Random(6)
    out, packets = Playout(), sent(voice(2.0))
    for n in range(5000):
        payload = bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
        out.push(1, rng.randrange(2**16), rng.randrange(2**32), payload or packets[n % 30].payload, n / 1000)
        if n % 10 == 0:
            assert len(out.pull(480, n / 1000)) == 480
    assert out.counts["malformed"] > 0
    assert len(out._packets) <= playout.MAX_PACKETS
    result = heard(out, [(p.sent_s, p) for p in packets], 2.5, {})
    assert np.abs(result.astype(int)).max() > 1000


@pytest.mark.parametrize("longer", [True, False])
def test_a_pitch_period_more_or_less(longer: bool) -> None:
    tone = (8000 * np.sin(2 * np.pi * 200 * np.arange(COUNT) / RATE)).astype(np.int16)
    changed = splice(tone, longer)
    assert abs(len(changed) - COUNT) % 240 <= 12  # 200 Hz: 240 samples
    assert (len(changed) > COUNT) == longer
    assert np.abs(np.diff(changed.astype(int))).max() < 1.2 * np.abs(np.diff(tone.astype(int))).max()


def test_everyone_is_mixed_and_clipped() -> None:
    speaker, blocks = Speaker(), []
    for _ in range(2):
        out = Playout()
        out.pull = lambda count, at_s: np.full(count, 20_000, np.int16)  # type: ignore[method-assign]
        speaker.add(out)
    speaker.listeners.append(lambda block, at_s: blocks.append((block, at_s)))
    assert speaker.mix(4, 1.5).tolist() == [32767] * 4
    speaker.remove(out)
    assert speaker.mix(4, 2.0).tolist() == [20_000] * 4
    assert [at_s for _, at_s in blocks] == [1.5, 2.0]


def test_without_sounddevice_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(CodecError, match="pip install sounddevice"):
        playout.load_sounddevice()
    speaker, told = playout.open_speaker(headless=False)
    speaker.stop()
    assert told is not None
    speaker, told = playout.open_speaker(headless=True)
    speaker.stop()
    assert told is None


def test_a_packet_that_cannot_be_decoded_does_not_recover_another_either():
    """One that names its length rightly and is none behind it: the sound of everybody goes on."""
    packets = sent(voice(3.0))
    length = bytes([packets[10].payload[0] & 0xFC | 3, 0x41])
    out = Playout()
    for n, packet in enumerate(packets[:30]):
        if n > 5 and n % 4 == 2:
            continue
        payload = length + b"\xff\xff\xff" if n > 5 and n % 4 == 3 else packet.payload
        out.push(1, packet.sequence, packet.timestamp, payload, packet.sent_s)
        out.pull(COUNT, packet.sent_s)
    assert out.counts["malformed"] > 5
    assert len(out.pull(960, packets[29].sent_s)) == 960
