"""Unsigned LEB128 integers, bounded."""

from iwcodec.codec.errors import FormatError

LONGEST = 9
"""Bytes: enough for 63 bits."""


def write_varint(value: int) -> bytes:
    """Seven bits a byte, low ones first. Raises ValueError below 0 or above 63 bits."""
    if not 0 <= value < 1 << (7 * LONGEST):
        raise ValueError(f"{value} does not fit in {LONGEST} bytes")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int, largest: int) -> tuple[int, int]:
    """(value, position behind it). Raises FormatError when it is cut, too long, not minimal or above `largest`."""
    value = 0
    for n in range(LONGEST):
        if at + n >= len(data):
            raise FormatError("A number is cut off.")
        byte = data[at + n]
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            if n and not byte:
                raise FormatError("A number is longer than it need be.")
            if value > largest:
                raise FormatError(f"A number is out of range: {value} is above {largest}.")
            return value, at + n + 1
    raise FormatError("A number is too long.")
