"""Errors between regions count where eyes and lips are, whatever the light."""

import numpy as np
import pytest

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.expression import SPREADS, expression
from iwcodec.codec.sources.region_signature import (
    CONTRAST_WEIGHT,
    EXPRESSION_WEIGHTS,
    SIGNATURE_SIZE,
    errors_with,
    expressive_signature,
    signature,
    signature_errors,
)
from iwcodec.codec.sources.regions import BOX_SIDE, EYES, MASK, MOUTH, REGIONS
from support.codec.face_landmarks import face

TEXTURE = np.random.default_rng(0).integers(0, 100, (BOX_SIDE, BOX_SIDE, 3)).astype(np.uint8)


def error(a: Picture, b: Picture, region: int) -> float:
    return float(signature_errors(signature(a, region)[None], signature(b, region)[None])[0, 0])


@pytest.mark.parametrize("region", REGIONS)
def test_another_light_is_no_error(region: int) -> None:
    assert signature(TEXTURE, region).shape == (SIGNATURE_SIZE,)
    assert error(TEXTURE, TEXTURE, region) == pytest.approx(0, abs=1e-2)
    assert error(TEXTURE, TEXTURE + np.uint8(100), region) < 1


@pytest.mark.parametrize("region", REGIONS)
def test_nothing_counts_outside_the_mask(region: int) -> None:
    blocks = MASK.reshape(BOX_SIDE // 2, 2, BOX_SIDE // 2, 2).max((1, 3)) > 0
    inner = np.kron(blocks, np.ones((2, 2), bool))
    assert error(TEXTURE, np.where(inner[..., None], TEXTURE, np.uint8(255)), region) == pytest.approx(0, abs=1e-2)


def dot(x: float, y: float) -> Picture:
    """A patch with a bright square at a place in half sides from its middle."""
    patch = np.full((BOX_SIDE, BOX_SIDE, 3), 60, np.uint8)
    column, row = (round((1 + at) * BOX_SIDE / 2) for at in (x, y))
    patch[row - 4 : row + 4, column - 4 : column + 4] = 200
    return patch


def test_eyes_count_at_the_sides_and_lips_in_the_middle() -> None:
    blank = np.full((BOX_SIDE, BOX_SIDE, 3), 60, np.uint8)
    assert error(dot(0.476, 0), blank, EYES) > 5 * error(dot(0, 0), blank, EYES)
    assert error(dot(0, 0), blank, MOUTH) > 5 * error(dot(0, 0.8), blank, MOUTH)


def test_what_is_flat_is_further_off_than_what_is_displaced() -> None:
    """An open eye is not shown closed because it is a little off."""
    blank, eye = np.full((BOX_SIDE, BOX_SIDE, 3), 60, np.uint8), dot(0.4, 0)
    assert error(eye, dot(0.55, 0), EYES) < error(eye, blank, EYES)


def test_the_squared_distance_is_the_mean_squared_error() -> None:
    rng = np.random.default_rng(1)
    some, others = rng.normal(0, 9, (2, SIGNATURE_SIZE)), rng.normal(0, 9, (3, SIGNATURE_SIZE))
    found = signature_errors(some.astype(np.float32), others.astype(np.float32))
    norms, other_norms = np.linalg.norm(some, axis=1)[:, None], np.linalg.norm(others, axis=1)
    expected = np.square(some[:, None] - others).sum(-1) + CONTRAST_WEIGHT * np.square(norms - other_norms)
    assert found == pytest.approx(expected, rel=1e-4)


def test_errors_with_several_are_those_with_each() -> None:
    rng = np.random.default_rng(2)
    known, *others = rng.normal(0, 9, (4, SIGNATURE_SIZE)).astype(np.float32)
    found = errors_with(known, dict(zip((2, 0, 9), others, strict=True)))
    assert list(found) == [2, 0, 9]
    assert list(found.values()) == pytest.approx([signature_errors(known[None], o[None])[0, 0] for o in others])
    assert errors_with(known, {}) == {}


@pytest.mark.parametrize("region", REGIONS)
def test_what_a_region_does_adds_to_the_error(region: int) -> None:
    patches = dot(0.4, 0), dot(0, 0.2)
    faces = face(1.0, 0.4, 2, 50), face(0.6, 0.5, 8, 46)
    a, b = (expressive_signature(patch, region, of) for patch, of in zip(patches, faces, strict=True))
    more = signature_errors(a[None], b[None])[0, 0] - error(*patches, region)
    apart = ((expression(faces[0]) - expression(faces[1])).reshape(2, 2) / SPREADS)[region]
    assert more == pytest.approx(EXPRESSION_WEIGHTS[region] * np.square(apart).sum(), rel=1e-3)


def test_without_landmarks_grey_levels_alone_count() -> None:
    patches = dot(0.4, 0), dot(0, 0.2)
    a, b = expressive_signature(patches[0], EYES, face()), expressive_signature(patches[1], EYES, None)
    assert signature_errors(a[None], b[None])[0, 0] == pytest.approx(error(*patches, EYES))
