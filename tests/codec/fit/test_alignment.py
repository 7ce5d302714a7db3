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
