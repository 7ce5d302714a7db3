"""Parts of a TFLite model compute what the whole model computes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.mesh.tflite import TfliteGraph, cut
from iwcodec.benchmarks.weights import FACE_DETECTOR, FACE_MESH, weight_file


def model(name: str) -> bytes:
    pytest.importorskip("ai_edge_litert")
    try:
        return weight_file(name).read_bytes()
    except MetricUnavailableError as error:
        pytest.skip(str(error))


def test_a_part_computes_the_same_as_the_whole() -> None:
    model(FACE_DETECTOR)
    path = weight_file(FACE_DETECTOR)
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 128, 128, 3)).astype(np.float32)
    boxes, scores = TfliteGraph(path, ["input"], ["regressors", "classificators"])(picture)
    assert boxes.shape == (1, 896, 16)
    (alone,) = TfliteGraph(path, ["input"], ["classificators"])(picture)
    np.testing.assert_array_equal(alone, scores)


def test_unknown_tensors_are_rejected() -> None:
    with pytest.raises(ValueError, match="no tensor 'nowhere'"):
        cut(model(FACE_DETECTOR), ["input"], ["nowhere"])


def test_outputs_that_need_other_inputs_are_rejected() -> None:
    with pytest.raises(ValueError, match="need 'input_1'"):
        cut(model(FACE_MESH), ["transform_tensor_bilinear_v2"], ["output_mesh"])


def test_without_the_runtime_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MetricUnavailableError, match=r"need LiteRT \(pip install .*bench"):
        TfliteGraph(Path("model.tflite"), [], [])
