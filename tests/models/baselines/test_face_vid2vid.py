"""Head pose, expression and 3-D flows."""

import torch

from iwcodec.models.baselines import face_vid2vid as v
from iwcodec.models.baselines.face_vid2vid import HeadPose
from iwcodec.models.network.config import TINY


def pose(yaw: float = 0.0, shift: float = 0.0) -> HeadPose:
    canonical = torch.tensor([[[0.1, 0.2, 0.3], [-0.2, 0.1, 0.4]]])
    rotation = v.rotations(torch.tensor([[yaw, 0.0, 0.0]]))
    return HeadPose(canonical, rotation, torch.tensor([[shift, 0.0, 0.0]]), torch.zeros(1, 2, 3))


def test_rotations_are_orthonormal_and_turn_as_named() -> None:
    turns = v.rotations(torch.tensor([[0.3, -0.2, 0.5], [0.0, 0.0, 0.0]]))
    assert (turns @ turns.transpose(1, 2)).allclose(torch.eye(3).expand(2, 3, 3), atol=1e-6)
    assert torch.linalg.det(turns).allclose(torch.ones(2))
    assert turns[1].equal(torch.eye(3))
    roll = v.rotations(torch.tensor([[0.0, 0.0, 0.3]]))[0]
    assert (roll @ torch.tensor([0.0, 0.0, 1.0])).allclose(torch.tensor([0.0, 0.0, 1.0]))  # keeps the depth


def test_the_same_pose_moves_nothing() -> None:
    own = v.posed(pose().canonical, pose(0.4))
    flows = v.candidates(pose(0.4), pose(0.4), own, own, 8)
    assert flows.shape == (1, 3, v.DEPTH, 8, 8, 3)
    assert (flows - v.volume_places(8, own)).abs().max() < 1e-5


def test_a_shifted_head_is_sampled_where_it_was() -> None:
    source, target = pose(), pose(shift=0.25)
    own, moved = v.posed(source.canonical, source), v.posed(source.canonical, target)
    flows = v.candidates(source, target, own, moved, 8) - v.volume_places(8, own)
    assert flows[0, 1:, ..., 0].allclose(torch.tensor(-0.25), atol=1e-5)
    assert flows[0, 0].abs().max() == 0


def test_keypoints_keep_their_distance() -> None:
    network = v.FaceVid2vid(TINY)
    identity = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])
    apart = pose()._replace(canonical=torch.tensor([[[0.5, 0, 0.33], [-0.5, 0, 0.33]]]))
    close = pose()._replace(canonical=torch.tensor([[[0.01, 0, 0.33], [-0.01, 0, 0.33]]]))
    assert network.equivariance(apart, apart, identity) < 1e-6
    assert network.equivariance(close, close, identity) > 0.05
