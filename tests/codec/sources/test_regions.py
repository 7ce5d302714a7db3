"""Parts: where they lie in a source, pasting, and composite sources."""

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import mutated
from iwcodec.codec.bitstream.packets import MAX_BOX, Box, PartsPacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.av1 import SourceDecoder, SourceEncoder, is_key_unit
from iwcodec.codec.sources.parts import (
    CAPACITY,
    EYES,
    MASK,
    MAX_COLOUR_SHIFT,
    MAX_COMPOSITES,
    MOUTH,
    PART_SIDE,
    REGIONS,
    PartLibrary,
    box_places,
    in_box,
    paste,
    region_box,
)
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints
from stub_runtime import StubRuntime
from textured_source import SIZE, TEXTURE, moved, textured_source

IRISES, LIPS = (0, 1), (7, 8, 9, 10)
BOX = Box(8 * 110, 8 * 120, 8 * 60, 8 * 40, 100)
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


@given(
    st.integers(0, 8 * 512), st.integers(0, 8 * 512), st.integers(64, 4096), st.integers(64, 4096), st.integers(0, 4095)
)
def test_places_in_the_box_are_those_of_the_part(x: int, y: int, width: int, height: int, angle: int) -> None:
    box = Box(x, y, width, height, angle)
    places = box_places(box)
    assert places.mean((0, 1)) == pytest.approx((x / 8, y / 8), abs=0.01)
    assert math.dist(places[0, 0], places[0, -1]) == pytest.approx(width / 8 * (1 - 1 / PART_SIDE), rel=1e-3)
    np.testing.assert_allclose(in_box(box, places), pixel_grid(PART_SIDE), atol=0.02)


def test_boxes_enclose_eyes_and_mouth_of_an_upright_face() -> None:
    unit, keypoints = 0.4 * SIZE / 2, face()
    eyes, mouth = (region_box(keypoints, region, SIZE) for region in REGIONS)
    assert eyes.angle == mouth.angle == 0
    assert (eyes.x, eyes.y) == (8 * 127.5, round(8 * (0.75 * 128 - 0.5)))
    assert (eyes.width, eyes.height) == (round(8 * 2.1 * unit), round(8 * 1.4 * unit))
    assert mouth.x == eyes.x
    assert mouth.y / 8 == pytest.approx(1.32 * 128 - 0.5 + 0.05 * unit, abs=0.1)
    assert mouth.width == mouth.height == round(8 * 1.7 * unit)
    for box, points in ((eyes, IRISES), (mouth, LIPS)):
        inside = in_box(box, pixels(keypoints)[list(points)])
        assert np.all((inside > 4) & (inside < PART_SIDE - 5))
    masks = [cv2.remap(MASK, in_box(box, pixel_grid(SIZE)), None, cv2.INTER_LINEAR) for box in (eyes, mouth)]
    assert np.minimum(*masks).max() < 0.2  # they hardly overlap


@pytest.mark.parametrize("degrees", [-170, -30, 20, 90, 179])
def test_boxes_rotate_and_scale_with_the_face(degrees: int) -> None:
    for region, points in ((EYES, IRISES), (MOUTH, LIPS)):
        upright, angle = region_box(face(), region, SIZE), math.radians(degrees)
        for scale in (1.0, 0.5):
            keypoints = face(angle, scale)
            box = region_box(keypoints, region, SIZE)
            assert box.angle == round(degrees / 360 * 4096) % 4096
            assert box.width == pytest.approx(upright.width * scale, abs=1)
            inside = in_box(box, pixels(keypoints)[list(points)])
            np.testing.assert_allclose(inside, in_box(upright, pixels(face())[list(points)]), atol=0.5)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1)), min_size=20, max_size=20))
def test_boxes_of_any_keypoints_can_be_transmitted(rows: list[tuple[float, float, float]]) -> None:
    for region in REGIONS:
        box = region_box(np.array(rows, np.float32), region, 256)
        packet = PartsPacket(region, 0, 0, box, (b"x",))
        assert PartsPacket.from_bytes(packet.to_bytes()) == packet


