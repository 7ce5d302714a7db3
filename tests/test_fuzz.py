"""Ten thousand damaged inputs: only the codec's own error ever comes out, and memory stays bounded."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
from iwcodec.container import ContainerReader
from iwcodec.errors import CodecError
from iwcodec.motion import MotionCoder
from iwcodec.motion_tables import load_tables
from iwcodec.motion_transform import TransformCoder
from iwcodec.packets import AudioPacket, MotionPacket, Run, SourcePacket, pack_sources, unpack_sources
from iwcodec.transform_tables import load_transform_tables

GOLDEN = (Path(__file__).parent / "golden" / "version4.iwc").read_bytes()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
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


def test_container():
    rng = np.random.default_rng(1)
    tracemalloc.start()
    for _ in range(4000):
        try:
            reader = ContainerReader(io.BytesIO(mutated(GOLDEN, rng)))
            list(reader.records())
            list(reader.seek(50))
        except CodecError:
            continue
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_packets():
    rng = np.random.default_rng(2)
    seeds = [
        SourcePacket(3, b"abc").to_bytes(),
        MotionPacket(300, 20, 298, b"abcdef").to_bytes(),
        MotionPacket(300, 20, None, b"abcdef", (Run(2, 15), Run(0, 5)), scale=78).to_bytes(),
        AudioPacket(960, (b"ab", b"cde")).to_bytes(),
        pack_sources([SourcePacket(n, b"abc", 40 * n) for n in range(3, 9)]),
    ]
    parsers = (SourcePacket.from_bytes, MotionPacket.from_bytes, AudioPacket.from_bytes, unpack_sources)
    for n in range(3000):
        data = mutated(seeds[n % len(seeds)], rng)
        for parse in parsers:
            try:
                parse(data)
            except CodecError:
                continue


def test_motion_payloads():
    rng = np.random.default_rng(3)
    coder = MotionCoder(load_tables())
    levels = np.cumsum(rng.integers(-3, 4, (4, 20, 3)), 0).astype(np.int32)
    payload = coder.encode(levels, None)
    for n in range(3000):
        data = rng.bytes(int(rng.integers(0, 90))) if n % 3 == 0 else mutated(payload, rng)
        try:
            out = coder.decode(data, 4, 20, None)
            assert out.shape == (4, 20, 3)
        except CodecError:
            continue


def test_transformed_payloads():
    rng = np.random.default_rng(4)
    coder = TransformCoder(load_transform_tables())
    levels = [
        rng.integers(-3, 4, (n, 60)).astype(np.int32) // (1 + np.arange(n, dtype=np.int32)[:, None]) for n in (9, 3)
    ]
    payload = coder.encode(levels)
    for n in range(3000):
        data = rng.bytes(int(rng.integers(0, 90))) if n % 3 == 0 else mutated(payload, rng)
        try:
            found = coder.decode(data, [9, 3], 60)
            assert [rows.shape for rows in found] == [(9, 60), (3, 60)]
        except CodecError:
            continue
