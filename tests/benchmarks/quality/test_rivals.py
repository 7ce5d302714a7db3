"""Rivals: every codec encodes without delay and decodes to the input, and only RTP payload is counted."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from iwcodec.benchmarks.quality.rivals import CODECS, _av1_payload, _h264_payload, _h265_payload, encode_rival
from iwcodec.codec.sources.av1 import Picture


def clip(count: int = 24, size: int = 64) -> list[Picture]:
    """A textured disc that swings from side to side."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    frames = []
    for i in range(count):
        shift = 6 * np.sin(i / 4)
        disc = (x - size / 2 - shift) ** 2 + (y - size / 2) ** 2 < (size / 3) ** 2
        texture = 30 * np.sin((x - shift) / 4) * np.cos(y / 5)
        frames.append(np.stack([np.where(disc, 140 + 20 * c + texture, 50 + x) for c in range(3)], -1).astype(np.uint8))
    return frames


def mean_psnr(result_pictures: list[Picture], originals: list[Picture]) -> float:
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(result_pictures, originals, strict=True)]
    return float(np.mean(10 * np.log10(255**2 / np.array(errors))))


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(codec: str) -> None:
    pictures = clip()
    result = encode_rival(codec, iter(pictures), 25, 60)
    decoded = list(result.pictures())
    assert [p.shape for p in decoded] == [p.shape for p in pictures]
    assert mean_psnr(decoded, pictures) > 28
    assert len(result.frame_bytes) == len(pictures)
    assert min(result.frame_bytes) > 0
    assert result.kbps == pytest.approx(sum(result.frame_bytes) * 8 * 25 / len(pictures) / 1000)
    assert result.settings
    assert result.seconds > 0
    assert list(result.pictures())[3].tobytes() == decoded[3].tobytes()


@pytest.mark.parametrize("codec", CODECS)
def test_higher_rate_gives_higher_quality(codec: str) -> None:
    pictures = clip(40)
    low, high = (encode_rival(codec, pictures, 25, kbps) for kbps in (20, 120))
    assert low.kbps < high.kbps
    assert mean_psnr(list(low.pictures()), pictures) < mean_psnr(list(high.pictures()), pictures)


@pytest.mark.parametrize("codec", CODECS)
def test_one_key_picture_only(codec: str) -> None:
    cut = clip(20) + [255 - p for p in clip(150)]
    assert encode_rival(codec, cut, 25, 30).key_pictures == 1


def test_shrink_and_skip() -> None:
    pictures = clip(9, 128)
    result = encode_rival("svtav1", pictures, Fraction(30000, 1001), 40, shrink=2, skip=2)
    decoded = list(result.pictures())
    assert len(decoded) == 9
    assert decoded[0].shape == (128, 128, 3)
    np.testing.assert_array_equal(decoded[2], decoded[3])
    assert [size > 0 for size in result.frame_bytes] == [True, False] * 4 + [True]
    assert result.fps == Fraction(30000, 1001)


def test_only_rtp_payload_is_counted() -> None:
    frame = bytes([0x32, 0x85, 0x01]) + bytes(133)
    assert _av1_payload(b"\x12\x00" + bytes([0x0A, 2, 7, 7]) + frame) == 3 + 134
    sps, sei, slice_ = b"\x67abc", b"\x06xyz", b"\x65" + b"s" * 9
    assert _h264_payload(b"\0\0\0\1" + sps + b"\0\0\1" + sei + b"\0\0\0\1" + slice_) == 4 + 10
    vps, prefix_sei, delimiter = b"\x40\x01ab", b"\x4e\x01c", b"\x46\x01P"
    assert _h265_payload(b"\0\0\0\1" + delimiter + b"\0\0\0\1" + vps + b"\0\0\1" + prefix_sei) == 4


def test_invalid_arguments_raise() -> None:
    with pytest.raises(ValueError, match="svtav1"):
        encode_rival("h263", clip(1), 25, 10)
    with pytest.raises(ValueError, match="no pictures"):
        encode_rival("x264", [], 25, 10)


def test_nothing_is_printed() -> None:
    script = (
        "import numpy as np; from iwcodec.benchmarks.quality.rivals import *\n"
        "for c in CODECS: list(encode_rival(c, [np.zeros((64, 64, 3), np.uint8)] * 3, 25, 20).pictures())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
