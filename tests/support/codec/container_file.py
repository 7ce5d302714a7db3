"""A small .iwc file with records of every kind."""

from fractions import Fraction
from pathlib import Path

from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, Packet, Run, SourcePacket
from iwcodec.codec.bitstream.writer import ContainerWriter

HEADER = Header(
    model_id="lite-256",
    model_digest=bytes(range(8)),
    keypoints=20,
    step_xy=0.0078125,
    step_strength=0.03125,
    tables=0x12345678,
    fps=Fraction(30_000, 1001),
    size=256,
    frames=120,
    suppression=8,
).with_audio(312, 2880)


def packets() -> list[Packet]:
    """Three sources, of which the last two share a record; two variants of source 2 in one record, and one of source 0;
    then alternating motion of 40 frames and sound of 60 ms packets. The second motion packet names sources of regions.
    """
    sources: list[Packet] = [SourcePacket(n, bytes([n]) * (30 + n), n * 40) for n in range(3)]
    variants = [
        SourcePacket(slot, bytes([7]) * size, base=base) for slot, size, base in ((3, 25, 2), (4, 9, 2), (5, 3, 0))
    ]
    shown = ((Run(0, 40),), (Run(4, 12), Run(0, 8), Run(6, 20)))
    streams: list[Packet] = []
    for n in range(3):
        streams.append(AudioPacket(n * 8640, (b"one", b"three", b"to")))
        payload = bytes([0xA1 + n, 0xA2, n]) * 7
        streams.append(
            MotionPacket(n * 40, 40, None, payload, (Run(n, 30), Run(0, 10)), 60 * n, shown if n == 1 else ())
        )
    return [*sources, *variants, *streams]


def write_container(path: Path, header: Header = HEADER) -> Path:
    with ContainerWriter(path, header) as writer:
        writer.write_sources([packet for packet in packets() if isinstance(packet, SourcePacket)])
        for packet in packets():
            if isinstance(packet, MotionPacket):
                writer.write_motion(packet)
            elif isinstance(packet, AudioPacket):
                writer.write_audio(packet)
    assert sum(writer.bytes.values()) == path.stat().st_size
    return path
