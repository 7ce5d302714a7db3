"""The network as a whole: what holds before anything is learnt."""

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.network import network as net
from iwcodec.models.network.config import LITE, LITE512, PAPER, TINY, ModelConfig
from iwcodec.models.network.geometry import cell_centres, finer
from iwcodec.models.network.network import ImplicitWarp, Sources, Warp


@pytest.fixture(scope="module")
def tiny() -> ImplicitWarp:
    torch.manual_seed(1)
    return ImplicitWarp(TINY).eval()


def smooth_pictures(count: int, size: int = 64):
    noise = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)


def rebuild(network: ImplicitWarp, sources, driving, **options):
    keypoints = network.detect(sources)[None]
    return network.generate(network.detect(driving), network.encode_sources(sources[None], keypoints), **options)


@torch.no_grad()
def test_keypoints_are_places_and_strengths(tiny):
    found = tiny.detect(smooth_pictures(2))
    assert found.shape == (2, 20, 3)
    assert found[..., :2].abs().max() <= 1
    assert 0 < found[..., 2].min() <= found[..., 2].max() < 1


@torch.no_grad()
def test_untrained_network_copies_a_source_that_is_the_driving_frame(tiny):
    picture = smooth_pictures(1)
    out = rebuild(tiny, picture, picture)
    assert (out.base - picture).abs().mean() < 0.02
    torch.testing.assert_close(out.picture, out.base)  # the decoder starts by correcting nothing


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_sources(tiny, count):
    out = rebuild(tiny, smooth_pictures(count), smooth_pictures(1))
    assert out.picture.shape == (1, 3, 64, 64)
    assert out.warp.mass.shape == (1, count, 256)
    assert (out.warp.mass.sum(1) <= 1 + 1e-5).all()


@torch.no_grad()
def test_the_order_of_sources_behind_the_first_does_not_matter(tiny):
    sources, driving = smooth_pictures(3), smooth_pictures(4)[3:]
    a = rebuild(tiny, sources, driving, dense=True).picture
    b = rebuild(tiny, sources[[0, 2, 1]], driving, dense=True).picture
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert (rebuild(tiny, sources.flip(0), driving, dense=True).picture - a).abs().mean() > 1e-3


@torch.no_grad()
def test_moving_the_keypoints_moves_the_picture(tiny):
    """The prior alone: all keypoints shifted by two cells shift what is near them by two cells."""
    picture = smooth_pictures(1)
    keypoints = tiny.detect(picture)
    sources = tiny.encode_sources(picture[None], keypoints[None])
    moved = keypoints.clone()
    moved[..., 0] += 2 * 2 / 16
    out = tiny.generate(moved, sources, dense=True)
    own = net.cell_centres(16, picture) * 8
    shift = (out.warp.places[0, 0] - own)[..., 0].unflatten(0, (16, 16))
    middle = keypoints[0, :, :2].mean(0).add(1).mul(8).long()
    assert shift[middle[1], middle[0] + 2] < -0.5


@torch.no_grad()
def test_dropped_cells_get_no_attention(tiny):
    picture = smooth_pictures(2)
    dropped = torch.zeros(1, 2, 256, dtype=torch.bool)
    dropped[:, 0] = True
    out = rebuild(tiny, picture, picture[:1], dense=True, dropped=dropped)
    assert out.warp.mass[:, 0].max() < 1e-6
    assert out.warp.mass[:, 1].mean() > 0.5


@torch.no_grad()
@pytest.mark.parametrize("switch", [{}, {"top_k": 0}, {"prior": False}])
@pytest.mark.parametrize("count", [1, 3])
def test_sources_that_were_joined_before_give_the_same(count, switch):
    torch.manual_seed(4)
    network = ImplicitWarp(replace(TINY, **switch)).eval()
    pictures = smooth_pictures(count + 1)
    keypoints = network.detect(pictures)
    sources = network.encode_sources(pictures[None, 1:], keypoints[None, 1:])
    side = network.side(pictures)
    expected = network.attend(keypoints[:1], sources, side)[:2]
    joined = network.join(sources.rows, side)
    found = network.attend_joined(keypoints[:1], sources.keypoints, joined, sources.membership, sources.basis, side)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_every_parameter_learns():
    torch.manual_seed(2)
    network = ImplicitWarp(TINY)
    for layer in (network.decoder.out, network.decoder.nudge, network.key_net.parts):
        torch.nn.init.normal_(layer.weight, std=0.1)
    sources, driving = smooth_pictures(2), smooth_pictures(3)[2:]
    keypoints = network.detect(torch.cat([sources, driving]))
    out = network.generate(keypoints[2:], network.encode_sources(sources[None], keypoints[None, :2]))
    out.picture.square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A convolution's bias before a softmax shifts all logits alike; nothing else may be silent.
    assert all("heatmaps.bias" in name for name in silent), silent


