"""`iwcodec bench attention`: its arithmetic, its checks, and the implementations it compares, on a small network."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.performance import attention as bench
from iwcodec.models.network.config import TINY
from iwcodec.models.network.network import ImplicitWarp


@pytest.fixture(scope="module")
def network() -> ImplicitWarp:
    torch.manual_seed(2)
    return ImplicitWarp(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures():
    return bench.clip_pictures(TINY.size, 2)


def test_the_clip_gives_sources_and_frames_between_them(pictures):
    assert len(pictures) == bench.SOURCES + 2
    assert all(picture.shape == (64, 64, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


@torch.inference_mode()
def test_a_case_is_what_the_network_attends_to(network, pictures):
    case = bench.make_case(network, pictures[:3], pictures[3])
    sources = torch.from_numpy(np.stack(pictures[:4])).permute(0, 3, 1, 2).float() / 255
    keypoints = network.detect(sources)
    expected = network.generate(
        keypoints[3:], network.encode_sources(sources[None, :3], keypoints[None, :3]), dense=True
    )
    ways = bench.implementations(network, 1)
    found = case.finish(network, ways["dense"][0](case, 0))
    difference = found.astype(float) / 255 - expected.picture[0].clamp(0, 1).permute(1, 2, 0).numpy()
    assert np.abs(difference).max() < 0.01


@torch.inference_mode()
def test_implementations_agree_where_they_must(network, pictures):
    case = bench.make_case(network, pictures[:2], pictures[3])
    ways = bench.implementations(network, 1)
    dense = ways["dense"][0](case, 0)
    everything = case.keys.shape[1]
    for name, k in (
        ("dense, fused (PyTorch SDPA)", 0),
        ("top-k", everything),
        ("hierarchical", everything // 4),
    ):
        assert bench.difference(ways[name][0](case, k), dense) < 1e-3, name
    onnx = pytest.importorskip("onnx")
    assert onnx
    kept = TINY.top_k
    for count in (1, 3):  # the graph was exported with two
        case = bench.make_case(network, pictures[:count], pictures[3])
        exported, plain = (ways[name][0](case, kept) for name in ("hierarchical, ONNX Runtime", "hierarchical"))
        assert bench.difference(exported, plain) < 1e-3
        attend, everything = bench.onnx_attention(network, 1, dense=True)
        assert everything == 0
        assert bench.difference(attend(case, 0), ways["dense"][0](case, 0)) < 1e-3
        with pytest.raises(ValueError, match="keeps all"):
            attend(case, kept)


@torch.inference_mode()
def test_quality_counts_what_sparsity_costs(network, pictures):
    ways = {name: way for name, way in bench.implementations(network, 1).items() if name in ("dense", "top-k")}
    scores = {s["k"]: s for s in bench.quality(network, pictures, ways, lambda name, share: None)}
    assert scores[0]["against_dense_db"] == 0
    gaps = [scores[k]["rows_from_dense"] for k in bench.KEPT]
    assert gaps == sorted(gaps, reverse=True)


def test_turns_of_selection_are_counted_as_the_kernel_takes_them():
    # 64 queries, two sources of one tile each. Scores rise with the key's number, so that every key of the second
    # tile beats the first's, and a list of 5 is filled twice.
    queries, keys = torch.ones(64, 1), torch.arange(128.0)[:, None]
    assert bench.selection_turns(queries, keys, 5) == {"turns_per_tile": 5.0, "tiles_skipped": 0.0}
    assert bench.selection_turns(queries, keys.flip(0), 5) == {"turns_per_tile": 2.5, "tiles_skipped": 0.5}


def test_dense_work_is_two_products():
    todo = bench.work("dense", 3)
    pairs = 4096 * (3 * 4096 + 48)
    assert todo.tensor_flop == 2 * pairs * (48 + 92)
    assert bench.work("top-k", 3).tensor_flop < todo.tensor_flop / 2
    assert bench.work("hierarchical", 3).tensor_flop < bench.work("top-k", 3).tensor_flop / 10


def test_the_floor_is_the_tightest_limit():
    rows = bench.roofline(bench.Peaks(100, 10, 1000, 100, 1.0, 80))
    dense = next(row for row in rows if row["implementation"] == "dense" and row["sources"] == 1)
    assert dense["bound_by"] == "tensor cores"
    assert dense["floor_us"] == pytest.approx(bench.work("dense", 1).tensor_flop / 100e12 * 1e6, rel=1e-2)


def test_issue_floor_is_instructions_over_clock():
    built = [{"capability": 80, "k": 8, "tile_instructions": 200, "turn_instructions": 300, "threads": 128}]
    floors = bench.issue_floors({"8": {"turns_per_tile": 0.5}}, built)
    a100 = next(floor for floor in floors if floor["gpu"].startswith("A100"))
    assert a100["alone_us"] == pytest.approx(192 * 350 / 1.41e3, abs=0.1)
    assert a100["full_us"] == pytest.approx(192 * 350 / 1.41e3 * 64 / 108, abs=0.1)
    assert not [floor for floor in floors if floor["gpu"].startswith("H100")]


def test_bundled_result_is_of_this_command():
    import json

    result = json.loads(bench.RESULT.read_text())
    assert result["command"].startswith("iwcodec bench attention")
    assert result["kernel"]["agrees"]
    assert Path(bench.RESULT).parent.name == "results"


def test_a_result_says_where_it_comes_from():
    found = bench.machine("cpu", 2)
    assert {"command", "commit", "machine", "versions"} <= found.keys()
    assert found["machine"]["processor"]
    assert (found["machine"]["device"], found["machine"]["threads"]) == ("cpu", 2)
    assert "torch" in found["versions"]
