"""ColorVideoVDP: R. K. Mantiuk et al., "ColorVideoVDP: A visual difference predictor", SIGGRAPH 2024."""

from collections.abc import Sequence

import numpy as np

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.media.types import Picture


class ColorVideoVdp:
    """Quality in just-objectionable-difference units (JOD); 10 means no visible difference.

    Models the metric's standard display: 30 inch, 3840 x 2160, viewed from 0.75 m. Raises MetricUnavailableError
    without the package cvvdp or a torchvision that fits the installed torch.
    """

    def __init__(self) -> None:
        try:
            import pycvvdp
        except ImportError as error:
            raise MetricUnavailableError(
                f"ColorVideoVDP needs the package cvvdp (pip install cvvdp); {error.name or error} is missing."
            ) from error
        except (RuntimeError, OSError) as error:  # torchvision was built for another torch
            raise MetricUnavailableError(f"ColorVideoVDP needs a torchvision that fits torch: {error}.") from error
        self._metric = pycvvdp.cvvdp(display_name="standard_4k", quiet=True)

    def __call__(self, originals: Sequence[Picture], decoded: Sequence[Picture], fps: float) -> float:
        quality, _ = self._metric.predict(
            np.stack(decoded), np.stack(originals), dim_order="FHWC", frames_per_second=fps
        )
        return float(quality)
