"""Choosing a runtime."""

import pytest

from iwcodec.models.runtime import load
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.onnx import OnnxRuntime


def test_auto_is_onnx_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "cuda_is_available", lambda: False)
    assert isinstance(load_runtime(threads=1), OnnxRuntime)


def test_torch_and_onnx_have_the_same_identity() -> None:
    pytest.importorskip("torch")
    assert load_runtime(kind="torch").info == load_runtime(kind="onnx", threads=1).info


def test_unknown_kind_and_model_are_refused() -> None:
    with pytest.raises(ValueError, match="no runtime 'tpu'"):
        load_runtime(kind="tpu")
    with pytest.raises(FileNotFoundError, match="lite-9000"):
        load_runtime("lite-9000", "onnx")
