"""Convert a published TensorFlow Lite model, or the part of it between given tensors, to ONNX.

    python -m iwcodec.models.export.tflite face_landmark_with_attention.tflite --inputs crop=input_1 \\
        --outputs features=p_re_lu_3 mesh=output_mesh presence=conv_faceflag -o codec/data/face_mesh.onnx

Knows the operators of MediaPipe's face mesh. Needs ai-edge-litert and onnx. Inputs and outputs keep TensorFlow's layout
(N, H, W, C); weights are stored as float16, as in the model.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 9
DTYPES = {0: np.float32, 1: np.float16, 2: np.int32}
"""By the number of a TFLite tensor type."""
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--inputs", nargs="+", required=True, metavar="NAME=TENSOR")
    parser.add_argument("--outputs", nargs="+", required=True, metavar="NAME=TENSOR")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    named = [dict(pair.split("=", 1) for pair in pairs) for pairs in (arguments.inputs, arguments.outputs)]
    onnx.save(Converter(arguments.model.read_bytes()).convert(*named), arguments.out)


class Converter:
    """Reads a TFLite model's first subgraph, and writes parts of it as ONNX."""

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        tree: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
        names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
        self._graph = tree.subgraphs[0]
        self._codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in tree.operatorCodes]
        self._index = {tensor.name.decode(): number for number, tensor in enumerate(self._graph.tensors)}
        self._constants: dict[int, NDArray[Any]] = {}
        for number, tensor in enumerate(self._graph.tensors):
            data = tree.buffers[tensor.buffer].data
            if data is not None and len(data):
                self._constants[number] = np.frombuffer(bytes(data), DTYPES[tensor.type]).reshape(tensor.shape)
        for operator in self._graph.operators:
            if self._code(operator) == "DEQUANTIZE":  # of weights: stored as float16
                self._constants[operator.outputs[0]] = self._constants[operator.inputs[0]]

    def convert(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> onnx.ModelProto:
        """Return the part that computes `outputs` from `inputs`; both map names in ONNX to tensors of the model.

        Raises KeyError for an unknown tensor, ValueError for an operator that is not known here.
        """
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        of_inputs = {self._index[tensor]: name for name, tensor in inputs.items()}
        of_outputs = {self._index[tensor]: name for name, tensor in outputs.items()}
        for number, name in of_inputs.items():
            self._add("Transpose", [name], _value(number), perm=TO_CHANNELS_FIRST)
        for operator in self._needed(set(of_inputs), set(of_outputs)):
            self._convert(operator)
        for number, name in of_outputs.items():
            self._add("Transpose", [_value(number)], name, perm=TO_CHANNELS_LAST)
        declared, results = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, self._shape(number)) for number, name in of.items()]
            for of in (of_inputs, of_outputs)
        )
        graph = helper.make_graph(self._nodes, "tflite", declared, results, self._initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _needed(self, given: set[int], needed: set[int]) -> list[Any]:
        kept = []
        for operator in reversed(self._graph.operators):
            if self._code(operator) != "DEQUANTIZE" and needed.intersection(operator.outputs) - given:
                kept.append(operator)
                needed = needed.union(int(number) for number in operator.inputs)
        return kept[::-1]

    def _convert(self, operator: Any) -> None:
        code, options = self._code(operator), operator.builtinOptions
        x, *others = (int(number) for number in operator.inputs)
        result = _value(operator.outputs[0])
        if code in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            depthwise = code == "DEPTHWISE_CONV_2D"
            weights = self._constants[others[0]].transpose([3, 0, 1, 2] if depthwise else TO_CHANNELS_FIRST)
            self._add(
                "Conv",
                [_value(x), self._constant(weights), self._constant(self._constants[others[1]])],
                result,
                strides=[options.strideH, options.strideW],
                auto_pad="VALID" if options.padding else "SAME_UPPER",
                group=len(weights) if depthwise else 1,
            )
        elif code == "PRELU":  # ONNX Runtime's PRelu takes three times as long as this
            slope = self._constant(self._constants[others[0]].reshape(-1, 1, 1))
            zero = self._constant(np.zeros((), np.float16))
            self._add("Relu", [_value(x)], f"{result}_above")
            self._add("Min", [_value(x), zero], f"{result}_below")
            self._add("Mul", [f"{result}_below", slope], f"{result}_sloped")
            self._add("Add", [f"{result}_above", f"{result}_sloped"], result)
        elif code == "ADD":
            self._add("Add", [_value(x), _value(others[0])], result)
        elif code == "MAX_POOL_2D":
            sides = [options.filterHeight, options.filterWidth], [options.strideH, options.strideW]
            self._add("MaxPool", [_value(x)], result, kernel_shape=sides[0], strides=sides[1])
        elif code == "PAD":
            amounts = self._constants[others[0]][TO_CHANNELS_FIRST].astype(np.int64)
            self._add("Pad", [_value(x), self._constant(amounts.T.reshape(-1))], result)
        else:
            raise ValueError(f"The operator {code} is not known.")

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def _constant(self, array: NDArray[Any]) -> str:
        name = f"constant{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if array.dtype != np.float16:
            return name
        self._add("Cast", [name], f"{name}_float", to=TensorProto.FLOAT)
        return f"{name}_float"

    def _shape(self, number: int) -> list[int]:
        return [int(side) for side in self._graph.tensors[number].shape]

    def _code(self, operator: Any) -> str:
        return self._codes[operator.opcodeIndex]


def _value(number: int) -> str:
    return f"tensor{number}"


if __name__ == "__main__":
    main()
