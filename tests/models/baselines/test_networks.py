"""What holds for every baseline: shapes, gradients, and sets of sources."""

import pytest
import torch

from iwcodec.models.baselines.networks import BASELINES
from iwcodec.models.network.config import TINY
from iwcodec.models.training.losses import random_affine
from support.models.tiny_networks import smooth_pictures


@pytest.fixture(params=BASELINES)
def network(request: pytest.FixtureRequest):
    torch.manual_seed(1)
    return BASELINES[request.param](TINY)


def test_pictures_have_the_size_of_the_sources(network) -> None:
    pictures = smooth_pictures(8)
    for count in (1, 3):
        made = network(pictures[:2], pictures[2 : 2 + 2 * count].unflatten(0, (2, count)))
        assert made.shape == (2, 3, 64, 64)
        assert 0 <= float(made.detach().min()) <= float(made.detach().max()) <= 1


def test_every_parameter_learns(network) -> None:
    pictures = smooth_pictures(6)
    torch.manual_seed(2)
    made = network(pictures[:2], pictures[2:].unflatten(0, (2, 2)))
    affine = random_affine(2, pictures)
    loss = network.equivariance(network.detect(pictures[:2]), network.detect(pictures[2:4]), affine)
    assert loss > 0
    ((made - pictures[:2]).abs().mean() + loss).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@torch.inference_mode()
def test_a_set_of_sources_has_no_order(network) -> None:
    network.eval()
    pictures = smooth_pictures(4)
    forth, back = (network(pictures[:1], pictures[order][None]) for order in ([1, 2, 3], [3, 1, 2]))
    alone = network(pictures[:1], pictures[None, 1:2])
    assert float((forth - back).abs().max()) < 0.02 * float((forth - alone).abs().max())


@torch.inference_mode()
def test_the_same_source_twice_is_one_source(network) -> None:
    network.eval()
    pictures = smooth_pictures(2)
    once, twice = (network(pictures[:1], pictures[None, 1:].repeat(1, count, 1, 1, 1)) for count in (1, 2))
    if hasattr(network, "extra_keys"):  # which weigh less beside more keys
        assert float((once - twice).abs().mean()) < 0.05
    else:
        assert float((once - twice).abs().max()) < 1e-4
