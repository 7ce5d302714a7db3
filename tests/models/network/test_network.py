"""The whole network before training."""

import copy
from dataclasses import replace

import pytest
import torch

from iwcodec.models.network import network as net
from iwcodec.models.network.config import LITE, PAPER, TINY, ModelConfig
from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.layers import to_maps, upsample
from iwcodec.models.network.network import ImplicitWarp, Sources
from iwcodec.models.network.warp import mean_shift
from support.models.tiny_networks import randomise, smooth_pictures, with_up_block


@pytest.fixture(scope="module")
def tiny() -> ImplicitWarp:
    torch.manual_seed(1)
    return ImplicitWarp(TINY).eval()


def generate(network: ImplicitWarp, sources, driving, **options):
    """Detect keypoints and generate the driving picture from the sources."""
    keypoints = network.detect(sources)[None]
    return network.generate(network.detect(driving), network.encode_sources(sources[None], keypoints), **options)


@torch.no_grad()
def test_keypoints_are_places_and_strengths(tiny) -> None:
    keypoints = tiny.detect(smooth_pictures(2))
    assert keypoints.shape == (2, 20, 3)
    assert keypoints[..., :2].abs().max() <= 1
    assert 0 < keypoints[..., 2].min() <= keypoints[..., 2].max() < 1


@torch.no_grad()
def test_untrained_network_copies_a_source_equal_to_the_driving_frame(tiny) -> None:
    picture = smooth_pictures(1)
    out = generate(tiny, picture, picture)
    assert (out.base - picture).abs().mean() < 0.02
    torch.testing.assert_close(out.picture, out.base)  # the decoder starts with no correction


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 4])
def test_number_of_sources_is_free(tiny, count) -> None:
    out = generate(tiny, smooth_pictures(count), smooth_pictures(1))
    assert out.picture.shape == (1, 3, 64, 64)
    assert out.warp.mass.shape == (1, count, 256)
    assert (out.warp.mass.sum(1) <= 1 + 1e-5).all()


@torch.no_grad()
def test_order_of_sources_after_the_first_does_not_matter(tiny) -> None:
    sources, driving = smooth_pictures(3), smooth_pictures(4)[3:]
    a = generate(tiny, sources, driving, dense=True).picture
    b = generate(tiny, sources[[0, 2, 1]], driving, dense=True).picture
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert (generate(tiny, sources.flip(0), driving, dense=True).picture - a).abs().mean() > 1e-3


@torch.no_grad()
def test_moving_the_keypoints_moves_the_picture(tiny) -> None:
    """The prior alone: shifting all keypoints by two cells shifts the cells near them by two cells."""
    picture = smooth_pictures(1)
    keypoints = tiny.detect(picture)
    sources = tiny.encode_sources(picture[None], keypoints[None])
    moved = keypoints.clone()
    moved[..., 0] += 2 * 2 / 16
    out = tiny.generate(moved, sources, dense=True)
    own = cell_centres(16, picture) * 8
    shift = (out.warp.places[0, 0] - own)[..., 0].unflatten(0, (16, 16))
    middle = keypoints[0, :, :2].mean(0).add(1).mul(8).long()
    assert shift[middle[1], middle[0] + 2] < -0.5


@torch.no_grad()
def test_dropped_cells_get_no_attention(tiny) -> None:
    picture = smooth_pictures(2)
    dropped = torch.zeros(1, 2, 256, dtype=torch.bool)
    dropped[:, 0] = True
    out = generate(tiny, picture, picture[:1], dense=True, dropped=dropped)
    assert out.warp.mass[:, 0].max() < 1e-6
    assert out.warp.mass[:, 1].mean() > 0.5


@torch.no_grad()
@pytest.mark.parametrize("switch", [{}, {"top_k": 0}, {"prior": False}])
@pytest.mark.parametrize("count", [1, 3])
def test_attend_merged_equals_attend(count, switch) -> None:
    torch.manual_seed(4)
    network = ImplicitWarp(replace(TINY, **switch)).eval()
    pictures = smooth_pictures(count + 1)
    keypoints = network.detect(pictures)
    sources = network.encode_sources(pictures[None, 1:], keypoints[None, 1:])
    side = network.side(pictures)
    expected = network.attend(keypoints[:1], sources, side)[:2]
    merged = network.merge_sources(sources.rows, side)
    actual = network.attend_merged(keypoints[:1], sources.keypoints, merged, sources.membership, sources.basis, side)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_every_parameter_has_a_gradient() -> None:
    torch.manual_seed(2)
    network = ImplicitWarp(TINY)
    randomise(network, 0.1, "decoder.out", "decoder.nudge", "key_net.parts")
    sources, driving = smooth_pictures(2), smooth_pictures(3)[2:]
    keypoints = network.detect(torch.cat([sources, driving]))
    out = network.generate(keypoints[2:], network.encode_sources(sources[None], keypoints[None, :2]))
    out.picture.square().mean().backward()
    without_gradient = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias before a softmax shifts all logits alike; no other parameter may lack a gradient.
    assert all("heatmaps.bias" in name for name in without_gradient), without_gradient


