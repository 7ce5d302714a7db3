"""A small TFLite model converted to ONNX computes what LiteRT computes."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
pytest.importorskip("onnx")

from iwcodec.models.export.tflite import Converter


class Model:
    """Builds a model of one input (1, 8, 8, 4), operator by operator."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.buffers, self.tensors, self.operators, self.codes = [schema.BufferT()], [], [], []
        self.input = self.last = self.tensor("x", (1, 8, 8, 4))

    def tensor(self, name: str, shape: tuple[int, ...], data: NDArray[Any] | None = None, kind: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), np.array(shape, np.int32), kind, 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def weights(self, *shape: int) -> int:
        """Float16, widened by an operator of its own as in published models."""
        half = self.tensor("w16", shape, self.random.normal(0, 0.5, shape).astype(np.float16), kind=1)
        whole = self.tensor("w", shape)
        self.add("DEQUANTIZE", [half], whole)
        return whole

    def then(self, code: str, others: list[int], shape: tuple[int, ...], name: str = "t", **options: Any) -> int:
        before, self.last = self.last, self.tensor(name, shape)
        self.add(code, [before, *others], self.last, **options)
        return self.last

    def add(self, code: str, inputs: list[int], output: int, options: str = "", **values: Any) -> None:
        operator, kind = schema.OperatorT(), schema.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, code)
        kind.version = 1
        operator.opcodeIndex = len(self.codes)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in values.items():
                setattr(operator.builtinOptions, name, value)
        self.codes.append(kind)
        self.operators.append(operator)

    def packed(self) -> bytes:
        flatbuffers = pytest.importorskip("flatbuffers")
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = np.array([self.input], np.int32), np.array([self.last], np.int32)
        model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], self.codes, self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def small_model() -> Model:
    """Every operator that the converter knows; of strides 1 and 2, and both kinds of padding."""
    model = Model()
    conv = {"options": "Conv2DOptions", "dilationWFactor": 1, "dilationHFactor": 1}
    depthwise = {"options": "DepthwiseConv2DOptions", "depthMultiplier": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    model.then("CONV_2D", [model.weights(6, 3, 3, 4), model.weights(6)], (1, 8, 8, 6), **conv, strideW=1, strideH=1)
    narrow = model.then("PRELU", [model.weights(1, 1, 6)], (1, 8, 8, 6))
    weights = [model.weights(1, 3, 3, 6), model.weights(6)]
    model.then("DEPTHWISE_CONV_2D", weights, (1, 8, 8, 6), **depthwise, strideW=1, strideH=1)
    model.then("ADD", [narrow], (1, 8, 8, 6), options="AddOptions")
    amounts = model.tensor("pad", (4, 2), np.array([(0, 0), (0, 0), (0, 0), (0, 2)], np.int32), kind=2)
    model.then("PAD", [amounts], (1, 8, 8, 8), options="PadOptions")
    pool = {"filterWidth": 2, "filterHeight": 2, "strideW": 2, "strideH": 2}
    model.then("MAX_POOL_2D", [], (1, 4, 4, 8), name="middle", options="Pool2DOptions", padding=1, **pool)
    weights = [model.weights(5, 3, 3, 8), model.weights(5)]
    model.then("CONV_2D", weights, (1, 1, 1, 5), name="y", **conv, padding=1, strideW=2, strideH=2)
    return model


def computed(model: Any, **inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def test_the_converted_model_computes_the_same() -> None:
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    packed = small_model().packed()
    interpreter = interpreter_module.Interpreter(model_content=packed)
    interpreter.allocate_tensors()
    x = np.random.default_rng(1).normal(0, 1, (1, 8, 8, 4)).astype(np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    (found,) = computed(Converter(packed).convert({"x": "x"}, {"y": "y"}), x=x)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_parts_compute_what_the_whole_computes() -> None:
    converter, x = Converter(small_model().packed()), np.ones((1, 8, 8, 4), np.float32)
    (whole,) = computed(converter.convert({"x": "x"}, {"y": "y"}), x=x)
    (middle,) = computed(converter.convert({"x": "x"}, {"m": "middle"}), x=x)
    assert middle.shape == (1, 4, 4, 8)
    (rest,) = computed(converter.convert({"m": "middle"}, {"y": "y"}), m=middle)
    np.testing.assert_allclose(rest, whole, atol=1e-5)


def test_unknown_tensors_and_operators_are_named() -> None:
    model = small_model()
    with pytest.raises(KeyError, match="nowhere"):
        Converter(model.packed()).convert({"x": "x"}, {"y": "nowhere"})
    model.then("SOFTMAX", [], (1, 1, 1, 5), name="z", options="SoftmaxOptions")
    with pytest.raises(ValueError, match="SOFTMAX"):
        Converter(model.packed()).convert({"x": "x"}, {"z": "z"})
