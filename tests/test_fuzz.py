"""Thousands of damaged files and packets: they raise only CodecError, and memory is bounded."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, Run, SourcePacket, pack_sources, unpack_sources
from iwcodec.codec.errors import CodecError
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from support.codec.fuzzing import mutated, read_damaged_files


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory by /proc and rlimit")
def test_damaged_files_raise_only_codec_errors(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=read_damaged_files, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_damaged_packets_raise_only_codec_errors() -> None:
    rng = np.random.default_rng(2)
    seeds = [
        SourcePacket(3, b"abc").to_bytes(),
        MotionPacket(300, 20, 298, b"abcdef").to_bytes(),
        MotionPacket(300, 20, None, b"abcdef", (Run(2, 15), Run(0, 5)), scale=78).to_bytes(),
        MotionPacket(300, 20, None, b"abcdef", (Run(2, 20),), 78, ((Run(0, 20),), (Run(3, 9), Run(0, 11)))).to_bytes(),
        SourcePacket(3, b"abc", base=2).to_bytes(),
        AudioPacket(960, (b"ab", b"cde")).to_bytes(),
        pack_sources([SourcePacket(n, b"abc", 40 * n) for n in range(3, 9)]),
        pack_sources([SourcePacket(n, b"abc", base=2) for n in range(3, 9)]),
    ]
    parsers = (SourcePacket.from_bytes, MotionPacket.from_bytes, AudioPacket.from_bytes, unpack_sources)
    for n in range(4200):
        data = mutated(seeds[n % len(seeds)], rng)
        for parse in parsers:
            try:
                parse(data)
            except CodecError:
                continue


def test_damaged_predictive_motion_raises_only_codec_errors() -> None:
    rng = np.random.default_rng(3)
    coder = PredictiveCoder(load_tables())
    levels = np.cumsum(rng.integers(-3, 4, (2, 20, 3)), 0).astype(np.int32)
    payload = coder.encode(levels, None)
    for n in range(2000):
        data = rng.bytes(int(rng.integers(0, 90))) if n % 3 == 0 else mutated(payload, rng)
        try:
            out = coder.decode(data, 2, 20, None)
            assert out.shape == (2, 20, 3)
        except CodecError:
            continue


def test_damaged_transformed_motion_raises_only_codec_errors() -> None:
    rng = np.random.default_rng(4)
    coder = TransformCoder(load_transform_tables())
    levels = [
        rng.integers(-3, 4, (n, 60)).astype(np.int32) // (1 + np.arange(n, dtype=np.int32)[:, None]) for n in (9, 3)
    ]
    payload = coder.encode(levels)
    for n in range(3000):
        data = rng.bytes(int(rng.integers(0, 90))) if n % 3 == 0 else mutated(payload, rng)
        try:
            rows = coder.decode(data, [9, 3], 60)
            assert [run.shape for run in rows] == [(9, 60), (3, 60)]
        except CodecError:
            continue
