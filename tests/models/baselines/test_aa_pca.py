"""Regions and their affine frames by PCA."""

import math

import torch

from iwcodec.models.baselines.aa_pca import AaPca, Background, RegionPose, inverse, principal_frames, region_maps
from iwcodec.models.baselines.common import moments
from iwcodec.models.network.config import TINY

COVARIANCES = torch.tensor([[[[0.04, 0.01], [0.01, 0.02]], [[0.01, -0.02], [-0.02, 0.09]]]])


def pose(covariances: torch.Tensor = COVARIANCES) -> RegionPose:
    places = torch.tensor([[[0.1, 0.2], [-0.3, 0.0]]])
    return RegionPose(places, covariances, principal_frames(covariances))


def test_frames_are_a_square_root_of_the_covariance() -> None:
    frames = principal_frames(COVARIANCES)
    assert (frames @ frames.transpose(-1, -2)).allclose(COVARIANCES, atol=1e-6)
    lengths = frames.square().sum(-2)
    assert (lengths[..., 0] > lengths[..., 1]).all()
    assert (inverse(pose()) @ frames).allclose(torch.eye(2).expand(1, 2, 2, 2), atol=1e-5)


def test_round_regions_have_a_finite_gradient() -> None:
    covariance = (0.02 * torch.eye(2)).requires_grad_()
    principal_frames(covariance).sum().backward()
    assert covariance.grad.isfinite().all()


def test_a_turned_region_has_turned_axes() -> None:
    turn = torch.tensor([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]])
    flat = torch.diag(torch.tensor([0.09, 0.01]))
    frames = principal_frames(turn @ flat @ turn.T)
    assert frames.allclose(turn @ flat.sqrt(), atol=1e-4)


def test_detected_regions_are_where_their_heat_is() -> None:
    maps = region_maps(pose(), 64).flatten(2)
    heat = maps / maps.sum(-1, keepdim=True)
    assert moments(heat).allclose(pose().places, atol=0.02)
    found = AaPca(TINY).detect(torch.rand(1, 3, 64, 64))
    assert (torch.linalg.eigvalsh(found.covariances) > 0).all()


def test_the_background_starts_still() -> None:
    affine = Background().eval()(torch.rand(2, 6, 64, 64))
    assert affine.allclose(torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3))


def test_exact_regions_have_no_equivariance_loss() -> None:
    turn = torch.tensor([[[0.98, -0.2, 0.1], [0.2, 0.98, 0.0]]])
    back = torch.linalg.inv(turn[0, :, :2])
    places = (pose().places - turn[:, None, :, 2]) @ back.T
    covariances = back @ COVARIANCES @ back.T
    transformed = RegionPose(places, covariances, principal_frames(covariances))
    network = AaPca(TINY)
    assert network.equivariance(pose(), transformed, turn) < 1e-3
    assert network.equivariance(pose(), pose(), turn) > 0.1
