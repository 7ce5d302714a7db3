"""Variants of live streams: what is sent, what regions show, and that both are bounded."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.fit.keypoint_fit import LIVE_SHEAR
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.regions import EYES, MOUTH, REGIONS, Compositor, blend, region_mask
from iwcodec.codec.sources.variant_policy import (
    BURST_BYTES,
    BYTES_PER_S,
    CHOICE_INTERVAL,
    MAX_SHEAR,
    REMEMBERED_FRAMES,
    VARIANT_BYTES,
    VariantPolicy,
)
from iwcodec.models.runtime.types import Source
from support.codec.expressions import PLACES, expression, home_source
from support.codec.stub_runtime import StubRuntime
from support.codec.textured_source import SIZE, TEXTURE

HOME, OTHER = 3, 4
"""Slots."""


class Stream:
    """A policy, and the sources that receivers have."""

    def __init__(self) -> None:
        self.home = home_source()
        self.library = Library()
        self.library.add(HOME, self.home)
        self.policy = VariantPolicy(Compositor(StubRuntime()), self.library)
        self.frames = 0
        self.added: list[int] = []

    def show(
        self, picture: Picture, frames: int, source: Source | None = None, wider: float = 1
    ) -> tuple[int | None, ...]:
        """Push frames at 25 a second, in the pose of the source but `wider`, add the variants that are wanted, and
        return what the last frame shows."""
        source = source or self.home
        keypoints = source.keypoints * np.array([wider, 1, 1], np.float32)
        for _ in range(frames):
            self.policy.choose(picture, keypoints, source)
            wanted = self.policy.wanted(self.frames / 25)
            self.frames += 1
            if wanted is not None:
                self.added.append(10 + len(self.added))
                base = self.policy.home
                assert base is not None
                self.library.add(self.added[-1], replace(base, picture=wanted), variant=True)
        return self.policy.shown


def test_a_new_expression_becomes_a_variant_that_is_shown() -> None:
    stream = Stream()
    assert stream.show(stream.home.picture, 10) == (None, None)
    new = expression(stream.home, 1, None)
    assert stream.show(new, 2 * CHOICE_INTERVAL) == (10, None)
    assert stream.added == [10]
    variant = stream.library.at(10)
    mask = region_mask(stream.home.keypoints, EYES, SIZE, PLACES)
    assert np.array_equal(variant.picture[mask == 0], stream.home.picture[mask == 0])
    assert np.abs(variant.picture.astype(float) - new)[mask == 1].mean() < 3
    assert stream.show(stream.home.picture, 1) == (None, None)
    assert stream.show(expression(stream.home, None, 2), 2 * CHOICE_INTERVAL) == (None, 11)


def test_a_fit_that_is_held_back_gives_no_variant() -> None:
    """Its eyes and mouth are not where it says."""
    stream = Stream()
    ref = Compositor(StubRuntime()).reference(stream.home)
    wide = stream.home.keypoints * np.array([1.5, 1, 1], np.float32)
    assert ref.shear(unknowns(wide)) > LIVE_SHEAR
    new = expression(stream.home, 1, None)
    assert stream.show(new, 4 * CHOICE_INTERVAL, wider=1.5) == (None, None)
    assert stream.added == []
    assert stream.show(new, 2 * CHOICE_INTERVAL) == (10, None)


def test_a_source_in_a_pose_far_from_the_home_shows_its_own_regions() -> None:
    """The motion between them would paste others beside the places of eyes and mouth."""
    stream = Stream()
    new = expression(stream.home, 1, None)
    assert stream.show(new, 2 * CHOICE_INTERVAL) == (10, None)
    near, far = (
        replace(stream.home, keypoints=stream.home.keypoints * np.array([w, 1, 1], np.float32)) for w in (1, 1.5)
    )
    ref = Compositor(StubRuntime()).reference(stream.home)
    assert ref.shear(unknowns(near.keypoints)) < MAX_SHEAR < ref.shear(unknowns(far.keypoints))
    stream.library.add(OTHER, far)
    assert stream.show(new, 2 * CHOICE_INTERVAL, far) == (None, None)
    assert stream.show(new, 1) == (10, None)


def test_one_variant_serves_both_regions() -> None:
    stream = Stream()
    assert stream.show(expression(stream.home, 1, 2), 2 * CHOICE_INTERVAL) == (10, 10)
    assert stream.added == [10]
    assert stream.show(expression(stream.home, 1, None), 1) == (10, None)


def test_regions_of_other_sources_are_shown_for_nothing() -> None:
    stream = Stream()
    stream.library.add(OTHER, replace(stream.home, picture=expression(stream.home, 1, 2)))
    assert stream.show(expression(stream.home, None, 2), 2 * CHOICE_INTERVAL) == (None, OTHER)
    assert not stream.added


def test_another_eye_of_the_same_contrast_is_nearer_than_none() -> None:
    """In squared error a flat patch is nearer than one that is unlike, so an open eye would be shown closed."""
    stream = Stream()
    mask = region_mask(stream.home.keypoints, EYES, SIZE, PLACES)
    flat = blend(stream.home.picture, np.full_like(stream.home.picture, 128), mask)
    stream.library.add(OTHER, replace(stream.home, picture=flat))
    assert stream.show(expression(stream.home, 5, None), 1) == (None, None)
    assert stream.show(flat, 1) == (OTHER, None)


def test_a_variant_on_its_way_is_not_shown_but_the_best_that_has_arrived() -> None:
    stream = Stream()
    new = expression(stream.home, 1, None)
    rough = cv2.GaussianBlur(new, (0, 0), 3)
    stream.library.add(OTHER, replace(stream.home, picture=rough))
    stream.library.add(10, replace(stream.home, picture=new), variant=True)
    for _ in range(4 * CHOICE_INTERVAL):
        assert stream.policy.choose(new, stream.home.keypoints, stream.home, {HOME, OTHER}) == (OTHER, None)
        assert stream.policy.wanted(0.0) is None  # what is on its way need not be sent again
    assert stream.policy.choose(new, stream.home.keypoints, stream.home, {HOME, OTHER, 10}) == (10, None)


def test_an_expression_of_one_frame_is_not_worth_a_variant_beside_one_that_lasts() -> None:
    stream = Stream()
    stream.show(expression(stream.home, 1, None), CHOICE_INTERVAL - 2)
    stream.show(expression(stream.home, 2, None), 1)
    stream.show(expression(stream.home, 1, None), 1)
    lasting = stream.library.at(10)
    mask = region_mask(stream.home.keypoints, EYES, SIZE, PLACES)
    assert np.abs(lasting.picture.astype(float) - expression(stream.home, 1, None))[mask == 1].mean() < 3


@pytest.mark.parametrize("shift", [-20, 20])
def test_another_light_is_no_expression(shift: int) -> None:
    stream = Stream()
    dim = replace(stream.home, picture=(TEXTURE // 2 + 64).astype(np.uint8))
    stream.library.add(HOME, dim)
    lit = (dim.picture.astype(int) + shift).astype(np.uint8)
    assert stream.show(lit, 4 * CHOICE_INTERVAL, dim) == (None, None)
    assert not stream.added


def test_the_bytes_of_variants_are_bounded() -> None:
    stream = Stream()
    seconds = 6
    for n in range(seconds * 25 // CHOICE_INTERVAL):
        stream.show(expression(stream.home, 3 + n, 4 + n), CHOICE_INTERVAL)
    most = (BURST_BYTES + seconds * BYTES_PER_S) / VARIANT_BYTES
    assert most / 2 < len(stream.added) <= most


def test_memory_is_bounded() -> None:
    stream = Stream()
    stream.show(stream.home.picture, REMEMBERED_FRAMES + 3)
    assert [len(stream.policy._memories[region]._patches) for region in (EYES, MOUTH)] == [REMEMBERED_FRAMES] * 2


def test_sources_that_left_the_library_are_not_shown() -> None:
    stream = Stream()
    stream.show(expression(stream.home, 1, None), 2 * CHOICE_INTERVAL)
    small = Library(2)
    small.add(HOME, stream.home)
    stream.policy._library = small
    assert stream.show(expression(stream.home, 1, None), 1) == (None, None)


def test_a_home_that_left_the_library_is_replaced() -> None:
    stream = Stream()
    stream.show(stream.home.picture, 1)
    assert stream.policy.home is stream.home
    following = home_source()
    stream.policy._library = Library()
    stream.policy._library.add(OTHER, following)
    assert stream.show(following.picture, 1, following) == (None,) * len(REGIONS)
    assert stream.policy.home is following


def test_without_frames_nothing_is_wanted() -> None:
    assert Stream().policy.wanted(0.0) is None
