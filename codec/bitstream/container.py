"""The .iwc file.

    offset       bytes   what
    0            4       magic 89 49 57 43 ("\\x89IWC")
    4            2       version, little-endian; this is 5; 4 had no dead zone, 3 no transformed motion
                         and each source by itself, 2 a map for a header
    6            4       length H of the header, little-endian, at most 65,536
    10           H       header: a msgpack array, see `Header`
    10 + H       4       CRC-32 of everything before, little-endian

then records until the footer, each

    0            1       A1 source, A2 motion, A3 audio, A4 index, A5 several sources
    1            1..3    length L of the payload, LEB128
    ..           1       check: the low byte of the CRC-32 of the bytes before (finds the next record after damage)
    ..           L       payload: a packet (packets.py), or the index
    ..           4       CRC-32 of the record so far, little-endian

The index, one before the footer, has for every record of sources or motion in file order: kind (1 or 2), offset less
that of the record before it, and the first frame (motion; 0 for sources) less that of the motion record before it,
all LEB128. The footer is the offset of the index record (8 bytes, little-endian) and "IWCX". A file without its footer
was cut: what is there plays, found by walking the records. A record whose checksum is wrong is left out and named.
"""

MAGIC = b"\x89IWC"
MAX_RECORD = (1 << 18) + 64
MIN_RECORD = 8
"""Bytes of the shortest motion there is, with kind, length and checksum, less a few."""
_SOURCE, _MOTION, _AUDIO, _INDEX, _SOURCES = 0xA1, 0xA2, 0xA3, 0xA4, 0xA5
_NAMES = {_SOURCE: "source", _MOTION: "motion", _AUDIO: "audio", _INDEX: "index", _SOURCES: "sources"}
_TAIL = b"IWCX"
_FOOTER = 12


# ---------------------------------------------------------------------------------------------- writing


# ---------------------------------------------------------------------------------------------- reading
