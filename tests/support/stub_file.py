"""A small file for decoders."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import MotionPacket, Run, SourcePacket
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceEncoder
from stub_runtime import SIZE, StubRuntime, picture


def stub_file(path: Path, lost: tuple[type, int] | None = None) -> Path:
    """12 frames in messages of 4, all led by the first of three sources; the n-th packet of a kind is damaged."""
    levels = [np.zeros((4, 60), np.int32)]
    payload = TransformCoder(load_transform_tables()).encode(levels)
    coder = SourceEncoder(SIZE)
    # Frames that are not known keep each in a record of its own.
    sources = [SourcePacket(n, coder.add(picture(80 + 20 * n))) for n in range(3)]
    motion = [MotionPacket(4 * n, 4, None, payload, (Run(0, 4),), scale=78) for n in range(3)]
    info = StubRuntime.info
    tables = load_transform_tables().id
    header = Header(info.model_id, info.digest, 20, 1 / 128, 1 / 32, tables, Fraction(25), SIZE, 12)
    with ContainerWriter(path, header) as writer:
        for source in sources:
            writer.write_source(source)
        for packet in motion:
            writer.write_motion(packet)
    if lost is not None:
        kind, number = lost
        wanted = (sources if kind is SourcePacket else motion)[number].to_bytes()
        data = bytearray(path.read_bytes())
        at = data.find(wanted)
        data[at + len(wanted) - 1] ^= 1
        path.write_bytes(data)
    return path
