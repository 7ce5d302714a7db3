"""Keypoints fitted to optical flow."""

import torch

from iwcodec.models.flow import GRID, UNSURE
from iwcodec.models.network.geometry import displacements
from iwcodec.models.training.fitting import Equations, equations, fit_keypoints, residuals

K, SIDE = 5, 16


def smooth_basis(seed: int) -> torch.Tensor:
    """A random smooth basis (1, 1, M, 3 K)."""
    coarse = torch.randn(1, 3 * K, 4, 4, generator=torch.Generator().manual_seed(seed)) * 0.3
    fine = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return fine.flatten(2).transpose(1, 2)[:, None]


def keypoints(seed: int) -> torch.Tensor:
    values = torch.rand(1, K, 3, generator=torch.Generator().manual_seed(seed))
    return torch.cat([values[..., :2] - 0.5, values[..., 2:] * 0.5 + 0.25], dim=-1)


def solvable_equations(rows_seed: int, driving: torch.Tensor, source: torch.Tensor) -> Equations:
    """Equations whose exact solution is the driving keypoints."""
    shift = torch.zeros(1, 1, GRID, GRID, 2)
    known = equations(smooth_basis(rows_seed), shift, torch.zeros(1, 1, GRID, GRID))
    return known._replace(moves=residuals(known, driving, source[:, None]))


def test_rows_are_the_basis_at_the_flow_s_targets() -> None:
    basis, driving, source = smooth_basis(0), keypoints(1), keypoints(2)
    shift = torch.zeros(1, 1, GRID, GRID, 2)
    shift[..., 0] = 2.0 / SIDE  # everything came from one cell to the right
    known = equations(basis, shift, torch.zeros(1, 1, GRID, GRID))
    torch.testing.assert_close(known.moves, -shift.flatten(2, 3))
    found = residuals(known, driving, source[:, None]) + known.moves
    plane = displacements(basis[:, 0], driving - source).unflatten(1, (SIDE, SIDE))
    expected = 0.25 * (plane[:, :-1, 1:-1] + plane[:, 1:, 1:-1] + plane[:, :-1, 2:] + plane[:, 1:, 2:])
    # Flow cells are half as large: those around a corner of four basis cells average to its value.
    fine = found.unflatten(2, (GRID, GRID))[:, 0]
    corners = 0.25 * (
        fine[:, 1:-2:2, 1:-4:2] + fine[:, 2:-1:2, 1:-4:2] + fine[:, 1:-2:2, 2:-3:2] + fine[:, 2:-1:2, 2:-3:2]
    )
    torch.testing.assert_close(corners[:, :, : expected.shape[2]], expected[:, :, : corners.shape[2]])


def test_motion_of_known_keypoints_is_recovered() -> None:
    source = keypoints(2)
    truth = source + 0.2 * (keypoints(1) - source)
    known = solvable_equations(0, truth, source)
    found = fit_keypoints(known, source, source[:, None])
    assert residuals(known, found, source[:, None]).norm(dim=-1).mean() < 0.1 * known.moves.norm(dim=-1).mean()
    assert (found - truth)[..., :2].abs().mean() < 0.3 * (source - truth)[..., :2].abs().mean()


def test_without_valid_flow_the_detected_keypoints_stay() -> None:
    detected, source = keypoints(3), keypoints(2)
    error = torch.full((1, 1, GRID, GRID), float(UNSURE))
    known = equations(smooth_basis(0), torch.rand(1, 1, GRID, GRID, 2), error)
    torch.testing.assert_close(fit_keypoints(known, detected, source[:, None]), detected)


def test_residuals_have_a_gradient_for_the_basis() -> None:
    basis = smooth_basis(0).requires_grad_()
    shift = torch.randn(1, 1, GRID, GRID, 2, generator=torch.Generator().manual_seed(4)) * 0.05
    known = equations(basis, shift, torch.zeros(1, 1, GRID, GRID))
    found = fit_keypoints(known, keypoints(1), keypoints(2)[:, None])
    residuals(known, found, keypoints(2)[:, None]).square().mean().backward()
    assert basis.grad.abs().sum() > 0
    assert found.dtype == torch.float32
    assert found[..., 2].min() >= 0


def test_first_and_better_sources_have_more_weight() -> None:
    error = torch.zeros(1, 2, GRID, GRID)
    error[0, 0, : GRID // 2] = 20.0  # the upper half is better in the second
    basis = smooth_basis(0).expand(-1, 2, -1, -1)
    weights = equations(basis, torch.zeros(1, 2, GRID, GRID, 2), error).weights.unflatten(2, (GRID, GRID))
    upper, lower = weights[0, :, : GRID // 2].mean((1, 2)), weights[0, :, GRID // 2 :].mean((1, 2))
    assert upper[1] > 10 * upper[0]
    assert lower[0] > 5 * lower[1]
