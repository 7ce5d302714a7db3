"""."""

from pathlib import Path

from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.types import Runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL


def load_runtime(model: str = DEFAULT_MODEL, kind: str = "auto", threads: int | None = None) -> Runtime:
    """`kind`: "onnx" (CPU), "torch" (CPU or CUDA), "cuda" (one captured graph a frame, runtime_cuda.py) or "auto":
    CUDA through torch where there is one, else ONNX."""
    if kind == "cuda":
        from iwcodec.models.runtime.cuda import CudaRuntime

        return CudaRuntime(model)
    if kind == "torch" or (kind == "auto" and cuda_is_there()):
        from iwcodec.models.runtime.torch import TorchRuntime

        return TorchRuntime(model)
    if kind not in ("auto", "onnx"):
        raise ValueError(f"no runtime {kind!r}: auto, onnx, torch or cuda")
    return OnnxRuntime(model, threads)


def cuda_is_there() -> bool:
    """Asks torch only where it is installed already; importing it costs seconds."""
    import importlib.util

    if importlib.util.find_spec("torch") is None or not any(
        Path(p).exists() for p in ("/dev/nvidia0", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")
    ):
        return False
    import torch

    return torch.cuda.is_available()
