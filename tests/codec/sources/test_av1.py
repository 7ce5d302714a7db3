"""AV1 source coding: one unit per picture, and FormatError for invalid bytes."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwcodec.codec.errors import FormatError
from iwcodec.codec.sources.av1 import Picture, SourceDecoder, SourceEncoder, is_key_unit

SIZE = 64


def picture(shift: int, size: int = SIZE) -> Picture:
    """A textured disc on a gradient, moved by `shift` pixels."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    disc = (x - size / 2 - shift) ** 2 + (y - size / 2) ** 2 < (size / 3) ** 2
    texture = 40 * np.sin((x - shift) / 5) * np.cos(y / 7)
    channels = [np.where(disc, 150 + c * 20 + texture, 60 + c * 30 + x / 2) for c in range(3)]
    return np.stack(channels, -1).clip(0, 255).astype(np.uint8)


def psnr(a: Picture, b: Picture) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture(scope="module")
def units() -> list[bytes]:
    encoder = SourceEncoder(SIZE, preset=8)
    return [encoder.add(picture(i)) for i in range(6)]


def test_every_picture_is_decoded_at_once_and_equals_the_encoders() -> None:
    encoder, decoder = SourceEncoder(SIZE, crf=35), SourceDecoder(SIZE)
    for shift in range(7):
        decoded = decoder.add(encoder.add(picture(shift)))
        assert decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, encoder.reconstructed)
        assert psnr(decoded, picture(shift)) > 33


def test_only_the_first_picture_is_a_key_picture(units: list[bytes]) -> None:
    assert [is_key_unit(unit) for unit in units] == [True, False, False, False, False, False]
    assert max(map(len, units[1:])) < len(units[0])


def test_no_more_key_pictures_after_the_default_interval() -> None:
    encoder = SourceEncoder(SIZE, crf=60, preset=12)
    assert sum(is_key_unit(encoder.add(picture(i % 3))) for i in range(170)) == 1


def test_unit_is_one_frame_without_delimiter_and_size(units: list[bytes]) -> None:
    assert units[0][0] == 0x0A
    assert units[0][2 + units[0][1]] == 0x30
    assert all(unit[0] == 0x30 for unit in units[1:])


def test_lower_crf_is_better_and_larger() -> None:
    fine, coarse = SourceEncoder(SIZE, crf=30), SourceEncoder(SIZE, crf=60)
    assert len(fine.add(picture(0))) > len(coarse.add(picture(0)))
    assert psnr(fine.reconstructed, picture(0)) > psnr(coarse.reconstructed, picture(0))


def test_a_late_decoder_starts_at_a_key_picture_and_others_continue() -> None:
    encoder, early = SourceEncoder(SIZE, preset=8), SourceDecoder(SIZE)
    for shift in range(3):
        early.add(encoder.add(picture(shift)))
    late = SourceDecoder(SIZE)
    for shift in range(3, 7):
        unit = encoder.add(picture(shift), key=shift == 3)
        np.testing.assert_array_equal(early.add(unit), late.add(unit))


def test_a_decoder_continues_with_a_new_encoder() -> None:
    decoder = SourceDecoder(SIZE)
    for crf in (50, 40):
        encoder = SourceEncoder(SIZE, crf, preset=8)
        for shift in range(3):
            np.testing.assert_array_equal(decoder.add(encoder.add(picture(shift))), encoder.reconstructed)


def test_starting_inside_the_sequence_is_refused(units: list[bytes]) -> None:
    with pytest.raises(FormatError, match="key picture"):
        SourceDecoder(SIZE).add(units[1])


def test_after_an_error_or_reset_only_a_key_unit_is_accepted(units: list[bytes]) -> None:
    decoder = SourceDecoder(SIZE)
    first = decoder.add(units[0])
    with pytest.raises(FormatError):
        decoder.add(units[1][:-9])
    with pytest.raises(FormatError, match="key picture"):
        decoder.add(units[1])
    np.testing.assert_array_equal(decoder.add(units[0]), first)
    decoder.reset()
    with pytest.raises(FormatError, match="key picture"):
        decoder.add(units[1])


@pytest.mark.parametrize("size", [128, 72, 256])
def test_another_size_is_refused(size: int) -> None:
    unit = SourceEncoder(size, preset=10).add(picture(0, size))
    with pytest.raises(FormatError):
        SourceDecoder(SIZE).add(unit)


@pytest.mark.parametrize(
    "unit", [b"", b"\x0a", b"\x30", b"\x0a\x00\x30", b"\x0a\xff\xff\xff\xff\xff", b"\x0a\xff\xff\xff\x7f\x30", bytes(9)]
)
def test_malformed_units_are_refused(unit: bytes) -> None:
    with pytest.raises(FormatError):
        SourceDecoder(SIZE).add(unit)


def test_too_long_a_unit_is_refused(units: list[bytes]) -> None:
    with pytest.raises(FormatError, match="bytes"):
        SourceDecoder(SIZE).add(units[0] + bytes(SIZE * SIZE * 3 // 2))


def test_truncated_key_units_are_refused(units: list[bytes]) -> None:
    for length in range(0, len(units[0]) - 12, 7):
        with pytest.raises(FormatError):
            SourceDecoder(SIZE).add(units[0][:length])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(0, 5), st.integers(0, 400), st.integers(0, 7))
def test_random_and_damaged_bytes_raise_only_format_errors(
    units: list[bytes], noise: bytes, index: int, place: int, bit: int
) -> None:
    damaged = bytearray(units[index])
    damaged[place % len(damaged)] ^= 1 << bit
    for unit in (noise, b"\x30" + noise, bytes(damaged)):
        decoder = SourceDecoder(SIZE)
        decoder.add(units[0])
        try:
            assert decoder.add(unit).shape == (SIZE, SIZE, 3)
        except FormatError:
            decoder.add(units[0])


def test_invalid_pictures_and_settings_raise_value_errors() -> None:
    encoder = SourceEncoder(SIZE)
    for wrong in (picture(0, 128), picture(0).astype(np.float32), picture(0)[..., 0]):
        with pytest.raises(ValueError, match="source must be"):
            encoder.add(wrong)
    for size, crf in ((60, 50), (8192, 50), (64, 0), (64, 64)):
        with pytest.raises(ValueError, match="must be"):
            SourceEncoder(size, crf)


def test_plain_colours_survive_coding() -> None:
    for colour in ([255, 255, 255], [0, 0, 0], [128, 128, 128], [255, 0, 0], [0, 255, 0], [0, 0, 255]):
        plain = np.full((SIZE, SIZE, 3), colour, np.uint8)
        encoder = SourceEncoder(SIZE, crf=10, preset=10)
        encoder.add(plain)
        assert np.abs(encoder.reconstructed.astype(int) - plain).max() <= 2


def test_nothing_is_printed() -> None:
    script = (
        "import numpy as np; from iwcodec.codec.sources.av1 import *\n"
        "e, d = SourceEncoder(64), SourceDecoder(64)\n"
        "u = e.add(np.zeros((64, 64, 3), np.uint8)); d.add(u)\n"
        "for b in (u[:-5], bytes(40), b'0' * 40):\n"
        "    try: d.add(b)\n"
        "    except Exception as x: assert type(x).__name__ == 'FormatError'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
