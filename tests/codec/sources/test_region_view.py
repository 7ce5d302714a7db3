"""Regions of frames and sources, as they would look in one source."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.region_view import RegionView, nearest_sources, region_error
from iwcodec.codec.sources.regions import BOX_SIDE, EYES, MASK, MOUTH, REGIONS, Compositor, region_box
from iwcodec.models.runtime.types import Source
from stub_runtime import StubRuntime
from textured_source import SIZE, moved, textured_source

HOME = textured_source()


def view_of(home: Source = HOME) -> RegionView:
    return RegionView(home, Compositor(StubRuntime()))


def shifted(dx: float, dy: float) -> np.ndarray:
    """Keypoints that move the whole picture by pixels."""
    return HOME.keypoints + np.array([dx, dy, 0], np.float32) * (2 / SIZE)


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(region_error(a.astype(np.float32), b.astype(np.float32))))


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (8, -4), (-5, 11)])
def test_a_moved_frame_looks_like_the_home(dx: int, dy: int):
    """Seen without the motion, it does not."""
    view, frame = view_of(), moved(dx, dy)
    own = view.of_source(HOME)
    for region, patch in enumerate(view.of_frame(frame, shifted(dx, dy), HOME)):
        assert patch.shape == (BOX_SIDE, BOX_SIDE, 3)
        assert rms(patch, own[region]) < 5
    if dx:
        assert all(rms(a, b) > 15 for a, b in zip(view.of_frame(frame, shifted(0, 0), HOME), own, strict=True))


def test_a_frame_of_another_reference_source_looks_like_the_home():
    """It moves from the home to that source, and on to the frame."""
    view = view_of()
    other = replace(textured_source(moved(8, -4)), keypoints=shifted(8, -4))
    assert all(
        rms(a, b) < 8
        for a, b in zip(view.of_frame(moved(13, 2), shifted(13, 2), other), view.of_source(HOME), strict=True)
    )


def test_a_whole_frame_is_brought_into_the_home():
    whole = view_of().whole(moved(8, -4), shifted(8, -4), HOME)
    assert (whole.dtype, whole.shape) == (np.uint8, HOME.picture.shape)
    inner = slice(24, -24)
    assert np.abs(whole[inner, inner].astype(int) - HOME.picture[inner, inner]).mean() < 4


def test_sources_are_looked_at_in_their_own_pose():
    view = view_of()
    other = replace(textured_source(moved(8, -4)), keypoints=shifted(8, -4))
    for a, b in zip(view.of_source(other), view.of_source(HOME), strict=True):
        assert rms(a, b) < 5
    assert view.of_source(other)[0] is view.of_source(other)[0]  # computed once


def test_a_variant_differs_in_its_region():
    view, picture = view_of(), HOME.picture.copy()
    box = region_box(HOME.keypoints, MOUTH, SIZE)
    cv2.circle(picture, (round(box.centre[0]), round(box.centre[1])), round(box.height / 4), (255, 255, 255), -1)
    patches, own = view.of_source(replace(HOME, picture=picture)), view.of_source(HOME)
    assert rms(patches[MOUTH], own[MOUTH]) > 20
    assert rms(patches[EYES], own[EYES]) < rms(patches[MOUTH], own[MOUTH]) / 2


def test_sources_that_left_the_library_are_forgotten():
    view, library = view_of(), Library(capacity=2)
    for slot in range(5):
        library.add(slot, textured_source())
        found = view.of_library(library)
        assert [set(of_region) for of_region in found] == [set(library.slots())] * len(REGIONS)
        assert len(view._of_sources) <= 2


def test_a_variant_is_looked_at_too():
    """Slots, not the sources in attention."""
    library = Library()
    library.add(0, HOME)
    library.add(7, replace(HOME, picture=HOME.picture[::-1].copy()), variant=True)
    assert [set(of_region) for of_region in view_of().of_library(library)] == [{0, 7}] * len(REGIONS)


def test_errors_count_under_the_mask():
    flat = np.zeros((BOX_SIDE, BOX_SIDE, 3), np.float32)
    assert region_error(flat, flat + 3) == pytest.approx(9)
    assert region_error(flat, flat + 100 * (MASK == 0)[..., None].astype(np.float32)) == 0


def level(value: float) -> np.ndarray:
    return np.full((BOX_SIDE, BOX_SIDE, 3), value, np.float32)


LEVELS = {0: level(0), 4: level(50), 9: level(100)}
"""How the sources in slots 0, 4 and 9 look."""


@pytest.mark.parametrize(("eyes", "mouth", "chosen"), [(0, 0, (None, None)), (52, 97, (4, 9)), (8, 45, (None, 4))])
def test_each_region_shows_the_source_that_looks_most_like_it(eyes: int, mouth: int, chosen: tuple[int | None, ...]):
    assert nearest_sources([level(eyes), level(mouth)], [LEVELS] * 2, 0, (None, None)) == chosen


def test_the_reference_source_may_be_any():
    assert nearest_sources([level(52), level(1)], [LEVELS] * 2, 4, (None, None)) == (None, 0)


def test_a_small_gain_is_not_worth_a_name():
    """Neither over the reference source, nor over the source that the frame before showed."""
    half = level(25.01)
    assert nearest_sources([half], [LEVELS], 0, (None,)) == (None,)
    assert nearest_sources([half], [LEVELS], 9, (None,)) == (4,)
    assert nearest_sources([half], [LEVELS], 9, (0,)) == (0,)
    assert nearest_sources([level(35)], [LEVELS], 9, (0,)) == (4,)


def test_what_is_gone_is_not_chosen():
    """The frame before showed a source that was evicted, and the reference source is unknown."""
    assert nearest_sources([level(99)], [LEVELS], 7, (3,)) == (9,)
    assert nearest_sources([level(99)], [{}], 7, (3,)) == (None,)
