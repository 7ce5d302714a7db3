"""Choosing a runtime."""

import logging

import pytest

from iwcodec.models.runtime import load
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.onnx import OnnxRuntime


def test_auto_is_onnx_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "cuda_is_available", lambda: False)
    assert isinstance(load_runtime(threads=1), OnnxRuntime)


class Captured:
    """A CudaRuntime on a machine whose GPU works."""

    def __init__(self, model: str) -> None:
        self.model, self.graphs = model, [0]

    def graph(self, callers: int) -> None:
        self.graphs.append(callers)


def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch claim that there is a GPU."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(load, "cuda_is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_auto_captures_the_graph_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch)
    monkeypatch.setattr("iwcodec.models.runtime.cuda.CudaRuntime", Captured)
    runtime = load_runtime()
    assert isinstance(runtime, Captured)
    assert (runtime.model, runtime.graphs) == ("lite-256", [0, 1])


def test_auto_falls_back_in_one_sentence_where_the_gpu_cannot_run_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def graph(self: Captured, callers: int) -> None:
        raise OSError("Triton found no C compiler.\nTraceback of a compiler")

    with_gpu(monkeypatch)
    monkeypatch.setattr(Captured, "graph", graph)
    monkeypatch.setattr("iwcodec.models.runtime.cuda.CudaRuntime", Captured)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_runtime(threads=1), OnnxRuntime)
    assert caplog.messages == ["The GPU cannot run the network, so the CPU does: Triton found no C compiler"]
    with pytest.raises(OSError, match="no C compiler"):
        load_runtime(kind="cuda")


def test_auto_falls_back_where_pytorch_is_built_without_cuda(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_gpu(monkeypatch)
    if pytest.importorskip("torch").version.cuda is not None:
        pytest.skip("needs PyTorch without CUDA")
    assert isinstance(load_runtime(threads=1), OnnxRuntime)
    assert len(caplog.messages) == 1
    with pytest.raises(FileNotFoundError, match="lite-9000"):
        load_runtime("lite-9000")
    assert len(caplog.messages) == 1  # an unknown model is not the GPU's fault


def test_torch_and_onnx_have_the_same_identity() -> None:
    pytest.importorskip("torch")
    assert load_runtime(kind="torch").info == load_runtime(kind="onnx", threads=1).info


def test_unknown_kind_and_model_are_refused() -> None:
    with pytest.raises(ValueError, match="no runtime 'tpu'"):
        load_runtime(kind="tpu")
    with pytest.raises(FileNotFoundError, match="lite-9000"):
        load_runtime("lite-9000", "onnx")
