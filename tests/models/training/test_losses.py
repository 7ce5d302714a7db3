"""Losses are lowest where the network agrees with flow, landmarks and target."""

import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.warp import Warp
from iwcodec.models.training import losses

SIDE = 8


def shifted(cells_x: float, sources: int = 1, grid: int = 32):
    """Flow of `cells_x` cells of the 8x8 grid to the right everywhere, with no error."""
    shift = torch.zeros(1, sources, grid, grid, 2)
    shift[..., 0] = cells_x * 2 / SIDE
    return shift, torch.zeros(1, sources, grid, grid)


def warp_of(teacher, mass=None):
    own = cell_centres(SIDE, teacher.shift) * (SIDE / 2)
    places = own + teacher.shift * (SIDE / 2)
    return Warp(torch.ones_like(teacher.share) if mass is None else mass, places)


def test_match_loss_is_zero_at_the_target_cell_and_bounded() -> None:
    teacher = losses.teach(*shifted(0), SIDE)
    right = torch.full((1, 64, 64), -100.0)
    right[0].fill_diagonal_(100.0)
    assert losses.match_loss(right, teacher, SIDE) < 1e-3
    wrong = right.roll(20, dims=2)
    assert losses.match_loss(wrong, teacher, SIDE) == pytest.approx(losses.MATCH_CAP, rel=1e-3)


def test_match_loss_is_bilinear_between_cells() -> None:
    teacher = losses.teach(*shifted(0.25), SIDE)
    logits = torch.full((1, 64, 64), -30.0)
    cells = torch.arange(64)
    logits[0, cells, cells] = 0.0
    inside = cells % 8 < 7
    logits[0, cells[inside], cells[inside] + 1] = torch.log(torch.tensor(1 / 3))  # weights 3/4 and 1/4
    entropy = -(0.75 * torch.log(torch.tensor(0.75)) + 0.25 * torch.log(torch.tensor(0.25)))
    only_inside = losses.Teacher(teacher.shift, teacher.share * inside)
    capped = losses.MATCH_CAP * (1 - torch.exp(-entropy / losses.MATCH_CAP))
    assert losses.match_loss(logits, only_inside, SIDE) == pytest.approx(float(capped), abs=1e-3)


def test_place_loss_is_zero_at_the_target_and_grows_with_distance() -> None:
    teacher = losses.teach(*shifted(1.5), SIDE)
    warp = warp_of(teacher)
    assert losses.place_loss(warp, teacher, SIDE) < 1e-6
    off = [losses.place_loss(Warp(warp.mass, warp.places + d), teacher, SIDE) for d in (0.2, 0.5, 2.0)]
    assert 0 < off[0] < off[1] < off[2]


def test_cells_without_valid_flow_have_no_loss() -> None:
    shift, error = shifted(1)
    error[...] = 255
    teacher = losses.teach(shift, error, SIDE)
    assert teacher.share.sum() == 0
    assert losses.place_loss(warp_of(teacher), teacher, SIDE) == 0
    assert losses.match_loss(torch.randn(1, 64, 64), teacher, SIDE) == 0


def test_better_source_has_the_larger_target_share() -> None:
    shift, error = shifted(0, sources=3)
    error[:, 1], error[:, 2] = 6.0, 255
    share = losses.teach(shift, error, SIDE).share[0, :, 0]
    assert share[0] > 5 * share[1] > 0
    assert share[2] == 0
    torch.testing.assert_close(share.sum(), torch.tensor(1.0))


def test_choice_loss_is_lower_for_the_target_shares() -> None:
    shift, error = shifted(0, sources=2)
    error[:, 1] = 6.0
    teacher = losses.teach(shift, error, SIDE)
    right = losses.choice_loss(warp_of(teacher, teacher.share), teacher, SIDE)
    wrong = losses.choice_loss(warp_of(teacher, teacher.share.flip(1)), teacher, SIDE)
    assert right < wrong


def test_pool_warp_averages_positions() -> None:
    own = cell_centres(16, torch.zeros(1)) * 8
    places, mass = losses.pool_warp(Warp(torch.full((1, 1, 256), 0.5), own[None, None] + 2.0), SIDE)
    torch.testing.assert_close(places[0, 0], cell_centres(SIDE, own) * 4 + 1.0)
    assert mass.shape == (1, 1, 64)


def test_equivariance_loss_is_zero_for_keypoints_that_follow_the_transform() -> None:
    affine = losses.random_affine(3, torch.zeros(1))
    moved = torch.rand(3, 5, 3)
    carried = moved[..., :2] @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
    still = torch.cat([carried, moved[..., 2:]], -1)
    assert losses.equivariance_loss(moved, still, affine) < 1e-6
    assert losses.equivariance_loss(moved, moved, affine) > 1e-3


def test_miss_loss_is_lowest_without_residuals_and_weighted() -> None:
    def residuals(cells_x: float):
        return torch.tensor([cells_x / losses.MISS_CELLS, 0.0]).expand(1, 1, 9, 2)

    weights = torch.ones(1, 1, 9)
    least = losses.miss_loss(residuals(0), weights)
    assert least == pytest.approx(losses.NEGLIGIBLE_MISS**0.5, rel=1e-3)
    assert least < losses.miss_loss(residuals(-0.5), weights) < losses.miss_loss(residuals(1), weights)
    assert losses.miss_loss(residuals(4), weights) == pytest.approx(2, rel=1e-3)
    half = torch.cat([weights[..., :4], 0 * weights[..., 4:]], dim=-1)
    astray = torch.cat([residuals(0)[:, :, :4], residuals(9)[:, :, 4:]], dim=2)
    assert losses.miss_loss(astray, half) == least
    assert losses.miss_loss(residuals(9), 0 * weights) == 0


def test_landmark_loss_ignores_unknown_landmarks() -> None:
    keypoints = torch.zeros(1, 4, 3)
    heat = torch.zeros(1, 4, 64)
    landmarks = torch.full((1, 3, 3), torch.nan)
    assert losses.landmark_loss(keypoints, heat, landmarks) == 0
    landmarks[0, 1] = torch.tensor([0.125 + 0.25, 0.125 + 0.25, torch.nan])  # the centre of cell (5, 5)
    far = losses.landmark_loss(keypoints, heat, landmarks)
    heat[0, 1, 5 * 8 + 5] = 1.0
    distance = 0.375 * 2**0.5 * losses.LANDMARK_SIDE / 2
    assert losses.landmark_loss(keypoints, heat, landmarks) == pytest.approx(distance, rel=1e-3)
    assert far > distance + 1
    landmarks[0, 1, 2] = 0.5
    assert losses.landmark_loss(keypoints, heat, landmarks) == pytest.approx(distance + 1, rel=1e-3)


def test_decibel_loss_falls_equally_per_halving_of_the_noise() -> None:
    target = torch.rand(2, 3, 8, 8)
    noise = torch.randn(2, 3, 8, 8)
    found = [losses.decibel_loss(target + level * noise, target) for level in (0.2, 0.1, 0.05)]
    assert found[0] - found[1] == pytest.approx(float(found[1] - found[2]), abs=0.02)
    assert losses.decibel_loss(target, target) == pytest.approx(float(torch.tensor(losses.NEGLIGIBLE_ERROR).log10()))