def test_a_box_of_coinciding_irises_is_small_but_not_empty() -> None:
    box = region_box(np.zeros((20, 3), np.float32), EYES, SIZE)
    assert 0 < box.width < 8 * SIZE / 8


def region_of(picture: Picture, box: Box = BOX) -> np.ndarray:
    """The pixels of a box (PART_SIDE, PART_SIDE, 3)."""
    return cv2.remap(picture, box_places(box), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def inside() -> np.ndarray:
    """Of each pixel, its distance (SIZE, SIZE) from the centre of BOX; 1 at the edge of the inscribed ellipse."""
    return np.linalg.norm((in_box(BOX, pixel_grid(SIZE)) + 0.5) / PART_SIDE * 2 - 1, axis=-1)


def test_pixels_outside_the_mask_are_left_untouched() -> None:
    part = np.random.default_rng(1).integers(0, 256, (PART_SIDE, PART_SIDE, 3)).astype(np.uint8)
    before = TEXTURE.copy()
    pasted = paste(TEXTURE, part, in_box(BOX, pixel_grid(SIZE)))
    assert np.array_equal(TEXTURE, before)
    assert (pasted.dtype, pasted.shape) == (np.uint8, TEXTURE.shape)
    assert np.array_equal(pasted[inside() > 1], TEXTURE[inside() > 1])
    assert np.abs(pasted.astype(int) - TEXTURE)[inside() < 0.5].mean() > 20


@pytest.mark.parametrize("shift", [(0, 0, 0), (20, -10, 5)])
def test_colours_of_the_part_are_matched_at_its_rim(shift: tuple[int, int, int]) -> None:
    """So that the picture's own region in another light disappears in it."""
    flat = (TEXTURE // 2 + 60).astype(np.uint8)
    part = (region_of(flat) + np.array(shift)).astype(np.uint8)
    pasted = paste(flat, part, in_box(BOX, pixel_grid(SIZE)))
    assert np.abs(pasted.astype(int) - flat).max() <= 4  # by sampling twice
    assert np.abs(pasted.astype(int) - flat).mean() < 0.2


def test_the_shift_of_colours_is_bounded() -> None:
    flat = np.full_like(TEXTURE, 100)
    part = np.full((PART_SIDE, PART_SIDE, 3), 160, np.uint8)
    pasted = paste(flat, part, in_box(BOX, pixel_grid(SIZE)))
    assert np.all(pasted[inside() < 0.5] == 160 - MAX_COLOUR_SHIFT)


def test_a_part_beyond_the_picture_changes_nothing() -> None:
    box = Box(8 * 2000, 8 * 2000, 80, 80, 0)
    part = np.zeros((PART_SIDE, PART_SIDE, 3), np.uint8)
    assert np.array_equal(paste(TEXTURE, part, in_box(box, pixel_grid(SIZE))), TEXTURE)


def test_the_mask_is_zero_at_the_edge_and_one_in_the_middle() -> None:
    assert not MASK[[0, -1]].any()
    assert not MASK[:, [0, -1]].any()
    assert np.all(MASK[24:40, 24:40] == 1)


def units(count: int, encoder: SourceEncoder | None = None) -> tuple[bytes, ...]:
    """Units of parts: the region of the texture with a disc, each in another grey."""
    encoder = encoder or SourceEncoder(PART_SIDE, preset=8)
    return tuple(encoder.add(disc(240 - 5 * number % 200)) for number in range(count))


def disc(level: int) -> Picture:
    return cv2.circle(region_of(TEXTURE), (32, 32), 12, (level,) * 3, -1)


def library(count: int = 3, home: Any = None, region: int = EYES) -> tuple[PartLibrary, Any]:
    """A library with parts of one region, and their home."""
    parts, home = PartLibrary(StubRuntime()), home or textured_source()
    parts.add(PartsPacket(region, 0, 0, BOX, units(count)), home)
    return parts, home


def test_a_part_is_pasted_into_its_home() -> None:
    parts, home = library()
    before = home.picture.copy()
    for number in range(3):
        shown = parts.composite(home, (number, None)).picture
        assert np.array_equal(shown[inside() > 1], home.picture[inside() > 1])
        assert np.abs(region_of(shown).astype(int) - disc(240 - 5 * number))[MASK > 0.99].mean() < 8
    assert np.array_equal(home.picture, before)


def test_parts_of_both_regions_are_pasted() -> None:
    parts, home = library()
    other = replace(BOX, y=8 * 200)
    parts.add(PartsPacket(MOUTH, 0, 0, other, units(1)), home)
    eyes, mouth, both = (parts.composite(home, numbers).picture for numbers in ((0, None), (None, 0), (0, 0)))
    assert np.array_equal(region_of(both), region_of(eyes))
    assert np.array_equal(region_of(both, other), region_of(mouth, other))
    assert not np.array_equal(eyes, mouth)


@pytest.mark.parametrize("numbers", [(), (None,), (None, None), (3, None), (None, 0), (9, 9), (None, None, 1, 2)])
def test_without_a_part_the_source_is_left_as_it_is(numbers: tuple[int | None, ...]) -> None:
    parts, home = library()
    assert parts.composite(home, numbers) is home


def test_a_missing_part_leaves_its_region_as_it_is() -> None:
    parts, home = library()
    assert parts.composite(home, (1, 7)) is parts.composite(home, (1, None))


def test_a_composite_is_made_once() -> None:
    parts, home = library()
    made = parts.composite(home, (1, None))
    assert made is not home
    assert parts.composite(home, (2, None)) is not made
    assert parts.composite(home, (1, None)) is made
    assert parts.composite(textured_source(), (1, None)) is not made


def test_a_replaced_part_is_shown_in_a_new_composite() -> None:
    parts, home = library()
    made = parts.composite(home, (1, None))
    parts.add(PartsPacket(EYES, 1, 0, BOX, (SourceEncoder(PART_SIDE).add(disc(20)),)), home)
    assert not np.array_equal(parts.composite(home, (1, None)).picture, made.picture)


def test_composites_used_least_recently_are_dropped() -> None:
    parts, home = library(MAX_COMPOSITES + 2)
    first, second = (parts.composite(home, (number, None)) for number in range(2))
    for number in range(2, MAX_COMPOSITES + 2):
        parts.composite(home, (number, None))
        assert parts.composite(home, (0, None)) is first
        assert len(parts._composites) <= MAX_COMPOSITES
    assert parts.composite(home, (1, None)) is not second


def test_the_oldest_parts_are_dropped() -> None:
    parts, home, encoder = PartLibrary(StubRuntime()), textured_source(), SourceEncoder(PART_SIDE, preset=8)
    for first, count in ((0, CAPACITY), (CAPACITY, 3)):
        parts.add(PartsPacket(EYES, first, 0, BOX, units(count, encoder)), home)
        assert len(parts.pictures(EYES)) == CAPACITY
    available = [parts.composite(home, (number, None)) is not home for number in range(CAPACITY + 4)]
    assert available == [False] * 3 + [True] * CAPACITY + [False]


def test_prepared_references_are_bounded() -> None:
    parts, sources = PartLibrary(StubRuntime()), [textured_source() for _ in range(CAPACITY + 3)]
    references = [parts.reference(source) for source in sources]
    assert len(parts._references) == CAPACITY
    assert parts.reference(sources[-1]) is references[-1]


@pytest.mark.parametrize(("dx", "dy"), [(12, 0), (-9, 6), (4, -14)])
def test_a_part_of_another_source_is_registered_through_the_motion_basis(dx: int, dy: int) -> None:
    parts, home = library()
    source = textured_source(moved(dx, dy))
    shift = np.array([dx, dy, 0], np.float32) * (2 / SIZE)
    source = replace(source, keypoints=source.keypoints + shift)
    shown = parts.composite(source, (0, None))
    assert np.array_equal(shown.keypoints, source.keypoints)
    changed = np.abs(shown.picture.astype(int) - source.picture).mean(-1) > 15
    rows, columns = np.nonzero(changed & (shown.picture.min(-1) > 200))
    assert len(rows) > 100
    at_home = np.abs(parts.composite(home, (0, None)).picture.astype(int) - home.picture).mean(-1) > 15
    home_rows, home_columns = np.nonzero(at_home & (parts.composite(home, (0, None)).picture.min(-1) > 200))
    assert columns.mean() - home_columns.mean() == pytest.approx(dx, abs=1)
    assert rows.mean() - home_rows.mean() == pytest.approx(dy, abs=1)


def test_after_a_gap_parts_are_refused_until_a_key_unit() -> None:
    parts, home, encoder = PartLibrary(StubRuntime()), textured_source(), SourceEncoder(PART_SIDE, preset=8)
    sent = units(4, encoder)
    parts.add(PartsPacket(EYES, 0, 0, BOX, sent[:1]), home)
    for number in (2, 3):  # 1 is lost
        with pytest.raises(FormatError, match="key picture"):
            parts.add(PartsPacket(EYES, number, 0, BOX, sent[number : number + 1]), home)
    assert len(parts.pictures(EYES)) == 1
    key = encoder.add(disc(90), key=True)
    assert is_key_unit(key)
    parts.add(PartsPacket(EYES, 4, 0, BOX, (key, encoder.add(disc(80)))), home)
    assert len(parts.pictures(EYES)) == 3
    assert np.array_equal(parts.pictures(EYES)[1], SourceDecoder(PART_SIDE).add(key))


def test_regions_have_sequences_of_their_own() -> None:
    parts, home = library(2, region=EYES)
    with pytest.raises(FormatError, match="key picture"):
        parts.add(PartsPacket(MOUTH, 0, 0, BOX, units(2)[1:]), home)
    encoder = SourceEncoder(PART_SIDE, preset=8)
    units(2, encoder)
    parts.add(PartsPacket(EYES, 2, 0, BOX, units(1, encoder)), home)
    assert (len(parts.pictures(EYES)), len(parts.pictures(MOUTH))) == (3, 0)


def test_a_damaged_part_keeps_the_ones_before_it() -> None:
    parts, home, sent = PartLibrary(StubRuntime()), textured_source(), units(4)
    with pytest.raises(FormatError):
        parts.add(PartsPacket(EYES, 0, 0, BOX, (sent[0], b"\x30damaged", sent[2])), home)
    assert len(parts.pictures(EYES)) == 1
    with pytest.raises(FormatError, match="key picture"):
        parts.add(PartsPacket(EYES, 3, 0, BOX, sent[3:]), home)


def test_parts_of_no_source_or_no_region_are_refused() -> None:
    parts = PartLibrary(StubRuntime())
    with pytest.raises(FormatError, match="source 5"):
        parts.add(PartsPacket(EYES, 0, 5, BOX, units(1)), None)
    with pytest.raises(FormatError, match="region 2"):
        parts.add(PartsPacket(2, 0, 0, BOX, units(1)), textured_source())
    assert not any(parts.pictures(region) for region in REGIONS)


def test_untrusted_parts_raise_only_format_errors() -> None:
    rng, home, sent = np.random.default_rng(3), textured_source(), units(3)
    parts = PartLibrary(StubRuntime())
    sides = (0, 1, 7, 800, MAX_BOX)
    other = replace(home, keypoints=rng.uniform(-1, 1, home.keypoints.shape).astype(np.float32))
    decoded = 0
    for n in range(300):
        payloads = sent if n % 3 == 0 else tuple(mutated(unit, rng) or b"x" for unit in sent)
        x, y, angle = (int(side) for side in rng.choice(sides, 3))
        width, height = (int(side) for side in rng.choice(sides[1:], 2))
        data = PartsPacket(n % 2, 0, 0, Box(x, y, width, height, angle), payloads).to_bytes()
        try:
            parts.add(PartsPacket.from_bytes(data if n % 5 else mutated(data, rng)), home)
        except FormatError:
            continue
        decoded += 1
        for source in (home, other):
            shown = parts.composite(source, (0, 1)).picture
            assert (shown.shape, shown.dtype) == (home.picture.shape, np.uint8)
    assert decoded > 50
