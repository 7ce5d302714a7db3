"""Pickles of arrays: what they hold, and that nothing else gets through."""

import os
import pickle
import struct
from typing import Any

import numpy as np
import pytest

from iwcodec.benchmarks.metrics.learned.array_pickle import load
from iwcodec.codec.errors import CodecError
from support.codec.fuzzing import mutated
from support.metrics.small_backbones import array_pickle

TREE = {"net": {"first": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}, "bias": np.zeros(3, np.float32)}}


class Runs:
    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        return self._call[0], self._call[1:]


def test_arrays_and_their_names() -> None:
    loaded = load(array_pickle(TREE))
    assert loaded["net"].keys() == {"first", "bias"}
    np.testing.assert_array_equal(loaded["net"]["first"]["kernel"], TREE["net"]["first"]["kernel"])
    np.testing.assert_array_equal(loaded["net"]["bias"], TREE["net"]["bias"])


def test_nothing_is_run() -> None:
    for harmful in (Runs(os.system, "exit 1"), Runs(eval, "1"), Runs(np.fromfile, "/dev/zero")):
        with pytest.raises(CodecError, match="not a pickle of arrays"):
            load(pickle.dumps({"a": harmful}, protocol=3))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": np.zeros(3)}, "float32"),
        ({"a": np.zeros(3, ">f4")}, "little-endian"),
        ({"a": np.array([{}, ()], object)}, "float32|opcode"),
        ({"a": np.zeros((2, 2, 2), np.float32, order="F")}, "layout"),
        ({"a": 1}, "more than dictionaries"),
        ({"a": np.ndarray}, "more than dictionaries"),
        (np.zeros(3, np.float32), "more than dictionaries"),
    ],
)
def test_other_contents_are_refused(tree: object, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        load(array_pickle(tree))


def test_memory_follows_the_size_of_the_file() -> None:
    with pytest.raises(CodecError, match="LONG_BINPUT"):  # the unpickler would allocate 32 GB
        load(b"\x80\x03}r" + struct.pack("<I", 2**31) + b".")
    with pytest.raises(CodecError):  # 4 GB of bytes that are not there
        load(b"\x80\x03}X\x01\x00\x00\x00aB" + struct.pack("<I", 2**32 - 1) + b"s.")
    with pytest.raises(CodecError, match="layout"):  # an array of 2^31 numbers in one byte
        load(array_pickle(TREE).replace(b"K\x02K\x03K\x04\x87", b"K\x02K\x03J\x00\x00\x00\x7f\x87"))


def test_dictionaries_in_each_other_are_read_once() -> None:
    inner: dict[str, Any] = {"x": np.zeros(1, np.float32)}
    for _ in range(40):  # 2^40 dictionaries, if each reference were followed
        inner = {"a": inner, "b": inner}
    assert load(array_pickle(inner)).keys() == {"a", "b"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of escapes in strings that arise by damage
def test_damaged_pickles() -> None:
    whole, rng = array_pickle(TREE), np.random.default_rng(3)
    refused = 0
    for _ in range(1000):
        try:
            load(mutated(whole, rng))
        except CodecError:
            refused += 1
    assert refused > 250
