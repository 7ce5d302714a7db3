"""The paper's network as published."""

import torch

from iwcodec.models.baselines.implicit_warping import ImplicitWarping
from iwcodec.models.network.config import TINY


def test_it_has_nothing_that_this_project_adds() -> None:
    names = {name.split(".")[0] for name, _ in ImplicitWarping(TINY).named_parameters()}
    assert names == {"detector", "query_net", "key_net", "encoder", "extra_keys", "extra_values", "residual", "decoder"}


def test_an_exact_detector_has_no_equivariance_loss() -> None:
    network = ImplicitWarping(TINY)
    keypoints = torch.tensor([[[0.1, 0.2, 0.9], [-0.3, 0.4, 0.5]]])
    affine = torch.tensor([[[0.0, -1.0, 0.2], [1.0, 0.0, 0.0]]])
    seen = torch.tensor([[[0.2, 0.1, 0.9], [0.4, 0.5, 0.5]]])  # where the transformed picture shows them
    assert network.equivariance(keypoints, seen, affine) < 1e-6
    assert network.equivariance(keypoints, keypoints, affine) > 0.1
