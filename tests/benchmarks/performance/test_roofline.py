"""Arithmetic of the roofline."""

import pytest

from iwcodec.benchmarks.performance import roofline


def test_dense_work_is_two_matrix_products() -> None:
    dense_work = roofline.work("dense", 3)
    pairs = 4096 * (3 * 4096 + 48)
    assert dense_work.tensor_flop == 2 * pairs * (48 + 92)
    assert roofline.work("top-k", 3).tensor_flop < dense_work.tensor_flop / 2
    assert roofline.work("hierarchical", 3).tensor_flop < roofline.work("top-k", 3).tensor_flop / 10


def test_floor_is_the_tightest_limit() -> None:
    rows = roofline.roofline(roofline.Peaks(100, 10, 1000, 100, 1.0, 80))
    dense = next(row for row in rows if row["implementation"] == "dense" and row["sources"] == 1)
    assert dense["bound_by"] == "tensor cores"
    assert dense["floor_us"] == pytest.approx(roofline.work("dense", 1).tensor_flop / 100e12 * 1e6, rel=1e-2)


def test_issue_floor_is_instructions_over_clock() -> None:
    built = [{"capability": 80, "k": 8, "tile_instructions": 200, "turn_instructions": 300, "threads": 128}]
    floors = roofline.issue_floors({"8": {"turns_per_tile": 0.5}}, built)
    a100 = next(floor for floor in floors if floor["gpu"].startswith("A100"))
    assert a100["alone_us"] == pytest.approx(192 * 350 / 1.41e3, abs=0.1)
    assert a100["full_us"] == pytest.approx(192 * 350 / 1.41e3 * 64 / 108, abs=0.1)
    assert not [floor for floor in floors if floor["gpu"].startswith("H100")]