@torch.no_grad()
@pytest.mark.parametrize("switch", ["residual", "extra", "prior"])
def test_ablations_change_the_result(switch):
    torch.manual_seed(4)
    network = ImplicitWarp(TINY).eval()
    torch.nn.init.normal_(network.decoder.out.weight, std=0.5)
    network.extra_logits.fill_(0.0)
    pictures, driving = smooth_pictures(2), smooth_pictures(3)[2:]
    full = rebuild(network, pictures, driving).picture
    config = replace(TINY, **{switch: False})
    for module in network.modules():
        if isinstance(getattr(module, "config", None), ModelConfig):
            module.config = config
    assert (rebuild(network, pictures, driving).picture - full).abs().max() > 1e-4


@torch.no_grad()
def test_what_stays_in_place_is_not_corrected(tiny):
    """The left half lies still, the right half is moved by half a pixel more from column to column."""
    side = TINY.side
    shift = torch.zeros(1, 1, side, side, 2)
    shift[..., side // 2 :, 0] = torch.arange(side // 2) * 0.5
    fields = torch.cat([shift.flatten(2, 3) / (TINY.seen / 2), torch.ones(1, 1, side * side, 1)], dim=-1)
    away = net.grid(net.moved(fields), side)[0, 0] * (TINY.seen / 2)
    torch.testing.assert_close(away, shift[0, 0, ..., 0])
    twice = torch.cat([fields, fields.clone()], dim=1)
    twice[:, 1, :, 2] = 0.0  # a source that weighs nothing
    twice[:, 1, :, :2] = 1.0
    torch.testing.assert_close(net.moved(twice), net.moved(fields))

    features = torch.randn(1, TINY.trunk, side, side)
    counts = ((away - net.STILL) / (net.MOVING - net.STILL)).clamp(0, 1)[None, None]
    decoder = copy.deepcopy(tiny.decoder)
    torch.nn.init.normal_(decoder.out.weight, std=0.3)
    base = torch.rand(1, 3, TINY.seen, TINY.seen)
    change = decoder.correct(torch.cat([features, counts], dim=1), base) - base
    whole = decoder.correct(torch.cat([features, torch.ones_like(counts)], dim=1), base) - base
    half = TINY.seen // 2
    assert change[..., : half - 4].abs().max() < 1e-6
    assert whole[..., : half - 4].abs().mean() > 0.01
    torch.testing.assert_close(change[..., -4:], whole[..., -4:])


def base_picture(pictures, warp):
    places, shares = net.sampling_fields(warp, 16, pictures.shape[-1], torch.tensor(2.0))
    assert torch.allclose(shares.sum(1), torch.ones_like(shares[:, 0]))
    return net.blend(net.sample_sources(pictures, places), shares)


def test_sampling_is_bilinear_and_exact_where_nothing_moves():
    pictures = smooth_pictures(2)[None]
    own = net.cell_centres(16, pictures) * 8
    mass = torch.zeros(1, 2, 256)
    mass[:, 1] = 1
    still = base_picture(pictures, Warp(mass, own.expand(1, 2, -1, -1)))
    assert (still - pictures[:, 1]).abs().max() < 1e-3
    right = (own + torch.tensor([1.0, 0])).expand(1, 2, -1, -1)
    moved = base_picture(pictures, Warp(mass, right))
    assert (moved[..., :-8] - pictures[:, 1, ..., 4:-4]).abs().max() < 1e-3


def test_place_columns_tell_the_warp():
    rows = torch.zeros(1, 2, 16, 3)
    columns = net.place_columns(rows, 4)
    assert columns.shape == (1, 32, 9)
    weights = torch.zeros(1, 1, 32)
    weights[0, 0, 5], weights[0, 0, 16 + 10] = 0.25, 0.75
    warp = net.read_warp((weights @ columns)[..., 3:], 4)
    # read_warp expects a whole grid; one query is enough to see its sums
    torch.testing.assert_close(warp.mass[0, :, 0], torch.tensor([0.25, 0.75]))


@torch.no_grad()
def test_paper_configuration_builds_and_runs():
    config = replace(PAPER, size=64, detector_size=64, detector_widths=(16, 16, 16, 16), dim=8, values=8, trunk=8)
    network = ImplicitWarp(config).eval()
    assert rebuild(network, smooth_pictures(2), smooth_pictures(1)).picture.shape == (1, 3, 64, 64)


def test_lite_is_small_enough_to_ship():
    assert sum(p.numel() for p in ImplicitWarp(LITE).parameters()) * 2 < 15_000_000


def test_larger_pictures_have_the_same_grid():
    assert (LITE512.size, LITE512.seen, LITE512.side) == (512, LITE.size, LITE.side) == (512, 256, 64)


def test_config_round_trip_and_unknown_keys():
    assert ModelConfig.from_dict(LITE.to_dict()) == LITE
    with pytest.raises(ValueError, match="sise"):
        ModelConfig.from_dict({"name": "x", "sise": 3})


@pytest.fixture(scope="module")
def pair() -> tuple[ImplicitWarp, ImplicitWarp]:
    """A network whose decoder and nudge do something, and the same with an up block on top."""
    torch.manual_seed(5)
    small, large = ImplicitWarp(TINY).eval(), ImplicitWarp(replace(TINY, size=128, up_blocks=1)).eval()
    for layer in (small.decoder.out, small.decoder.nudge):
        torch.nn.init.normal_(layer.weight, std=0.3)
    torch.nn.init.zeros_(small.basis_net.common)  # wild moves would part where rounding differs
    told = large.load_state_dict(small.state_dict(), strict=False)
    assert not told.unexpected_keys
    assert all(name.startswith("decoder.up.") for name in told.missing_keys)
    return small, large


@torch.no_grad()
def test_an_up_block_that_learnt_nothing_enlarges_the_picture(pair, monkeypatch):
    monkeypatch.setattr(net, "STILL", -2.0)  # corrections count whole: how much moved is not quite the same in both
    monkeypatch.setattr(net, "MOVING", -1.0)
    small, large = pair
    pictures = smooth_pictures(3)
    enlarged = net.enlarge(pictures, 2)
    before = rebuild(small, pictures[:2], pictures[2:])
    after = rebuild(large, enlarged[:2], enlarged[2:])
    assert after.picture.shape == (1, 3, 128, 128)
    assert (before.picture - before.base).abs().mean() > 0.05  # the decoder does something
    assert (after.picture - net.enlarge(before.picture, 2)).abs().mean() < 0.01
    torch.testing.assert_close(after.warp.places, before.warp.places, atol=0.05, rtol=0)


def test_larger_sources_are_sampled_in_full():
    """What pooling wipes out comes through: a chequered picture, moved by one of its own pixels."""
    chequered = torch.ones(1, 1, 3, 16, 16)
    chequered[..., ::2, ::2] = chequered[..., 1::2, 1::2] = 0
    places = net.cell_centres(8, chequered).unflatten(0, (8, 8)) + torch.tensor([2 / 16, 0])
    sampled = net.sample_sources(chequered, net.enlarge_places(places[None, None], 2))
    torch.testing.assert_close(sampled[..., :-1], chequered[..., 1:])


def test_enlarged_places_keep_what_is_linear():
    own, larger = (net.cell_centres(side, torch.zeros(1)).unflatten(0, (side, side)) for side in (8, 16))
    torch.testing.assert_close(net.enlarge_places(own[None, None], 2)[0, 0], larger)
    grown = net.enlarge_places((own + 0.3 * own)[None, None], 2)[0, 0]
    torch.testing.assert_close(grown[1:-1, 1:-1], 1.3 * larger[1:-1, 1:-1])
    torch.testing.assert_close(net.enlarge_places(own[None, None], 1)[0, 0], own)


def test_an_up_block_learns_from_the_first_step_on(pair):
    pictures = net.enlarge(smooth_pictures(3), 2)
    rebuild(pair[1], pictures[:2], pictures[2:]).picture.square().mean().backward()
    assert pair[1].decoder.up[0].out.weight.grad.abs().sum() > 0


def test_sources_are_plain_tensors(tiny):
    pictures = smooth_pictures(1)
    sources = tiny.encode_sources(pictures[None], tiny.detect(pictures)[None])
    assert isinstance(sources, Sources)
    assert sources.membership.shape == (1, 1, 256, 21)
    torch.testing.assert_close(sources.membership.sum(-1), torch.ones(1, 1, 256))
    assert sources.basis.shape == (1, 1, 256, 60)


def test_moves_of_a_coarse_grid_are_linear_between_its_cells():
    coarse = cell_centres(4, torch.zeros(1)) * torch.tensor([0.5, -0.25])
    fine = finer(coarse.expand(2, 3, -1, -1), 16)
    assert fine.shape == (2, 3, 256, 2)
    inside = cell_centres(16, fine).abs().amax(-1) <= 0.75  # beyond the outermost centres the border is repeated
    wanted = cell_centres(16, fine) * torch.tensor([0.5, -0.25])
    torch.testing.assert_close(fine[1, 2, inside], wanted[inside])
    assert finer(coarse, 4) is coarse


def test_a_motion_basis_starts_as_cosines_of_both_axes():
    start = net.strength_cosines(20, 8).unflatten(0, (3, 20)).flatten(2) / net.COMMON_SCALE
    along, right, down = start
    assert along.abs().max() == 0
    assert not (right.abs().sum(1) * down.abs().sum(1)).any()  # a strength pushes one way
    fields = right[:10]
    gram = fields @ fields.T
    torch.testing.assert_close(gram, gram.diag().diag(), atol=1e-4, rtol=0)
    torch.testing.assert_close(down[10:], fields)


def test_small_shifts_are_left_out_of_the_one_who_asks():
    shift = torch.tensor([[0.1, 0.0], [0.0, 0.3], [0.3, 0.4]]).expand(2, 1, 3, 2)
    found = net.without_small(shift, torch.tensor([0.0, 0.4]))
    assert torch.equal(found[0], shift[0])
    torch.testing.assert_close(found[1, 0], shift[1, 0] * torch.tensor([0.0, 0.5, 1.0])[:, None])
