"""Grids and displacements."""

import torch

from iwcodec.models.network.geometry import cell_centres, displacements, upsample_cells


def test_upsample_cells_is_linear_between_cells() -> None:
    coarse = cell_centres(4, torch.zeros(1)) * torch.tensor([0.5, -0.25])
    fine = upsample_cells(coarse.expand(2, 3, -1, -1), 16)
    assert fine.shape == (2, 3, 256, 2)
    inside = cell_centres(16, fine).abs().amax(-1) <= 0.75  # beyond the outermost centres the border is repeated
    expected = cell_centres(16, fine) * torch.tensor([0.5, -0.25])
    torch.testing.assert_close(fine[1, 2, inside], expected[inside])
    assert upsample_cells(coarse, 4) is coarse


def test_displacements_follow_places_and_strengths() -> None:
    basis = torch.tensor([[0.5, 0.25, 1.0, 0.0, 0.0, 2.0]])  # one cell, two keypoints: along, right, down
    change = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.0, 0.1]])
    expected = torch.tensor([[0.5 * 0.1 + 0.25 * 0.4 + 0.3, 0.5 * 0.2 + 2 * 0.1]])
    torch.testing.assert_close(displacements(basis, change), expected)
