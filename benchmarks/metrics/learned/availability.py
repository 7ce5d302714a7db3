"""Metrics that need something optional: the error that says what is missing, and the loader of published weights.

Weights are published by others and not part of this package. They are read from the folder named by the environment
variable IWCODEC_METRIC_WEIGHTS (default: the working folder).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]

ALEXNET = "alexnet-owt-7be5be79.pth"
LPIPS = "lpips_v0.1_alex.pth"
ORIGIN = {
    ALEXNET: "AlexNet of torchvision",
    LPIPS: "lpips/weights/v0.1/alex.pth of github.com/richzhang/PerceptualSimilarity, renamed",
}
"""Weight file -> where to get it; part of the error message when the file is missing."""


class MetricUnavailableError(CodecError):
    """A metric needs a program, package or weight file that this machine does not have."""


def load_weights(name: str, folder: Path | None = None) -> State:
    """Load one of the files of ORIGIN with PyTorch. Raises MetricUnavailableError without the file or PyTorch."""
    folder = folder or Path(os.environ.get("IWCODEC_METRIC_WEIGHTS", "."))
    path = folder / name
    if not path.is_file():
        raise MetricUnavailableError(
            f"{name} is not in {folder} ({ORIGIN[name]}); set IWCODEC_METRIC_WEIGHTS to the folder that holds it."
        )
    try:
        import torch
    except ImportError as error:
        raise MetricUnavailableError(f"LPIPS needs PyTorch ({install('train')}).") from error
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    return dict(state)
