"""Unsigned LEB128 integers of bounded length."""

from iwcodec.codec.errors import FormatError

MAX_BYTES = 9
"""Bytes of a varint: 63 bits."""


def write_varint(value: int) -> bytes:
    """Serialise 7 bits per byte, lowest first. Raises ValueError below 0 or above 63 bits."""
    if not 0 <= value < 1 << (7 * MAX_BYTES):
        raise ValueError(f"{value} does not fit in {MAX_BYTES} bytes")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int, largest: int) -> tuple[int, int]:
    """Parse the varint at offset `at`; return (value, offset behind it). Raises FormatError if it is cut off, too long,
    not minimal, or greater than `largest`."""
    value = 0
    for n in range(MAX_BYTES):
        if at + n >= len(data):
            raise FormatError("A number is cut off.")
        byte = data[at + n]
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            if n and not byte:
                raise FormatError("A number is longer than necessary.")
            if value > largest:
                raise FormatError(f"A number is out of range: {value} is above {largest}.")
            return value, at + n + 1
    raise FormatError("A number is too long.")
