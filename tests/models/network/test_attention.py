"""Dense attention, and the sparse implementations compared with it."""

import pytest
import torch

from iwcodec.models.network import attention
from iwcodec.models.network.attention import Extras


def random_set(side: int, sources: int, dim: int = 6, width: int = 5, batch: int = 2, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int):
        return torch.randn(*shape, generator=generator)

    cells = side * side
    queries = rand(batch, cells, dim)
    keys, rows = rand(batch, sources * cells, dim), rand(batch, sources * cells, width)
    return queries, keys, rows, Extras(rand(3, dim), rand(3, width))


def test_dense_attention_is_softmax_over_sources_and_extras() -> None:
    queries, keys, rows, extras = random_set(4, 2)
    out = attention.dense_attention(queries, keys, rows, extras)
    one = torch.cat([keys[1], extras.keys]) @ queries[1, 7]
    expected = one.softmax(0) @ torch.cat([rows[1], extras.rows])
    torch.testing.assert_close(out[1, 7], expected)


def test_only_extras_count_where_keys_are_masked() -> None:
    queries, keys, rows, extras = random_set(4, 1)
    queries = torch.cat([queries, torch.ones_like(queries[..., :1])], -1)
    keys = torch.cat([keys, torch.full_like(keys[..., :1], -1e4)], -1)
    extras = Extras(torch.cat([extras.keys, torch.zeros(3, 1)], -1), extras.rows)
    out = attention.dense_attention(queries, keys, rows, extras)
    expected = (queries @ extras.keys.T).softmax(-1) @ extras.rows
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("sources", [1, 3])
def test_topk_of_everything_is_dense(sources: int) -> None:
    case = random_set(4, sources)
    torch.testing.assert_close(attention.topk_attention(*case, k=16 * sources), attention.dense_attention(*case))


def test_topk_keeps_the_best_keys() -> None:
    queries, keys, rows, extras = random_set(4, 2)
    out = attention.topk_attention(queries, keys, rows, extras, k=3)
    scores = keys[0] @ queries[0, 5]
    best = scores.topk(3)
    weights = torch.cat([best.values, extras.keys @ queries[0, 5]]).softmax(0)
    torch.testing.assert_close(out[0, 5], weights @ torch.cat([rows[0, best.indices], extras.rows]))


@pytest.mark.parametrize(("count", "k"), [(1024, 8), (3072, 8), (512, 1), (1024, 40), (100, 8), (6, 8)])
def test_topk_indices_are_those_of_topk(count: int, k: int) -> None:
    """With the search by groups, and without it where scores are few or not divisible into groups."""
    scores = torch.randn(2, 50, count, generator=torch.Generator().manual_seed(1))
    indices = attention.topk_indices(scores, k)
    expected = scores.topk(min(k, count)).indices
    assert torch.equal(indices.sort(-1).values, expected.sort(-1).values)


@pytest.mark.parametrize("sources", [1, 2, 4])
def test_hierarchical_of_every_block_is_dense(sources: int) -> None:
    case = random_set(8, sources)
    out = attention.hierarchical_attention(*case, side=8, k=16 * sources)
    torch.testing.assert_close(out, attention.dense_attention(*case))


def test_hierarchical_is_close_to_dense_where_attention_is_peaked() -> None:
    side, sources = 16, 2
    queries, keys, rows, extras = random_set(side, sources, dim=4)
    # Smooth fields, as in pictures: neighbours are similar, so pooled scores predict the fine ones.
    axis = torch.linspace(-1, 1, side)
    place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, -1, 2)
    keys = torch.cat([12 * place, -6 * place.square().sum(-1, keepdim=True), torch.zeros(1, side * side, 1)], -1)
    keys = keys.repeat(2, sources, 1)
    queries = torch.cat([place, torch.ones_like(place)], -1).repeat(2, 1, 1) * 12
    rows = place.repeat(2, sources, 1)
    extras = Extras(torch.full((1, 4), -50.0), torch.zeros(1, 2))
    dense = attention.dense_attention(queries, keys, rows, extras)
    sparse = attention.hierarchical_attention(queries, keys, rows, extras, side, k=14)
    assert (dense - sparse).abs().max() < 0.02


def test_blocks_round_trip() -> None:
    x = torch.arange(2 * 3 * 36 * 2.0).reshape(2, 3 * 36, 2)
    blocks = attention.to_blocks(x, 6)
    assert blocks.shape == (2, 27, 4, 2)
    torch.testing.assert_close(blocks[0, 1, 2], x[0, 8])  # second block of the first row: cell (1, 2)
    torch.testing.assert_close(attention.from_blocks(blocks, 6), x)


def test_gather_reads_rows_of_the_same_sample() -> None:
    rows = torch.arange(12.0).reshape(2, 3, 2)
    indices = torch.tensor([[2, 0], [1, 1]])
    expected = torch.stack([rows[0][indices[0]], rows[1][indices[1]]])
    torch.testing.assert_close(attention.gather(rows, indices), expected)
