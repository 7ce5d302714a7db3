"""Opus through libopus: bitrate, DTX, recovery and concealment of lost packets, foreign bytes."""

import random

import av
import numpy as np
import pytest

from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.audio import opus
from iwcodec.codec.media.types import AUDIO_RATE
from support.media.sounds import envelope, voice

COUNT = 2880


def blocks(samples: np.ndarray) -> list[np.ndarray]:
    return [samples[at : at + COUNT] for at in range(0, len(samples) - COUNT + 1, COUNT)]


def coded(seconds: float, bitrate: int = 10_000, loss: int = 0) -> list[bytes]:
    encoder = opus.OpusEncoder(bitrate, 60, loss)
    return [encoder.encode(block) for block in blocks(voice(seconds))]


@pytest.mark.parametrize("bitrate", [8_000, 12_000, 16_000])
def test_the_bitrate_is_kept(bitrate: int) -> None:
    packets = coded(6.0, bitrate)
    spent = sum(map(len, packets)) * 8 / (len(packets) * 0.06)
    assert 0.5 * bitrate < spent < 1.1 * bitrate


def test_the_decoded_sound_resembles_the_original() -> None:
    decoder = opus.OpusDecoder()
    heard = np.concatenate([decoder.decode(packet) for packet in coded(4.0)])
    spoken = voice(4.0)[: len(heard)]
    assert np.corrcoef(envelope(spoken)[:-7], envelope(heard)[7:])[0, 1] > 0.9  # the look-ahead is 6.5 ms


def test_ffmpeg_decodes_the_same_samples() -> None:
    theirs, ours = av.AudioCodecContext.create("libopus", "r"), opus.OpusDecoder()
    theirs.extradata = b"OpusHead\x01\x01\0\0" + AUDIO_RATE.to_bytes(4, "little") + b"\0\0\0"  # RFC 7845, section 5.1
    theirs.sample_rate = AUDIO_RATE
    for packet in coded(1.0):
        (frame,) = theirs.decode(av.Packet(packet))
        assert np.array_equal(frame.to_ndarray().reshape(-1), ours.decode(packet))


def test_silence_gives_dtx_packets() -> None:
    encoder = opus.OpusEncoder(10_000, 60)
    for block in blocks(voice(1.0)):
        encoder.encode(block)
    sizes = [len(encoder.encode(np.zeros(COUNT, np.int16))) for _ in range(50)]
    assert sum(size > opus.MAX_DTX_BYTES for size in sizes[10:]) <= 8  # one in 400 ms updates the comfort noise


def test_recovery_from_the_next_packet_beats_concealment() -> None:
    """With every fourth packet lost, the envelope of recovered packets correlates better with the original."""
    packets, spoken = coded(6.0, 16_000, 25), voice(6.0)

    def heard(recover: bool) -> np.ndarray:
        decoder, out = opus.OpusDecoder(), []
        for n, packet in enumerate(packets):
            if n % 4 != 2 or n + 1 == len(packets):
                out.append(decoder.decode(packet))
            elif recover:
                out.append(decoder.recover(packets[n + 1], COUNT))
            else:
                out.append(decoder.conceal(COUNT))
        return np.concatenate(out)

    def likeness(sound: np.ndarray) -> float:
        lost = np.concatenate([np.arange(n * 60, n * 60 + 60) for n in range(2, len(packets) - 1, 4)])
        return float(np.corrcoef(envelope(spoken)[lost], envelope(sound)[lost + 7])[0, 1])

    assert likeness(heard(True)) > likeness(heard(False)) + 0.1


def test_a_block_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2880 samples"):
        opus.OpusEncoder(10_000, 60).encode(np.zeros(960, np.int16))


def test_damaged_packets_raise_only_format_errors() -> None:
    rng = random.Random(3)
    packets, decoder = coded(1.0), opus.OpusDecoder()
    for _ in range(3000):
        data = bytearray(rng.choice(packets))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(len(data) + 1)]
        try:
            assert opus.packet_samples(bytes(data)) <= opus.MAX_PACKET_SAMPLES
            assert len(decoder.decode(bytes(data))) <= opus.MAX_PACKET_SAMPLES
        except FormatError:
            continue
    with pytest.raises(FormatError):
        decoder.decode(b"")
    with pytest.raises(FormatError):
        decoder.decode(b"\0" * 10_000)
