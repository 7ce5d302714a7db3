"""The audio jitter buffer on a simulated clock: timing, losses, pauses, changes of the delay, malformed packets."""

import random
from dataclasses import dataclass

import numpy as np
import pytest

from iwcodec.client.audio import jitter_buffer
from iwcodec.client.audio.jitter_buffer import AudioJitterBuffer, stretch_pitch_period
from iwcodec.codec.media.audio.opus import MAX_DTX_BYTES, OpusEncoder
from support.media.sounds import RATE, delay_ms, voice

COUNT = 2880
SHIFT = 2**32 - 3 * RATE
"""First timestamp, 3 s before the counter wraps."""


@dataclass(frozen=True)
class Rtp:
    sequence: int
    timestamp: int
    payload: bytes
    sent_s: float


def sent(sound: np.ndarray) -> list[Rtp]:
    """Packets of 60 ms, each sent after its last sample; pauses leave gaps in the timestamps but not in the sequence
    numbers."""
    encoder, packets = OpusEncoder(16_000, 60, 25), []
    for at in range(0, len(sound) - COUNT + 1, COUNT):
        payload = encoder.encode(sound[at : at + COUNT])
        if len(payload) > MAX_DTX_BYTES:
            sequence = (65_500 + len(packets)) % 65_536
            packets.append(Rtp(sequence, (at + SHIFT) % 2**32, payload, (at + COUNT) / RATE))
    return packets


def play(
    out: AudioJitterBuffer, arrivals: list[tuple[float, Rtp]], seconds: float, delays_s: dict[float, float]
) -> np.ndarray:
    """Play in blocks of 20 ms. `delays_s`: minimum delays by the time from which they hold."""
    waiting, blocks = sorted(arrivals, key=lambda a: a[0]), []
    for n in range(round(seconds * 50)):
        now = n / 50
        if now in delays_s:
            out.set_min_delay(delays_s[now])
        while waiting and waiting[0][0] <= now:
            arrived, packet = waiting.pop(0)
            out.push(1, packet.sequence, packet.timestamp, packet.payload, arrived)
        blocks.append(out.pull(960, now))
    return np.concatenate(blocks)


def test_audio_is_synchronised_with_the_video() -> None:
    """40 ms of transit, 160 ms of delay set by the video (60 of them packet duration), 6.5 ms of Opus look-ahead."""
    sound = voice(6.0)
    out = AudioJitterBuffer()
    result = play(out, [(p.sent_s + 0.04, p) for p in sent(sound)], 6.0, {0.0: 0.16})
    lag, similarity = delay_ms(sound, result)
    assert lag == pytest.approx(206, abs=18)
    assert similarity > 0.9
    assert out.counts["late"] == 0
    assert out.concealed_s < 0.1


def test_the_delay_adapts_to_jitter() -> None:
    """With jitter of up to 80 ms, almost no packets are late after adaptation."""
    rng = random.Random(1)
    out, sound = AudioJitterBuffer(), voice(8.0)
    play(out, [(p.sent_s + 0.02 + 0.08 * rng.random(), p) for p in sent(sound)], 8.0, {})
    assert out.counts["played"] > 115
    assert out.counts["late"] <= 6
    assert 0.06 < out.delay_s < 0.1


@pytest.mark.parametrize(("share", "similarity"), [(0.1, 0.85), (0.3, 0.7)])
def test_losses_do_not_shift_the_timing(share: float, similarity: float) -> None:
    rng = random.Random(2)
    out, sound = AudioJitterBuffer(), voice(8.0)
    arrivals = [(p.sent_s + 0.03, p) for p in sent(sound) if rng.random() > share]
    lag, measured = delay_ms(sound, play(out, arrivals, 8.5, {0.0: 0.18}))
    assert lag == pytest.approx(216, abs=25)
    assert measured > similarity
    assert out.counts["recovered"] > 0.4 * share * 133


def test_reordered_and_duplicate_packets_are_harmless() -> None:
    rng = random.Random(4)
    sound, tidy, messy = voice(4.0), AudioJitterBuffer(), AudioJitterBuffer()
    packets = sent(sound)
    straight = play(tidy, [(p.sent_s + 0.03, p) for p in packets], 4.5, {0.0: 0.26})
    arrivals = [
        (p.sent_s + 0.03 + 0.1 * (rng.random() < 0.2), p) for p in packets for _ in range(1 + (rng.random() < 0.3))
    ]
    assert delay_ms(straight, play(messy, arrivals, 4.5, {0.0: 0.26}))[1] > 0.98


