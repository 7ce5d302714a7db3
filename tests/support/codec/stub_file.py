"""A small .iwc file of the stub model."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import MotionPacket, Run, SourcePacket
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceEncoder
from support.codec.stub_runtime import SIZE, StubRuntime, picture


def stub_file(path: Path, lost: tuple[type, int] | None = None) -> Path:
    """12 frames in motion packets of 4, with the first of three sources as reference source. `lost`: a packet type and
    number, of which one byte is damaged."""
    levels = [np.zeros((4, 60), np.int32)]
    payload = TransformCoder(load_transform_tables()).encode(levels)
    coder = SourceEncoder(SIZE)
    # Sources of unknown frames do not share a record.
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
        damaged = (sources if kind is SourcePacket else motion)[number].to_bytes()
        data = bytearray(path.read_bytes())
        at = data.find(damaged)
        data[at + len(damaged) - 1] ^= 1
        path.write_bytes(data)
    return path
