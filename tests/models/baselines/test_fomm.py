"""First-order motion."""

import torch

from iwcodec.models.baselines.common import grid, map_points
from iwcodec.models.baselines.fomm import Fomm, KeypointPose, first_order, inverse
from iwcodec.models.network.config import TINY

POSE = KeypointPose(torch.tensor([[[0.1, -0.2], [-0.4, 0.3]]]), torch.tensor([[[[1.2, 0.1], [-0.2, 0.9]]] * 2])[0])


def pose() -> KeypointPose:
    return KeypointPose(POSE.places, POSE.jacobians.view(1, 2, 2, 2))


def moved(affine: torch.Tensor) -> KeypointPose:
    """The pose of a picture that shows at p what the picture of `pose` shows at `affine`(p)."""
    back = torch.linalg.inv(affine[:, :, :2])
    places = (pose().places - affine[:, None, :, 2]) @ back.transpose(1, 2)
    return KeypointPose(places, back[:, None] @ pose().jacobians)


AFFINE = torch.tensor([[[0.9, -0.3, 0.1], [0.25, 1.1, -0.05]]])


def test_the_same_pose_moves_nothing() -> None:
    places = first_order(pose(), pose(), 8)
    assert places.shape == (1, 3, 8, 8, 2)
    assert (places - grid(8, places)).abs().max() < 1e-5


def test_an_affine_motion_is_followed_exactly() -> None:
    """Of a driving picture that is an affine transform of the source, every keypoint knows the motion of all cells."""
    places = first_order(pose(), moved(AFFINE), 8)
    own = grid(8, places)
    expected = map_points(own.flatten(0, 1)[None], AFFINE).view(8, 8, 2)
    assert (places[0, 1:] - expected).abs().max() < 1e-5
    assert (places[0, 0] - own).abs().max() == 0


def test_an_exact_detector_has_no_equivariance_loss() -> None:
    network = Fomm(TINY)
    assert network.equivariance(pose(), moved(AFFINE), AFFINE) < 1e-5
    assert network.equivariance(pose(), pose(), AFFINE) > 0.1


def test_inverses_are_bounded() -> None:
    matrices = torch.tensor([[[2.0, 1.0], [0.5, 1.5]], [[0.0, 0.0], [0.0, 0.0]]])
    assert inverse(matrices)[0].allclose(torch.linalg.inv(matrices[0]))
    assert inverse(matrices)[1].isfinite().all()


def test_jacobians_start_as_identities() -> None:
    found = Fomm(TINY).detect(torch.rand(1, 3, 64, 64)).jacobians
    assert (found - torch.eye(2)).abs().max() < 1e-4