def test_a_pause_does_not_shift_the_timing() -> None:
    sound = np.concatenate([voice(2.0), np.zeros(3 * RATE, np.int16), voice(2.0, seed=1)])
    packets = sent(sound)
    assert len(packets) < 0.8 * len(sound) / COUNT
    out = AudioJitterBuffer()
    result = play(out, [(p.sent_s + 0.03, p) for p in packets], 7.5, {0.0: 0.16})
    assert delay_ms(sound[5 * RATE :], result[5 * RATE :])[0] == pytest.approx(196, abs=25)
    assert np.abs(result[3 * RATE : 5 * RATE].astype(int)).mean() < 100


@pytest.mark.parametrize(("first", "second"), [(0.1, 0.2), (0.2, 0.1)])
def test_a_change_of_the_delay_causes_no_gap(first: float, second: float) -> None:
    out, sound = AudioJitterBuffer(), voice(10.0)
    result = play(out, [(p.sent_s + 0.03, p) for p in sent(sound)], 10.0, {0.0: 0.06 + first, 4.0: 0.06 + second})
    before = delay_ms(sound[RATE : 4 * RATE], result[RATE : 5 * RATE])[0]
    after = delay_ms(sound[7 * RATE : 9 * RATE], result[7 * RATE : 10 * RATE])[0]
    assert after - before == pytest.approx(1000 * (second - first), abs=35)
    assert out.concealed_s < 0.2


def test_playout_resumes_in_time_after_an_outage() -> None:
    out, sound = AudioJitterBuffer(), voice(12.0)
    arrivals = [(p.sent_s + 0.03, p) for p in sent(sound) if not 3 < p.sent_s < 8]
    result = play(out, arrivals, 12.0, {0.0: 0.16})
    assert not result[round(5.0 * RATE) : round(7.9 * RATE)].any()
    assert delay_ms(sound[9 * RATE : 11 * RATE], result[9 * RATE :])[0] == pytest.approx(196, abs=25)


def test_a_new_ssrc_starts_a_new_stream() -> None:
    out, sound = AudioJitterBuffer(), voice(3.0)
    packets = sent(sound)
    play(out, [(p.sent_s, p) for p in packets], 3.0, {})
    for packet in packets[:20]:
        out.push(2, packet.sequence, (packet.timestamp + 12345678) % 2**32, packet.payload, 10 + packet.sent_s)
    assert np.concatenate([out.pull(960, 10 + n / 50) for n in range(60)]).any()


def test_playout_recovers_from_malformed_packets() -> None:
    rng = random.Random(6)
    out, packets = AudioJitterBuffer(), sent(voice(2.0))
    for n in range(5000):
        payload = bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
        out.push(1, rng.randrange(2**16), rng.randrange(2**32), payload or packets[n % 30].payload, n / 1000)
        if n % 10 == 0:
            assert len(out.pull(480, n / 1000)) == 480
    assert out.counts["malformed"] > 0
    assert len(out._packets) <= jitter_buffer.MAX_PACKETS
    result = play(out, [(p.sent_s, p) for p in packets], 2.5, {})
    assert np.abs(result.astype(int)).max() > 1000


@pytest.mark.parametrize("longer", [True, False])
def test_stretching_keeps_the_waveform_continuous(longer: bool) -> None:
    tone = (8000 * np.sin(2 * np.pi * 200 * np.arange(COUNT) / RATE)).astype(np.int16)
    changed = stretch_pitch_period(tone, longer)
    assert abs(len(changed) - COUNT) % 240 <= 12  # 200 Hz: 240 samples
    assert (len(changed) > COUNT) == longer
    assert np.abs(np.diff(changed.astype(int))).max() < 1.2 * np.abs(np.diff(tone.astype(int))).max()


def test_an_undecodable_packet_is_no_source_of_recovery() -> None:
    """Its header gives a valid length, but its content is malformed: playout goes on."""
    packets = sent(voice(3.0))
    length = bytes([packets[10].payload[0] & 0xFC | 3, 0x41])
    out = AudioJitterBuffer()
    for n, packet in enumerate(packets[:30]):
        if n > 5 and n % 4 == 2:
            continue
        payload = length + b"\xff\xff\xff" if n > 5 and n % 4 == 3 else packet.payload
        out.push(1, packet.sequence, packet.timestamp, payload, packet.sent_s)
        out.pull(COUNT, packet.sent_s)
    assert out.counts["malformed"] > 5
    assert len(out.pull(960, packets[29].sent_s)) == 960
