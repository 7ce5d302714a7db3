"""LiteRT models by the names of their outputs."""

import sys
from pathlib import Path

import numpy as np
import pytest

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.mesh.tflite import TfliteGraph
from iwcodec.benchmarks.weights import FACE_DETECTOR, weight_file


@pytest.fixture(scope="module")
def model() -> Path:
    pytest.importorskip("ai_edge_litert")
    try:
        return weight_file(FACE_DETECTOR)
    except MetricUnavailableError as error:
        pytest.skip(str(error))


def test_outputs_come_in_the_order_asked_for(model: Path) -> None:
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 128, 128, 3)).astype(np.float32)
    boxes, scores = TfliteGraph(model, ["regressors", "classificators"])(picture)
    assert (boxes.shape, scores.shape) == ((1, 896, 16), (1, 896, 1))
    (alone,) = TfliteGraph(model, ["classificators"])(picture)
    np.testing.assert_array_equal(alone, scores)


def test_an_unknown_output_is_rejected(model: Path) -> None:
    with pytest.raises(ValueError, match="no output 'nowhere'"):
        TfliteGraph(model, ["nowhere"])


def test_without_the_runtime_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MetricUnavailableError, match=r"need LiteRT \(pip install .*bench"):
        TfliteGraph(Path("model.tflite"), [])
