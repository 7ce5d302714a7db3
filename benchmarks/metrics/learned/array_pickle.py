"""Nested dictionaries of float32 arrays from a pickle, without running what a pickle may ask for.

Some published weights exist only as pickles of numpy arrays. Here a pickle can name nothing but an array and its type,
which stand-ins read, and it can use only the opcodes that such pickles need.
"""

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.errors import CodecError

Arrays = dict[str, Any]
"""Name -> array, or a further dictionary of this kind."""

# fmt: off
OPCODES = frozenset((
    "PROTO", "STOP", "GLOBAL", "REDUCE", "BUILD", "MARK", "EMPTY_DICT", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1",
    "TUPLE3", "BININT", "BININT1", "BININT2", "BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINPUT", "BINGET", "NONE",
    "NEWTRUE", "NEWFALSE",
))
# fmt: on
"""Memory stays in proportion to the file: LONG_BINPUT, whose index alone can claim gigabytes, is not among them."""


class _Type:
    """Stands in for numpy.dtype: it can only be float32."""

    def __init__(self, name: str, *_: object) -> None:
        if name != "f4":
            raise ValueError("arrays must be float32")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] != "<":
            raise ValueError("arrays must be little-endian")


class _Array:
    """Stands in for numpy.ndarray and for the function that makes one."""

    def __init__(self, *_: object) -> None:
        self.values: NDArray[np.float32] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, column_major, content = state
        if not isinstance(kind, _Type) or column_major is not False or len(content) != 4 * math.prod(shape):
            raise ValueError("an array has an unexpected layout")
        self.values = np.frombuffer(content, "<f4").reshape(shape)


ALLOWED = {("numpy.core.multiarray", "_reconstruct"): _Array, ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise ValueError(f"it refers to {module}.{name}") from None


def load(content: bytes) -> Arrays:
    """The dictionary of arrays that the pickle holds. Raises CodecError for anything else."""
    try:
        for opcode, _, _ in pickletools.genops(content):
            if opcode.name not in OPCODES:
                raise ValueError(f"it has the opcode {opcode.name}")
        return _reveal(_Unpickler(io.BytesIO(content)).load())
    except Exception as error:  # a damaged pickle can make the unpickler raise nearly anything
        raise CodecError(f"This is not a pickle of arrays: {error}.") from error


def _reveal(tree: Any) -> Arrays:
    """Put arrays in the place of their stand-ins. Each dictionary is visited once, however often it is referred to."""
    pending, seen = [tree], set()
    while pending:
        node = pending.pop()
        if not isinstance(node, dict):
            raise ValueError("it holds more than dictionaries of arrays")
        if id(node) in seen:
            continue
        seen.add(id(node))
        for name, value in node.items():
            if isinstance(value, _Array) and value.values is not None:
                node[name] = value.values
            elif not isinstance(value, np.ndarray):
                pending.append(value)
    return dict(tree)