@torch.no_grad()
@pytest.mark.parametrize("switch", ["residual", "extra", "prior"])
def test_ablations_change_the_result(switch) -> None:
    torch.manual_seed(4)
    network = ImplicitWarp(TINY).eval()
    torch.nn.init.normal_(network.decoder.out.weight, std=0.5)
    network.extra_logits.fill_(0.0)
    pictures, driving = smooth_pictures(2), smooth_pictures(3)[2:]
    full = generate(network, pictures, driving).picture
    config = replace(TINY, **{switch: False})
    for module in network.modules():
        if isinstance(getattr(module, "config", None), ModelConfig):
            module.config = config
    assert (generate(network, pictures, driving).picture - full).abs().max() > 1e-4


@torch.no_grad()
def test_static_regions_are_not_corrected(tiny) -> None:
    """The left half is static; in the right half the shift grows by half a pixel per column."""
    side = TINY.side
    shift = torch.zeros(1, 1, side, side, 2)
    shift[..., side // 2 :, 0] = torch.arange(side // 2) * 0.5
    fields = torch.cat([shift.flatten(2, 3) / (TINY.net_size / 2), torch.ones(1, 1, side * side, 1)], dim=-1)
    length = to_maps(mean_shift(fields), side)[0, 0] * (TINY.net_size / 2)
    torch.testing.assert_close(length, shift[0, 0, ..., 0])
    twice = torch.cat([fields, fields.clone()], dim=1)
    twice[:, 1, :, 2] = 0.0  # a source without weight
    twice[:, 1, :, :2] = 1.0
    torch.testing.assert_close(mean_shift(twice), mean_shift(fields))

    features = torch.randn(1, TINY.trunk, side, side)
    gate = ((length - net.GATE_CLOSED) / (net.GATE_OPEN - net.GATE_CLOSED)).clamp(0, 1)[None, None]
    decoder = copy.deepcopy(tiny.decoder)
    torch.nn.init.normal_(decoder.out.weight, std=0.3)
    base = torch.rand(1, 3, TINY.net_size, TINY.net_size)
    change = decoder.correct(torch.cat([features, gate], dim=1), base) - base
    whole = decoder.correct(torch.cat([features, torch.ones_like(gate)], dim=1), base) - base
    half = TINY.net_size // 2
    assert change[..., : half - 4].abs().max() < 1e-6
    assert whole[..., : half - 4].abs().mean() > 0.01
    torch.testing.assert_close(change[..., -4:], whole[..., -4:])


@torch.no_grad()
def test_paper_configuration_builds_and_runs() -> None:
    config = replace(PAPER, size=64, detector_size=64, detector_widths=(16, 16, 16, 16), dim=8, values=8, trunk=8)
    network = ImplicitWarp(config).eval()
    assert generate(network, smooth_pictures(2), smooth_pictures(1)).picture.shape == (1, 3, 64, 64)


def test_lite_is_small_enough_to_ship() -> None:
    assert sum(p.numel() for p in ImplicitWarp(LITE).parameters()) * 2 < 15_000_000


@pytest.fixture(scope="module")
def pair() -> tuple[ImplicitWarp, ImplicitWarp]:
    """A network whose decoder has an effect, and the same with an untrained up block."""
    torch.manual_seed(5)
    small = ImplicitWarp(TINY).eval()
    randomise(small, 0.3, "decoder.out", "decoder.nudge")
    torch.nn.init.zeros_(small.basis_net.common)  # large random displacements would amplify rounding differences
    return small, with_up_block(small)


@torch.no_grad()
def test_untrained_up_block_upsamples_the_picture(pair, monkeypatch) -> None:
    monkeypatch.setattr(net, "GATE_CLOSED", -2.0)  # open the gate everywhere: the shifts differ slightly
    monkeypatch.setattr(net, "GATE_OPEN", -1.0)
    small, large = pair
    pictures = smooth_pictures(3)
    larger_pictures = upsample(pictures, 2)
    before = generate(small, pictures[:2], pictures[2:])
    after = generate(large, larger_pictures[:2], larger_pictures[2:])
    assert after.picture.shape == (1, 3, 128, 128)
    assert (before.picture - before.base).abs().mean() > 0.05  # the decoder has an effect
    assert (after.picture - upsample(before.picture, 2)).abs().mean() < 0.01
    torch.testing.assert_close(after.warp.places, before.warp.places, atol=0.05, rtol=0)


def test_up_block_has_a_gradient_from_the_start(pair) -> None:
    pictures = upsample(smooth_pictures(3), 2)
    generate(pair[1], pictures[:2], pictures[2:]).picture.square().mean().backward()
    assert pair[1].decoder.up[0].out.weight.grad.abs().sum() > 0


def test_shapes_of_encoded_sources(tiny) -> None:
    pictures = smooth_pictures(1)
    sources = tiny.encode_sources(pictures[None], tiny.detect(pictures)[None])
    assert isinstance(sources, Sources)
    assert sources.membership.shape == (1, 1, 256, 21)
    torch.testing.assert_close(sources.membership.sum(-1), torch.ones(1, 1, 256))
    assert sources.basis.shape == (1, 1, 256, 60)
