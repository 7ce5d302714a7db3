"""Choosing a runtime for this machine."""

import importlib.util
from pathlib import Path

from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.types import Runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL


def load_runtime(model: str = DEFAULT_MODEL, kind: str = "auto", threads: int | None = None) -> Runtime:
    """Load a model into a runtime.

    `kind` is "onnx" (ONNX Runtime on the CPU), "torch" (PyTorch on CUDA if available, else on the CPU), "cuda" (one
    CUDA graph per frame, cuda.py) or "auto" (torch where CUDA is available, else onnx). `threads` applies to ONNX
    Runtime. Raises ValueError on an unknown kind and FileNotFoundError on an unknown model.
    """
    if kind == "cuda":
        from iwcodec.models.runtime.cuda import CudaRuntime

        return CudaRuntime(model)
    if kind == "torch" or (kind == "auto" and cuda_is_available()):
        from iwcodec.models.runtime.torch import TorchRuntime

        return TorchRuntime(model)
    if kind not in ("auto", "onnx"):
        raise ValueError(f"no runtime {kind!r}: auto, onnx, torch or cuda")
    return OnnxRuntime(model, threads)


def cuda_is_available() -> bool:
    """Return whether PyTorch can use a CUDA device.

    Importing PyTorch takes seconds, so it is imported only where it is installed and an NVIDIA driver is present.
    """
    if importlib.util.find_spec("torch") is None or not any(
        Path(p).exists() for p in ("/dev/nvidia0", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")
    ):
        return False
    import torch

    return torch.cuda.is_available()
