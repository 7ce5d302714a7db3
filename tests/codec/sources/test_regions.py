"""Regions: where they lie in a source, blending, and composite sources."""

import math
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.regions import (
    BOX_SIDE,
    EYES,
    MASK,
    MAX_COLOUR_SHIFT,
    MOUTH,
    REGIONS,
    Box,
    Compositor,
    blend,
    box_places,
    in_box,
    region_box,
    region_mask,
)
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source
from support.codec.stub_runtime import StubRuntime
from support.codec.textured_source import SIZE, TEXTURE, moved, textured_source

IRISES, LIPS = (0, 1), (7, 8, 9, 10)
BOX = Box((110, 120), 60, 40, math.radians(9))
"""In the middle of a picture of SIZE, slightly rotated."""


def face(angle: float = 0.0, scale: float = 1.0) -> Keypoints:
    """Keypoints of a face of usual proportions, rotated clockwise by `angle` radians about the picture's middle."""
    places = np.zeros((20, 2))
    places[list(IRISES)] = (-0.2, -0.25), (0.2, -0.25)
    places[list(LIPS)] = (-0.15, 0.32), (0.15, 0.32), (0, 0.27), (0, 0.37)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.concatenate([scale * places @ turn, np.ones((20, 1))], axis=1).astype(np.float32)


def pixels(keypoints: Keypoints) -> np.ndarray:
    return (keypoints[:, :2] + 1) * (SIZE / 2) - 0.5


def located(picture: Picture = TEXTURE, keypoints: Keypoints | None = None) -> Source:
    """A textured source with the keypoints of a face, upright by default."""
    return replace(textured_source(picture), keypoints=face() if keypoints is None else keypoints)


def variant(base: Source, level: int, regions: tuple[int, ...] = REGIONS) -> Source:
    """The source with discs of this grey level in regions."""
    picture = base.picture.copy()
    for region in regions:
        x, y = region_box(base.keypoints, region, SIZE).centre
        picture = cv2.circle(picture, (round(x), round(y)), 9, (level,) * 3, -1)
    return replace(base, picture=picture)


def shown_in(source: Source, region: int) -> np.ndarray:
    """The pixels (BOX_SIDE, BOX_SIDE, 3) of a region."""
    places = box_places(region_box(source.keypoints, region, SIZE))
    return cv2.remap(source.picture, places, None, cv2.INTER_LINEAR).astype(int)


def outside(keypoints: Keypoints, region: int) -> np.ndarray:
    """Where a source with these keypoints is not in a region, (SIZE, SIZE)."""
    return region_mask(keypoints, region, SIZE, pixel_grid(SIZE)) == 0


boxes = st.builds(
    Box,
    st.tuples(st.floats(-600, 600), st.floats(-600, 600)),
    st.floats(8, 512),
    st.floats(8, 512),
    st.floats(-math.pi, math.pi),
)


@given(boxes)
@settings(max_examples=40, deadline=None)
def test_places_in_the_box_are_those_of_the_region(box: Box) -> None:
    places = box_places(box)
    assert places.mean((0, 1), dtype=float) == pytest.approx(box.centre, abs=0.01)
    assert math.dist(places[0, 0], places[0, -1]) == pytest.approx(box.width * (1 - 1 / BOX_SIDE), rel=1e-3)
    assert math.dist(places[0, 0], places[-1, 0]) == pytest.approx(box.height * (1 - 1 / BOX_SIDE), rel=1e-3)
    np.testing.assert_allclose(in_box(box, places), pixel_grid(BOX_SIDE), atol=0.02)


def test_boxes_enclose_eyes_and_mouth_of_an_upright_face() -> None:
    unit, keypoints = 0.4 * SIZE / 2, face()
    eyes, mouth = (region_box(keypoints, region, SIZE) for region in REGIONS)
    assert eyes.angle == mouth.angle == 0
    assert eyes.centre == pytest.approx((127.5, 0.75 * 128 - 0.5), abs=1e-3)
    assert eyes.width > 1.6 * unit  # from corner to corner of both eyes
    assert mouth.centre[0] == pytest.approx(127.5, abs=1e-3)
    assert mouth.centre[1] == pytest.approx(1.32 * 128 - 0.5 + 0.05 * unit, abs=0.1)
    for box, points in ((eyes, IRISES), (mouth, LIPS)):
        inside = in_box(box, pixels(keypoints)[list(points)])
        assert np.all((inside > 4) & (inside < BOX_SIDE - 5))
    masks = [region_mask(keypoints, region, SIZE, pixel_grid(SIZE)) for region in REGIONS]
    assert np.minimum(*masks).max() < 0.2  # they hardly overlap


