"""Warping and blending of the sources."""

import torch

from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.warp import (
    Warp,
    blend,
    place_columns,
    read_warp,
    sample_sources,
    sampling_fields,
    suppress_small_shifts,
    upsample_places,
)
from support.models.tiny_networks import smooth_pictures


def base_picture(pictures, warp):
    places, shares = sampling_fields(warp, 16, pictures.shape[-1], torch.tensor(2.0))
    assert torch.allclose(shares.sum(1), torch.ones_like(shares[:, 0]))
    return blend(sample_sources(pictures, places), shares)


def test_sampling_is_bilinear_and_exact_without_motion() -> None:
    pictures = smooth_pictures(2)[None]
    own = cell_centres(16, pictures) * 8
    mass = torch.zeros(1, 2, 256)
    mass[:, 1] = 1
    static = base_picture(pictures, Warp(mass, own.expand(1, 2, -1, -1)))
    assert (static - pictures[:, 1]).abs().max() < 1e-3
    right = (own + torch.tensor([1.0, 0])).expand(1, 2, -1, -1)
    moved = base_picture(pictures, Warp(mass, right))
    assert (moved[..., :-8] - pictures[:, 1, ..., 4:-4]).abs().max() < 1e-3


def test_place_columns_yield_the_warp() -> None:
    rows = torch.zeros(1, 2, 16, 3)
    columns = place_columns(rows, 4)
    assert columns.shape == (1, 32, 9)
    weights = torch.zeros(1, 1, 32)
    weights[0, 0, 5], weights[0, 0, 16 + 10] = 0.25, 0.75
    warp = read_warp((weights @ columns)[..., 3:], 4)
    # read_warp expects a whole grid; one query suffices to check the sums
    torch.testing.assert_close(warp.mass[0, :, 0], torch.tensor([0.25, 0.75]))


def test_upsampled_places_sample_at_full_resolution() -> None:
    """A checkerboard, which pooling would erase, shifted by one of its own pixels."""
    checkerboard = torch.ones(1, 1, 3, 16, 16)
    checkerboard[..., ::2, ::2] = checkerboard[..., 1::2, 1::2] = 0
    places = cell_centres(8, checkerboard).unflatten(0, (8, 8)) + torch.tensor([2 / 16, 0])
    sampled = sample_sources(checkerboard, upsample_places(places[None, None], 2))
    torch.testing.assert_close(sampled[..., :-1], checkerboard[..., 1:])


def test_upsampling_places_preserves_linear_fields() -> None:
    own, larger = (cell_centres(side, torch.zeros(1)).unflatten(0, (side, side)) for side in (8, 16))
    torch.testing.assert_close(upsample_places(own[None, None], 2)[0, 0], larger)
    scaled = upsample_places((own + 0.3 * own)[None, None], 2)[0, 0]
    torch.testing.assert_close(scaled[1:-1, 1:-1], 1.3 * larger[1:-1, 1:-1])
    torch.testing.assert_close(upsample_places(own[None, None], 1)[0, 0], own)


def test_small_shifts_are_suppressed_per_sample() -> None:
    shift = torch.tensor([[0.1, 0.0], [0.0, 0.3], [0.3, 0.4]]).expand(2, 1, 3, 2)
    suppressed = suppress_small_shifts(shift, torch.tensor([0.0, 0.4]))
    assert torch.equal(suppressed[0], shift[0])
    torch.testing.assert_close(suppressed[1, 0], shift[1, 0] * torch.tensor([0.0, 0.5, 1.0])[:, None])
