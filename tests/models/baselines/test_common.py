"""Geometry that the baselines share."""

import torch

from iwcodec.models.baselines import common


def test_moments_find_the_centre_of_a_gaussian() -> None:
    points = torch.tensor([[[0.25, -0.5], [-0.1, 0.3]]])
    heat = common.gaussians(points, 32).flatten(2)
    assert common.moments(heat / heat.sum(-1, keepdim=True)).allclose(points, atol=1e-3)


def test_sampling_at_the_cells_own_places_changes_nothing() -> None:
    maps = torch.rand(1, 2, 8, 8)
    assert common.sample(maps, common.grid(8, maps)[None]).allclose(maps, atol=1e-5)


def test_dense_motion_mixes_its_candidates() -> None:
    motion = common.DenseMotion(2).eval()
    still = common.grid(16, torch.zeros(1)).expand(1, 3, -1, -1, -1)
    shifted = torch.cat([still[:, :1], still[:, 1:] + 0.25], dim=1)
    with torch.inference_mode():
        places, occlusion = motion(torch.rand(1, 3, 16, 16), shifted, torch.rand(1, 2, 16, 16))
    shift = places - still[:, 0]
    assert places.shape == (1, 16, 16, 2)
    assert 0 < float(shift.min()) < float(shift.max()) < 0.25
    assert 0 < float(occlusion.min()) < float(occlusion.max()) < 1


def test_affine_maps_of_points() -> None:
    turn = torch.tensor([[[0.0, -1.0, 0.5], [1.0, 0.0, 0.0]]])
    assert common.map_points(torch.tensor([[[0.2, 0.1]]]), turn).allclose(torch.tensor([[[0.4, 0.2]]]))
