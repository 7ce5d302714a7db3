"""Timing of stages: quantiles and warm-up."""

import pytest

from iwcodec.benchmarks.performance.stages import WARM, summarised, timed


def test_quantiles_and_rate() -> None:
    stage = summarised("x", [n / 1000 for n in range(1, 102)], 3)
    assert (stage.p50_ms, stage.p95_ms, stage.p99_ms) == (51, 96, 100)
    assert stage.per_s == pytest.approx(1000 / 51, abs=0.01)
    with pytest.raises(ValueError, match="never measured"):
        summarised("x", [])


def test_warm_up_calls_do_not_count() -> None:
    calls: list[int] = []
    stage = timed("x", calls.append, range(WARM + 5), frames=4)
    assert calls == list(range(WARM + 5))
    assert stage.repeats == 5
