"""TensorFlow Lite models, or the part of a model between given tensors, run by LiteRT (the package ai-edge-litert)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.extras import install

Tensor = NDArray[np.float32]


class TfliteGraph:
    """The part of a TFLite model that computes the tensors `outputs` from the tensors `inputs`, all float32.

    A model with custom operators runs in parts between them, because LiteRT has no kernels for such operators.
    Raises MetricUnavailableError without LiteRT, ValueError if the outputs need more than the inputs.
    """

    def __init__(self, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MetricUnavailableError(
                f"Face landmarks need LiteRT ({install('bench')}, or pip install ai-edge-litert); "
                f"{error.name or error} is missing."
            ) from error
        self._interpreter = Interpreter(model_content=cut(path.read_bytes(), inputs, outputs), num_threads=1)
        self._interpreter.allocate_tensors()
        self._inputs = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """The outputs, in the order given to the constructor."""
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def cut(model: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A TFLite model of only those operators that `outputs` (names of tensors) need, given the tensors `inputs`.

    Raises ValueError for a name that the model does not have, or if the outputs need another input of the model.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tree: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    graph = tree.subgraphs[0]
    index = {tensor.name.decode(): number for number, tensor in enumerate(graph.tensors)}
    unknown = [name for name in (*inputs, *outputs) if name not in index]
    if unknown:
        raise ValueError(f"The model has no tensor {unknown[0]!r}.")
    needed = {index[name] for name in outputs}
    kept = []
    given = {index[name] for name in inputs}
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs) - given:
            kept.append(operator)
            needed.update(int(number) for number in operator.inputs)
    missing = needed.intersection(int(number) for number in graph.inputs) - given
    if missing:
        raise ValueError(f"The outputs also need {graph.tensors[missing.pop()].name.decode()!r}.")
    graph.operators = kept[::-1]
    graph.inputs = np.array([index[name] for name in inputs], np.int32)
    graph.outputs = np.array([index[name] for name in outputs], np.int32)
    codes = sorted({operator.opcodeIndex for operator in kept})
    for operator in kept:
        operator.opcodeIndex = codes.index(operator.opcodeIndex)
    tree.operatorCodes = [tree.operatorCodes[code] for code in codes]
    tree.signatureDefs, tree.metadata, tree.metadataBuffer = [], [], None
    builder = flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())
