"""Alignment: inverse fields, normal equations, convergence, and agreement with the PyTorch version."""

import cv2
import numpy as np
import pytest

from iwcodec.codec.fit import alignment as al
from iwcodec.models.flow import FLOW_SIZE, GRID
from iwcodec.models.runtime.pictures import pixel_grid

K = 4
RNG = np.random.default_rng(0)


def smooth(channels: int, scale: float, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).normal(0, scale, (5, 5, channels)).astype(np.float32)
    return cv2.resize(coarse, (GRID, GRID), interpolation=cv2.INTER_CUBIC).reshape(GRID, GRID, channels)


def grey(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (FLOW_SIZE, FLOW_SIZE)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def reference() -> al.Reference:
    picture = grey(1)
    basis = smooth(3 * K, 0.3, 2).reshape(GRID * GRID, 3 * K)
    return al.Reference(picture, al.blur_levels(picture), basis, np.full(3 * K, 0.4))


def test_a_field_and_its_inverse_cancel() -> None:
    forward = smooth(2, 1.0)
    back = al.backward(forward)
    inside = back[4:-4, 4:-4]
    returned = inside + al._at(forward, back)[4:-4, 4:-4]
    assert np.abs(returned).max() < 0.02
    assert np.abs(inside).max() > 0.5


def test_normal_equations_sum_over_cells() -> None:
    basis = RNG.normal(0, 1, (7, 3 * K)).astype(np.float32)
    half = RNG.normal(0, 1, (7, 2, 2))
    tensors, gains = half @ half.transpose(0, 2, 1), RNG.normal(0, 1, (7, 2))
    cells = np.stack([tensors[:, 0, 0], tensors[:, 0, 1], tensors[:, 1, 1], *gains.T], axis=1).astype(np.float32)
    along, right, down = np.split(basis, 3, axis=1)
    nothing = np.zeros_like(along)
    moves = np.stack([np.hstack([along, nothing, right]), np.hstack([nothing, along, down])], axis=1)  # (7, 2, 3 K)
    found = al.normal_equations(basis, cells)
    np.testing.assert_allclose(found.gram, np.einsum("nai,nab,nbj->ij", moves, tensors, moves), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.right, -np.einsum("nai,na->i", moves, gains), rtol=1e-4, atol=1e-4)


def test_steps_converge_to_the_keypoints_of_a_picture() -> None:
    ref = reference()
    truth = ref.unknowns + RNG.normal(0, 0.06, 3 * K)
    picture = al.warped(ref, truth).grey
    values, errors = ref.unknowns, []
    for _ in range(6):
        view = al.warped(ref, values)
        errors.append(view.error(picture))
        equations = al.alignment_equations(ref, view, picture, values - ref.unknowns)
        values = values + np.linalg.solve(equations.gram, equations.right)
    assert errors[-1] < 0.02 * errors[0]


def affine_reference() -> al.Reference:
    """A source whose cells move by any affine transform: keypoint 0 by where they are across, 1 by where down."""
    axis = (np.arange(GRID) + 0.5) * (2 / GRID) - 1
    across, down = np.meshgrid(axis, axis)
    basis = np.zeros((GRID * GRID, 3 * K), np.float32)
    basis[:, 0], basis[:, 1], basis[:, 2] = across.ravel(), down.ravel(), 1
    keypoints = np.random.default_rng(4).normal(0, 0.3, (K, 3)).astype(np.float32)
    picture = grey(1)
    return al.Reference(picture, al.blur_levels(picture), basis, al.unknowns(keypoints))


def test_only_what_is_no_similarity_shears() -> None:
    ref, moves = affine_reference(), np.zeros((3, K))
    moves[:2, :3] = [[0.2, -0.3, 0.1], [0.3, 0.2, -0.4]]  # turned, scaled and moved
    assert ref.shear(ref.unknowns + moves.ravel()) == pytest.approx(0, abs=1e-6)
    moves[0, 0] += 0.24  # stretched across
    assert ref.shear(ref.unknowns + moves.ravel()) == pytest.approx(0.12, abs=1e-6)


def test_a_step_shears_by_no_more_than_allowed() -> None:
    ref, wanted = affine_reference(), np.zeros((3, K))
    wanted[:2, :2] = [[0.4, -0.1], [0.1, 0.0]]
    step = al.Equations(np.eye(3 * K), wanted.ravel())
    free, bounded, wide = (al.stepped(ref, ref.unknowns, step, bound) for bound in (np.inf, 0.13, 0.25))
    np.testing.assert_array_equal(free, wide)
    assert ref.shear(free) == pytest.approx(0.2, abs=1e-6)
    assert 0.11 < ref.shear(bounded) <= 0.13
    assert (bounded - ref.unknowns)[K] == pytest.approx(0.1, abs=0.01)  # turned as before


def test_as_keypoints_inverts_unknowns_and_clips() -> None:
    keypoints = RNG.random((K, 3)).astype(np.float32)
    np.testing.assert_array_equal(al.as_keypoints(al.unknowns(keypoints)), keypoints)
    assert al.as_keypoints(np.full(3 * K, -2.0)).min() == -1
    assert al.as_keypoints(np.full(3 * K, -2.0))[:, 2].min() == 0


def test_the_alignment_of_training_agrees() -> None:
    torch = pytest.importorskip("torch")
    from iwcodec.models.training import alignment as taught

    ref = reference()
    picture = cv2.remap(ref.grey, pixel_grid(FLOW_SIZE) + np.float32([2.5, -1.5]), None, cv2.INTER_LINEAR, borderMode=1)
    blurred, values = al.blur_levels(picture), ref.unknowns
    for blur in al.BLURS:
        view = al.warped(ref, values, blur)
        equations = al.alignment_equations(ref, view, blurred[blur], values - ref.unknowns)
        values = al.unknowns(al.as_keypoints(values + np.linalg.solve(equations.gram, equations.right)))
    planes = [torch.from_numpy(plane.astype(np.float32))[None, None] for plane in (ref.grey, picture)]
    start = torch.from_numpy(al.as_keypoints(ref.unknowns))[None]
    found = taught.align(torch.from_numpy(ref.basis)[None], start, *planes, start)[0].numpy()
    moved = np.abs(al.as_keypoints(values) - start[0].numpy()).max()
    assert moved > 0.02
    assert np.abs(found - al.as_keypoints(values)).max() < 0.1 * moved
