"""Packets and files, intact and damaged."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import support.codec.container_file as container_file
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, Run, SourcePacket, pack_sources, unpack_sources
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import CodecError
from support.codec.fuzzing import mutated
from support.web.vectors.values import plain, text

SEEDS: list[tuple[str, bytes]] = [
    ("source", SourcePacket(3, b"abc", 70_000).to_bytes()),
    ("source", SourcePacket(3, b"abc", base=2).to_bytes()),
    ("motion", MotionPacket(300, 20, 298, b"abcdef").to_bytes()),
    ("motion", MotionPacket(300, 20, None, b"abcdef", (Run(2, 15), Run(0, 5)), scale=78).to_bytes()),
    (
        "motion",
        MotionPacket(300, 20, None, b"ab", (Run(2, 20),), 78, ((Run(0, 20),), (Run(3, 9), Run(0, 11)))).to_bytes(),
    ),
    ("motion", MotionPacket(300, 4, 295, b"abcdef", (Run(2, 3), Run(0, 1)), scale=78).to_bytes()),
    ("motion", MotionPacket(300, 4, 295, b"abcdef", scale=78, alike=True).to_bytes()),
    ("audio", AudioPacket(960, (b"ab", b"cde")).to_bytes()),
    ("sources", pack_sources([SourcePacket(n, b"abc", 40 * (n % 4)) for n in range(3, 9)])),
    ("sources", pack_sources([SourcePacket(n, b"abc", base=1) for n in range(3, 9)])),
]


PARSERS: dict[str, Callable[[bytes], Any]] = {
    "source": SourcePacket.from_bytes,
    "sources": unpack_sources,
    "motion": MotionPacket.from_bytes,
    "audio": AudioPacket.from_bytes,
}


def packet_vector(kind: str, seed: bytes, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Bytes of a packet, damaged in all but the first ones, and what they parse to: None if they are refused."""
    data = seed if number < len(SEEDS) else mutated(seed, rng)
    try:
        parsed = PARSERS[kind](data)
    except CodecError:
        return {"kind": kind, "data": text(data), "packets": None}
    return {
        "kind": kind,
        "data": text(data),
        "packets": [plain(one) for one in (parsed if isinstance(parsed, list) else [parsed])],
    }


def intact_file() -> bytes:
    """A small file with records of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        return container_file.write_container(Path(folder) / "small.iwc").read_bytes()


def file_vector(intact: bytes, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """A file, damaged in all but the first one, and its packets: None if it is refused."""
    data = mutated(intact, rng) if number else intact
    try:
        reader = ContainerReader(io.BytesIO(data))
        packets = [plain(packet) for packet in reader.records()]
    except CodecError:
        return {"data": text(data), "packets": None}
    header = reader.header
    return {
        "data": text(data),
        "packets": packets,
        "truncated": reader.truncated,
        "damaged": len(reader.damage),
        "sources": sum(packet["kind"] == "source" and packet["base"] is None for packet in packets),
        "variants": sum(packet.get("base") is not None for packet in packets),
        "header": {"modelId": header.model_id, "tables": header.tables, "fps": float(header.fps), "size": header.size},
    }


def vectors(rng: np.random.Generator) -> dict[str, Any]:
    intact = intact_file()
    return {
        "packets": [packet_vector(*SEEDS[n % len(SEEDS)], n, rng) for n in range(800)],
        "files": [file_vector(intact, n, rng) for n in range(200)],
    }
