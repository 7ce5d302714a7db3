"""Motion coordinates: invertible, and orthonormal in the quadratic form of the error."""

import numpy as np
import pytest

from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.motion.space import MotionSpace, MotionSpaces, at_rest, columns, motion_space
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.library import Library
from iwcodec.models.runtime.load import load_runtime
from support.codec.stub_runtime import StubRuntime, picture

RNG = np.random.default_rng(0)
FORM = (lambda rows: rows.T @ rows)(RNG.normal(size=(200, 60)) * np.geomspace(0.1, 3, 60))
DIRECTIONS = load_transform_tables().directions


def test_columns_are_orthonormal_in_the_form() -> None:
    found = columns(FORM, DIRECTIONS)
    np.testing.assert_allclose(found.T @ FORM @ found, np.eye(60), atol=1e-9)


@pytest.mark.parametrize("count", [1, 7, 60])
def test_the_first_columns_span_the_first_directions(count: int) -> None:
    both = np.concatenate([columns(FORM, DIRECTIONS)[:, :count], DIRECTIONS[:, :count]], axis=1)
    assert np.linalg.matrix_rank(both / np.linalg.norm(both, axis=0), tol=1e-6) == count


def test_keypoints_invert_coordinates() -> None:
    space = MotionSpace(RNG.uniform(0.2, 0.4, 60), columns(FORM, DIRECTIONS))
    expected = space.own + RNG.normal(size=60) * 0.01
    back = space.keypoints(space.coordinates(expected)[None])[0]
    np.testing.assert_allclose(unknowns(back), expected, atol=1e-6)
    np.testing.assert_allclose(space.keypoints(np.zeros((1, 60)))[0], space.own.reshape(3, 20).T, rtol=1e-6)


def test_the_error_is_the_same_in_unknowns_and_coordinates() -> None:
    space, error = MotionSpace(np.zeros(60), columns(FORM, DIRECTIONS)), RNG.normal(size=60)
    form = np.diag(RNG.uniform(1, 2, 60))
    y = space.coordinates(error)
    assert y @ space.metric(form) @ y == pytest.approx(error @ form @ error)


def test_the_origin_is_the_source_and_the_columns_are_numerically_stable() -> None:
    """Sender and receiver may compute the Gram matrix on different machines."""
    shown = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    runtime = load_runtime(threads=1)
    source = runtime.prepare(shown)
    space = motion_space(source, DIRECTIONS)
    np.testing.assert_allclose(space.keypoints(np.zeros((1, 60)))[0], source.keypoints, atol=1e-6)
    _, gram = at_rest(source)
    other = columns(gram * (1 + 1e-6 * RNG.normal(size=gram.shape)), DIRECTIONS)
    np.testing.assert_allclose(other, space.columns, atol=1e-3 * np.abs(space.columns).max())


def test_directions_of_another_number_of_keypoints_are_ignored() -> None:
    space = motion_space(StubRuntime().prepare(picture(90)), DIRECTIONS[:9, :9])
    assert space.columns.shape == (60, 60)


def test_the_coordinates_of_a_slot_are_those_of_its_source() -> None:
    runtime, library = StubRuntime(), Library(2)
    spaces = MotionSpaces(library, DIRECTIONS)
    assert spaces.at(3) is None
    library.add(3, runtime.prepare(picture(60)))
    first = spaces.at(3)
    assert first is not None
    assert spaces.at(3) is first
    library.add(3, runtime.prepare(picture(120)))
    replaced = spaces.at(3)
    assert replaced.own[0] == pytest.approx(120 / 127.5 - 1, abs=0.01)
    for slot in (4, 5):
        library.add(slot, runtime.prepare(picture(10 * slot)))
    assert spaces.at(3) is None  # evicted
    assert spaces.at(5) is not None
    assert set(spaces._known) == {5}  # 29 KB each
