"""Damaged packets and files."""

import resource
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.index import Quality, quality_of
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, Run, SourcePacket
from iwcodec.codec.bitstream.writer import ContainerWriter, add_quality
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.audio.opus_track import OpusWriter
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceEncoder
from support.codec.stub_runtime import SIZE, StubRuntime, picture

FILES = 2_500
REBUILD_EVERY = 5
"""Rebuild the pictures of every Nth file: that takes most of the time, whatever the file holds."""
MEMORY_MARGIN = 400 << 20
"""Bytes of address space that reading damaged files may take beyond what an intact file took."""
HEADER = Header(
    "stub", b"stubstub", 20, 1 / 128, 1 / 32, load_transform_tables().id, Fraction(25), SIZE, 24
).with_audio(312, 2880)
MOTION = TransformCoder(load_transform_tables())


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut, insert, overwrite and repeat bytes, one to five times."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, len(out))) if out else 0
        match int(rng.integers(5)):
            case 0 if out:
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                del out[at:]
            case 2:
                out[at:at] = rng.bytes(int(rng.integers(1, 20)))
            case 3:
                out[at : at + 4] = b"\xff" * 4
            case _:
                out[at:at] = out[int(rng.integers(0, len(out) + 1)) :][:40]
    return bytes(out)


def intact_file(path: Path) -> list[Any]:
    """Write two sources, two variants of each, six frames in three motion packets, of which the last two name sources
    of regions, 0.25 s of sound, and a quality; return the packets."""
    rng = np.random.default_rng(5)
    coder = SourceEncoder(SIZE)
    packets: list[Any] = [SourcePacket(n, coder.add(picture(80 + 20 * n)), 3 * n) for n in range(2)]
    packets += [SourcePacket(n, coder.add(picture(60 + 30 * n)), base=n // 2 - 1) for n in range(2, 6)]
    for n in range(3):
        levels = [rng.integers(-2, 3, (2, 60)).astype(np.int32)]
        packets.append(MotionPacket(2 * n, 2, None, MOTION.encode(levels), (Run(n % 2, 2),), 78, named_regions(n)))
    opus = OpusWriter()
    sound = [*opus.encode(rng.integers(-3000, 3000, 12_000).astype(np.int16)), *opus.flush()]
    packets.append(AudioPacket(0, tuple(sound)))
    write(path, HEADER, packets)
    add_quality(path, Quality(30.0, 20.0, 3))
    return packets


def named_regions(number: int) -> tuple[tuple[Run, ...], ...]:
    """The sources that two frames name: none, both regions, one region in the second frame."""
    return ((), ((Run(4, 2),), (Run(6, 1), Run(3, 1))), ((Run(0, 2),), (Run(0, 1), Run(1, 1))))[number]


def write(path: Path, header: Header, packets: list[Any]) -> None:
    """Write the packets in records with valid checksums."""
    with ContainerWriter(path, header) as writer:
        for packet in packets:
            match packet:
                case SourcePacket():
                    writer.write_source(packet)
                case MotionPacket():
                    writer.write_motion(packet)
                case _:
                    writer.write_audio(packet)


def altered(packet: Any, rng: np.random.Generator) -> Any:
    """A packet with one field or its payload changed; its record will have a valid checksum."""
    number = int(rng.choice([0, 1, 255, 65_535, 2**31, 2**40 - 1]))
    match packet:
        case SourcePacket():
            changes = [{"slot": number}, {"frame": number}, {"payload": mutated(packet.payload, rng)}]
            changes += [{"base": base} for base in (None, int(rng.integers(8)), number)]
        case MotionPacket():
            runs = (Run(int(rng.integers(32)), int(rng.integers(1, 300))),)
            changes = [{"first": number}, {"runs": runs}, {"scale": int(rng.integers(256))}]
            changes += [{"count": int(rng.integers(1, 300))}, {"payload": mutated(packet.payload, rng)}]
            region = (Run(int(rng.choice([0, 1, 3, 6, 70, 65_536, 65_537])), packet.count),)
            changes.append({"regions": (region,) * int(rng.integers(1, 5))})
        case _:
            pieces = tuple(mutated(piece, rng) for piece in packet.packets)
            changes = [{"first": number}, {"packets": pieces}, {"packets": packet.packets * 3}]
    return replace(packet, **changes[int(rng.integers(len(changes)))])


def damaged_file(path: Path, whole: bytes, packets: list[Any], rng: np.random.Generator) -> None:
    """Write a damaged file: half have changed bytes, half have altered, missing or repeated packets."""
    if rng.integers(2):
        path.write_bytes(mutated(whole, rng))
        return
    changed = [altered(packet, rng) if rng.random() < 0.2 else packet for packet in packets]
    order = rng.choice(len(changed), len(changed)) if rng.integers(4) == 0 else range(len(changed))
    frames = int(rng.choice([0, 1, 6, 2**40]))
    try:
        write(path, replace(HEADER, frames=frames), [changed[n] for n in order])
    except (CodecError, ValueError):  # the writer refuses it
        path.write_bytes(whole)


def read_all(path: Path, rebuilt: bool) -> None:
    """Read all that playing a file reads: sound, packets from the middle on, motion; if `rebuilt`, all frames."""
    with IwcFile(path, StubRuntime()) as file:
        if rebuilt:
            assert sum(frame.picture.shape == (SIZE, SIZE, 3) for frame in file.frames()) <= 6 * 300
        samples = 0
        for block in file.samples():
            samples += len(block)
            if samples > 100 * 48_000:
                break
        quality_of(file.reader.index(), 6)
        for packet in file.reader.seek(3):
            if isinstance(packet, MotionPacket) and packet.scale is not None:
                MOTION.decode(packet.payload, [run.frames for run in packet.runs], 60)


def read_damaged_files(folder: Path) -> None:
    """Run in a process of its own, whose memory this limits to what reading should need."""
    rng = np.random.default_rng(1)
    path = folder / "a.iwc"
    packets = intact_file(path)
    whole = path.read_bytes()
    read_all(path, rebuilt=True)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_MARGIN, used + MEMORY_MARGIN))
    for number in range(FILES):
        damaged_file(path, whole, packets, rng)
        try:
            read_all(path, rebuilt=number % REBUILD_EVERY == 0)
        except CodecError:
            continue
