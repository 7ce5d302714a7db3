"""TensorFlow Lite models, run by LiteRT (the package ai-edge-litert)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.extras import install

Tensor = NDArray[np.float32]


class TfliteGraph:
    """A TFLite model of one input; computes its tensors `outputs`, all float32.

    Raises MetricUnavailableError without LiteRT, ValueError for a name that is none of the model's outputs.
    """

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MetricUnavailableError(
                f"Face landmarks need LiteRT ({install('bench')}, or pip install ai-edge-litert); "
                f"{error.name or error} is missing."
            ) from error
        self._interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        index = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}
        unknown = [name for name in outputs if name not in index]
        if unknown:
            raise ValueError(f"The model has no output {unknown[0]!r}.")
        self._outputs = [index[name] for name in outputs]

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """The outputs, in the order given to the constructor."""
        self._interpreter.set_tensor(self._input, pixels)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
