"""High dynamic range and wide gamut become BT.709 pictures of the same brightness and colours."""

from fractions import Fraction

import av
import numpy as np
import pytest

from iwcodec.codec.media.conversion import RgbConverter
from iwcodec.codec.media.tone_map import HLG, PQ, map_colours

FROM_BT709 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""Linear light of BT.709 to BT.2020 (ITU-R BT.2087, section 4)."""
COLOURS = [(127, 76, 75), (200, 150, 120), (90, 90, 90), (30, 60, 20), (180, 180, 190), (0, 0, 0)]


def pq(light: np.ndarray) -> np.ndarray:
    """Signal of light in units of 203 cd/m2 (SMPTE ST 2084)."""
    power = (light * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """Signal of light in units of 203 cd/m2 on a display of 1000 cd/m2 (ITU-R BT.2100)."""
    display = light * 203 / 1000
    luma = np.maximum(display @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene = display * luma ** (1 / 1.2 - 1)
    log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)


def light_of(colours: list[tuple[int, int, int]]) -> np.ndarray:
    return (np.array(colours) / 255) ** 2.4 @ FROM_BT709.T


@pytest.mark.parametrize(("transfer", "signal"), [(PQ, pq), (HLG, hlg)])
def test_what_standard_range_can_show_is_kept(transfer: int, signal: object) -> None:
    mapped = map_colours(signal(light_of(COLOURS)), transfer, wide=True) * 255
    assert np.abs(mapped - COLOURS).max() < 2


@pytest.mark.parametrize(("transfer", "signal"), [(PQ, pq), (HLG, hlg)])
def test_highlights_are_compressed_and_not_clipped(transfer: int, signal: object) -> None:
    grey = np.array([1.0, 1.5, 2.5, 4.9])[:, None].repeat(3, 1)
    mapped = map_colours(signal(grey), transfer, wide=True)[:, 0] * 255
    assert 235 < mapped[0] < 250
    assert (np.diff(mapped) > 0).all()
    assert mapped[-1] == pytest.approx(255, abs=0.5)


def test_wide_gamut_of_standard_range_is_mapped() -> None:
    mapped = map_colours(light_of(COLOURS) ** (1 / 2.4), 0, wide=True) * 255
    assert np.abs(mapped - COLOURS).max() < 2


@pytest.mark.parametrize(("transfer", "signal"), [(PQ, pq), (HLG, hlg)])
def test_decoded_frames_are_mapped(transfer: int, signal: object) -> None:
    """BT.2020 YUV of ten bits, as phones record it."""
    for colour in COLOURS[:3]:
        red, green, blue = signal(light_of([colour]))[0]
        luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
        planes = (64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746)
        frame = av.VideoFrame(32, 32, "yuv444p10le")
        for plane, value in zip(frame.planes, planes, strict=True):
            plane.update(np.full(plane.buffer_size // 2, round(float(value)), np.uint16).tobytes())
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        frame.colorspace, frame.color_trc, frame.color_primaries = 9, transfer, 9
        picture = RgbConverter(32, 32)(frame)
        assert picture.shape == (32, 32, 3)
        assert np.abs(picture.astype(int) - colour).max() <= 4