@pytest.mark.parametrize("degrees", [-170, -30, 20, 90, 179])
def test_boxes_rotate_and_scale_with_the_face(degrees: int) -> None:
    for region, points in ((EYES, IRISES), (MOUTH, LIPS)):
        upright, angle = region_box(face(), region, SIZE), math.radians(degrees)
        for scale in (1.0, 0.5):
            keypoints = face(angle, scale)
            box = region_box(keypoints, region, SIZE)
            assert box.angle == pytest.approx(angle, abs=1e-5)
            assert (box.width, box.height) == pytest.approx((upright.width * scale, upright.height * scale))
            inside = in_box(box, pixels(keypoints)[list(points)])
            np.testing.assert_allclose(inside, in_box(upright, pixels(face())[list(points)]), atol=0.1)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1)), min_size=20, max_size=20))
@example([(0.0, 0.0, 0.0)] * 20)
@settings(max_examples=40, deadline=None)
def test_any_keypoints_have_boxes(rows: list[tuple[float, float, float]]) -> None:
    """Also coinciding irises."""
    for region in REGIONS:
        box = region_box(np.array(rows, np.float32), region, SIZE)
        assert box.width > 0
        assert box.height > 0
        assert np.isfinite([*box.centre, box.width, box.height, box.angle]).all()
        assert box.width < 4 * SIZE


def test_the_mask_is_zero_at_the_edge_and_one_in_the_middle() -> None:
    assert not MASK[[0, -1]].any()
    assert not MASK[:, [0, -1]].any()
    assert np.all(MASK[24:40, 24:40] == 1)


def box_mask() -> np.ndarray:
    """The mask of BOX in a picture, (SIZE, SIZE)."""
    return cv2.remap(MASK, in_box(BOX, pixel_grid(SIZE)), None, cv2.INTER_LINEAR)


def test_pixels_outside_the_mask_are_left_untouched() -> None:
    other = np.random.default_rng(1).integers(0, 256, TEXTURE.shape).astype(np.uint8)
    before, mask = TEXTURE.copy(), box_mask()
    blended = blend(TEXTURE, other, mask)
    assert np.array_equal(TEXTURE, before)
    assert (blended.dtype, blended.shape) == (np.uint8, TEXTURE.shape)
    assert np.array_equal(blended[mask == 0], TEXTURE[mask == 0])
    assert np.abs(blended.astype(int) - TEXTURE)[mask == 1].mean() > 20


