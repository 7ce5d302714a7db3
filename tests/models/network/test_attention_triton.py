"""The Triton kernel compared with the reference, on CUDA if available, else in Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton")

from hypothesis import example, given, settings
from hypothesis import strategies as st

from iwcodec.models.network import attention, attention_triton
from iwcodec.models.network.attention import Extras
from iwcodec.models.network.config import LITE
from iwcodec.models.network.geometry import GeometricPrior, PriorTerms, cell_centres

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES = [torch.float16, torch.bfloat16]


def random_set(batch: int, queries: int, keys: int, dim: int, width: int, extras: int, seed: int):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int):
        return torch.randn(*shape, generator=generator).to(DEVICE)

    pairs = Extras(rand(extras, dim), rand(extras, width))
    return rand(batch, queries, dim), rand(batch, keys, dim), rand(batch, keys, width), pairs


def relative(actual, expected) -> float:
    """Largest difference in a column relative to the largest value of that column."""
    return float(((actual - expected).abs().amax((0, 1)) / expected.abs().amax((0, 1))).max())


def rounded(x, dtype):
    """Round as the kernel does: content to `dtype`, geometry not at all."""
    return torch.cat([x[..., :-4].to(dtype).float(), x[..., -4:]], -1)


shapes = st.tuples(
    st.integers(1, 2),
    st.integers(1, 70),
    st.integers(1, 150),
    st.integers(5, 40),
    st.integers(1, 70),
    st.integers(1, 40),
)


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(shapes, st.integers(1, 32), st.sampled_from([None, *HALVES]))
@example((1, 33, 130, 36, 92, 48), 32, torch.float16)  # the lite network's widths, a ragged last tile
@example((1, 64, 128, 36, 92, 48), 8, torch.float16)  # full tiles
@example((2, 1, 3, 5, 1, 1), 32, None)  # fewer keys than k
def test_kernel_equals_the_reference_on_any_shape(shape, k, dtype) -> None:
    queries, keys, rows, extras = random_set(*shape, seed=k)
    actual = attention_triton.topk_attention(queries, keys, rows, extras, k, dtype)
    if dtype is not None:
        queries, keys, rows = rounded(queries, dtype), rounded(keys, dtype), rows.to(dtype).float()
        extras = Extras(rounded(extras.keys, dtype), extras.rows)
    assert relative(actual, attention.topk_attention(queries, keys, rows, extras, k)) < 1e-3


def prior_set(side: int, sources: int, dtype):
    """Queries and keys with the geometric prior of slightly displaced cells, rounded by `rounded`."""
    prior = GeometricPrior(LITE).requires_grad_(False)
    like = torch.zeros(1)
    count = side * side * sources
    queries, keys, rows, extras = random_set(1, side * side, count, 12, 6, 5, seed=3)
    place = (cell_centres(side, like) * (side / 2)).repeat(sources, 1) + torch.randn(
        count, 2, generator=torch.Generator().manual_seed(1)
    )
    geometry = prior.key_dims(PriorTerms(place, torch.rand(count, generator=torch.Generator().manual_seed(2))))
    places = prior.query_dims(side, like)
    unit = [torch.nn.functional.normalize(x[..., :8], dim=-1).cpu() for x in (queries, keys)]
    queries = torch.cat([5 * unit[0], places[None]], -1).to(DEVICE)
    keys = torch.cat([unit[1], geometry[None]], -1).to(DEVICE)
    bias = torch.zeros_like(extras.keys[:, :4])
    bias[:, 3] = -6
    extras = Extras(torch.cat([extras.keys[:, :8], bias], -1), extras.rows)
    return rounded(queries, dtype), rounded(keys, dtype), rows, Extras(rounded(extras.keys, dtype), extras.rows)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_keeps_the_prior_exact(dtype) -> None:
    case = prior_set(32, 1, dtype)
    queries = torch.cat([case[0][:, :32], case[0][:, -32:]], 1)  # the corners, where the prior's terms are largest
    case = (queries, case[1], case[2].to(dtype).float(), case[3])
    expected = attention.topk_attention(*case, k=8)
    assert relative(attention_triton.topk_attention(*case, 8, dtype), expected) < 1e-3
    # For comparison: rounding the geometry too gives a far larger error.
    queries, keys, rows, extras = case
    all_rounded = (
        queries.to(dtype).float(),
        keys.to(dtype).float(),
        rows,
        Extras(extras.keys.to(dtype).float(), extras.rows),
    )
    assert relative(attention.topk_attention(*all_rounded, k=8), expected) > 2e-2


def test_all_implementations_agree() -> None:
    side = 8
    case = random_set(2, side * side, 2 * side * side, 9, 11, 3, seed=8)
    # Keeping everything, the sparse implementations equal the dense one.
    dense = attention.dense_attention(*case)
    assert relative(attention.topk_attention(*case, k=2 * side * side), dense) < 1e-3
    assert relative(attention.hierarchical_attention(*case, side=side, k=2 * side * side // 4), dense) < 1e-3
    # The kernel keeps 32 keys: give it no more.
    queries, keys, rows, extras = case
    few = queries, keys[:, :32], rows[:, :32], extras
    assert relative(attention_triton.topk_attention(*few, 32), attention.dense_attention(*few)) < 1e-3


def test_pages_of_several_callers_in_one_launch() -> None:
    queries, keys, rows, extras = random_set(5, 20, 70, 16, 9, 3, seed=5)
    queries = queries[:2]
    geometry = [torch.randn(*shape, 4, device=DEVICE) for shape in ((2, 20), (2, 3, 70), (3,))]
    table = torch.tensor([[4, 1, 0], [2, 2, 2]], dtype=torch.int32, device=DEVICE)
    counts = torch.tensor([3, 1], dtype=torch.int32, device=DEVICE)
    actual = attention_triton.paged_topk_attention(
        queries, geometry[0], attention_triton.Pages(keys, rows), geometry[1], extras, geometry[2], table, counts, 6
    )
    for caller, pages in enumerate(([4, 1, 0], [2])):
        own = torch.cat([keys[pages], geometry[1][caller, : len(pages)]], -1).flatten(0, 1)[None]
        expected = attention.topk_attention(
            torch.cat([queries[caller], geometry[0][caller]], -1)[None],
            own,
            rows[pages].flatten(0, 1)[None],
            Extras(torch.cat([extras.keys, geometry[2]], -1), extras.rows),
            6,
        )
        assert relative(actual[caller][None], expected) < 1e-3


@pytest.mark.parametrize("k", [0, 33])
def test_k_is_bounded(k) -> None:
    case = random_set(1, 2, 3, 5, 2, 1, seed=0)
    with pytest.raises(ValueError, match="k from 1 to 32"):
        attention_triton.topk_attention(*case, k)
