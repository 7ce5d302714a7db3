"""Choosing a runtime for this machine."""

import importlib.util
import logging
from pathlib import Path

from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.types import Runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL, read_info

log = logging.getLogger(__name__)


def load_runtime(model: str = DEFAULT_MODEL, kind: str = "auto", threads: int | None = None) -> Runtime:
    """Load a model into a runtime.

    `kind` is "onnx" (ONNX Runtime on the CPU), "torch" (PyTorch on CUDA if available, else on the CPU), "cuda" (top-k
    attention in one CUDA graph per frame, cuda.py) or "auto" (cuda where there is a GPU on which the graph can be
    captured, else onnx; a warning says why not). `threads` applies to ONNX Runtime. Raises ValueError on an unknown
    kind and FileNotFoundError on an unknown model.
    """
    if kind not in ("auto", "onnx", "torch", "cuda"):
        raise ValueError(f"no runtime {kind!r}: auto, onnx, torch or cuda")
    if kind == "torch":
        from iwcodec.models.runtime.torch import TorchRuntime

        return TorchRuntime(model)
    if kind == "cuda":
        return captured(model)
    if kind == "auto" and cuda_is_available():
        read_info(model)  # an unknown model is not the GPU's fault
        try:
            return captured(model)
        except Exception as error:  # of PyTorch, Triton, the C compiler that Triton calls, or the driver
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("The GPU cannot run the network, so the CPU does: %s", reason.rstrip("."))
    return OnnxRuntime(model, threads)


def captured(model: str) -> Runtime:
    """A CudaRuntime with the graph for one caller, so that what a GPU lacks is found now and not at the first frame."""
    from iwcodec.models.runtime.cuda import CudaRuntime

    runtime = CudaRuntime(model)
    runtime.graph(1)
    return runtime


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