@pytest.mark.parametrize("shift", [(0, 0, 0), (20, -10, 5)])
def test_colours_are_matched_around_the_region(shift: tuple[int, int, int]) -> None:
    """So that the same region in another light disappears."""
    flat = (TEXTURE // 2 + 60).astype(np.uint8)
    blended = blend(flat, (flat + np.array(shift)).astype(np.uint8), box_mask())
    assert np.abs(blended.astype(int) - flat).max() <= 1


def test_the_shift_of_colours_is_bounded() -> None:
    flat, mask = np.full_like(TEXTURE, 100), box_mask()
    blended = blend(flat, np.full_like(TEXTURE, 160), mask)
    assert np.all(blended[mask == 1] == 160 - MAX_COLOUR_SHIFT)


def test_an_empty_mask_changes_nothing() -> None:
    black = np.zeros_like(TEXTURE)
    assert np.array_equal(blend(TEXTURE, black, np.zeros((SIZE, SIZE), np.float32)), TEXTURE)


def test_a_region_shows_another_source_of_the_same_keypoints() -> None:
    home, compositor = located(), Compositor(StubRuntime())
    before, other = home.picture.copy(), variant(home, 240)
    for region in REGIONS:
        shown = compositor.composite(home, [other if region == of_region else None for of_region in REGIONS])
        away = outside(home.keypoints, region)
        assert np.array_equal(shown.picture[away], home.picture[away])
        inside = MASK > 0.99
        assert np.abs(shown_in(shown, region) - shown_in(other, region))[inside].mean() < 1
        assert np.abs(shown_in(shown, region) - shown_in(home, region))[inside].mean() > 8
    assert np.array_equal(home.picture, before)


def test_regions_may_show_different_sources() -> None:
    home, compositor = located(), Compositor(StubRuntime())
    bright, dark = variant(home, 240), variant(home, 10)
    shown = compositor.composite(home, (bright, dark))
    for region, other in zip(REGIONS, (bright, dark), strict=True):
        alone = compositor.composite(home, [other if region == of_region else None for of_region in REGIONS])
        assert np.array_equal(shown_in(shown, region)[16:48, 16:48], shown_in(alone, region)[16:48, 16:48])


def test_without_other_sources_the_source_is_left_as_it_is() -> None:
    home, compositor = located(), Compositor(StubRuntime())
    for shown in ((), (None,), (None, None), (home, None), (home, home)):
        assert compositor.composite(home, shown) is home


def test_further_regions_are_ignored() -> None:
    """The format has room for more regions than there are."""
    home, compositor = located(), Compositor(StubRuntime())
    other = variant(home, 240)
    assert compositor.composite(home, (None, None, other, other)) is home
    assert compositor.composite(home, (other, None, other, other)) is compositor.composite(home, (other, None))


def test_a_composite_is_made_once() -> None:
    home, compositor = located(), Compositor(StubRuntime())
    other, further = variant(home, 240), variant(home, 10)
    made = compositor.composite(home, (other, None))
    assert made is not home
    assert compositor.composite(home, (other,)) is not made  # by its regions, all of which are named
    assert compositor.composite(home, (None, other)) is not made
    assert compositor.composite(home, (further, None)) is not made
    assert compositor.composite(home, (other, None)) is made
    assert compositor.composite(located(), (other, None)) is not made


def test_composites_used_least_recently_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.codec.sources.regions.MAX_COMPOSITES", 4)
    home, compositor = located(), Compositor(StubRuntime())
    others = [replace(home, picture=home.picture) for _ in range(6)]
    first, second = (compositor.composite(home, (other, None)) for other in others[:2])
    for other in others[2:]:
        compositor.composite(home, (other, None))
        assert compositor.composite(home, (others[0], None)) is first
        assert len(compositor._composites) <= 4
    assert compositor.composite(home, (others[1], None)) is not second


def test_a_composite_keeps_the_sources_that_name_it() -> None:
    """By their identity: a new source in the same place in memory must not be taken for one of them."""
    home, compositor = located(), Compositor(StubRuntime())
    other = variant(home, 240)
    known = weakref.ref(other)
    compositor.composite(home, (other, None))
    del other
    assert known() is not None


def test_prepared_references_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.codec.sources.regions.CAPACITY", 4)
    compositor, sources = Compositor(StubRuntime()), [located() for _ in range(7)]
    references = [compositor.reference(source) for source in sources]
    assert len(compositor._references) == 4
    assert compositor.reference(sources[-1]) is references[-1]


@pytest.mark.parametrize(("dx", "dy"), [(12, 0), (-9, 6), (4, -14)])
@pytest.mark.parametrize("region", REGIONS)
def test_a_region_of_another_pose_is_registered_through_the_motion_basis(region: int, dx: int, dy: int) -> None:
    home, compositor = textured_source(), Compositor(StubRuntime())
    x, y = region_box(home.keypoints, region, SIZE).centre
    marked = cv2.circle(home.picture.copy(), (round(x), round(y)), 9, (255,) * 3, -1)
    shift = np.array([dx, dy, 0], np.float32) * (2 / SIZE)
    source = replace(textured_source(moved(dx, dy)), keypoints=home.keypoints + shift)
    shown = compositor.composite(source, [replace(home, picture=marked) if region == r else None for r in REGIONS])
    assert np.array_equal(shown.keypoints, source.keypoints)
    changed = np.abs(shown.picture.astype(int) - source.picture).mean(-1) > 15
    rows, columns = np.nonzero(changed & (shown.picture.min(-1) > 220))
    assert len(rows) > 60
    assert columns.mean() == pytest.approx(x + dx, abs=1.5)
    assert rows.mean() == pytest.approx(y + dy, abs=1.5)


def test_composites_of_any_keypoints_are_pictures() -> None:
    """Sources of a foreign stream: regions may lie anywhere."""
    rng, home, compositor = np.random.default_rng(3), located(), Compositor(StubRuntime())
    for _ in range(4):
        other = located(moved(5, 5), rng.uniform(-1, 1, home.keypoints.shape).astype(np.float32))
        for source, shown in ((home, other), (other, home)):
            picture = compositor.composite(source, (shown, shown)).picture
            assert (picture.shape, picture.dtype) == (home.picture.shape, np.uint8)
