"""Reading .iwc files: from the start, from the middle, and damaged."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import MotionPacket, Run, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.decoder import Decoder, Frame
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.errors import FormatError
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile, all_pictures, fill_gaps
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.file.rate_control.source_plan import encode_plan, interleaved_plan, pictures_of
from iwcodec.codec.file.rate_control.trials import Choice
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.library import CAPACITY
from support.codec.circling import PICTURES
from support.codec.stub_file import stub_file
from support.codec.stub_runtime import SIZE, StubRuntime, picture
from support.media.clips import plain, write_clip


def test_packets_pushed_one_by_one_give_the_same_pictures(iwc_file: Path) -> None:
    with IwcFile(iwc_file) as file:
        expected = [frame.picture for frame in file.frames()]
        decoder = Decoder(file.runtime, active=file.header.active, suppression=file.header.suppression / 10)
        packets = [p for p in ContainerReader(iwc_file).records() if isinstance(p, SourcePacket | MotionPacket)]
        streamed = [frame.picture for packet in packets for frame in decoder.push(packet)]
    assert len(streamed) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(streamed, expected, strict=True))


def test_small_shifts_are_suppressed_as_the_header_states(iwc_file: Path) -> None:
    motion = []
    for tenths in (0, 50):
        with IwcFile(iwc_file) as file:
            file.header = replace(file.header, suppression=tenths)
            pictures = [frame.picture for frame, _ in zip(file.frames(), range(12), strict=False)]
            motion.append(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairwise(pictures)]))
    assert 0 < motion[1] < motion[0]


def test_seeking_gives_the_same_frames(iwc_file: Path) -> None:
    with IwcFile(iwc_file) as file:
        frames = list(file.frames())
    with IwcFile(iwc_file) as file:
        late = list(file.frames(start=20))
    assert [f.number for f in late] == list(range(20, len(frames)))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(late, frames[20:], strict=True))


def test_a_stream_of_sources_is_decoded_from_any_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fit: None
) -> None:
    """With more sources than a library holds; poses return after their first sources were evicted."""
    pictures = [*PICTURES, *PICTURES[:50]]
    plan = interleaved_plan(len(pictures), 2)
    chosen = Choice(encode_plan(plan, pictures_of(plan.frames, lambda: pictures, hold=False), SIZE), 1)
    monkeypatch.setattr("iwcodec.codec.file.encode.choose_sources_and_motion", lambda *arguments: [chosen])
    clip, coded = write_clip(tmp_path / "circling.mp4", pictures, fps=25), tmp_path / "a.iwc"
    options = EncodeOptions(SIZE, sources=1, crop="none", tune="psnr", audio=False)
    report = encode(clip, coded, options, StubRuntime())
    assert CAPACITY < report.sources < len(pictures)
    with IwcFile(coded, StubRuntime()) as file:
        frames = list(file.frames())
        late = list(file.frames(start=110))
    assert [frame.number for frame in frames] == list(range(len(pictures)))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(late, frames[110:], strict=True))


@pytest.mark.parametrize("start", [1, 5000, 48_000, 60_001])
def test_sound_starts_at_any_sample(start: int, iwc_file: Path) -> None:
    """In sync with the sound decoded from the start, apart from the decoder's state."""
    with IwcFile(iwc_file) as file:
        whole = np.concatenate(list(file.samples()))
        part = np.concatenate(list(file.samples(start)))
    assert len(part) == len(whole) - start
    assert np.corrcoef(part, whole[start:])[0, 1] > 0.98  # period 48 samples: 0.99 is one sample off, 0.96 two


def test_sources_after_a_damaged_one_are_reported_as_undecodable(tmp_path: Path) -> None:
    with IwcFile(stub_file(tmp_path / "a.iwc", (SourcePacket, 1)), StubRuntime()) as file:
        assert len(list(file.frames())) == 12
        assert "source record 2" in file.damage[0]
        assert file.damage[1].startswith("source 2:")


def test_a_recorded_call_recovers_at_the_next_key_picture(tmp_path: Path) -> None:
    """Two sequences of sources; the second source of the first is damaged."""
    path, info, motion = tmp_path / "call.iwc", StubRuntime.info, PredictiveCoder(load_tables())
    sources = [
        SourcePacket(slot, coder.add(picture(level)))
        for coder, levels in ((SourceEncoder(SIZE), (80, 90, 100)), (SourceEncoder(SIZE), (180, 190)))
        for slot, level in enumerate(levels)
    ]
    header = Header(info.model_id, info.digest, 20, 1 / 128, 1 / 32, load_tables().id, Fraction(25), SIZE, 0)
    with ContainerWriter(path, header) as writer:
        for packet in sources:
            writer.write_source(packet)
        writer.write_motion(MotionPacket(0, 4, None, motion.encode(np.zeros((4, 20, 3), np.int32), None)))
    data, lost = bytearray(path.read_bytes()), sources[1].to_bytes()
    data[data.find(lost) + len(lost) - 1] ^= 1
    path.write_bytes(data)
    with IwcFile(path, StubRuntime()) as file:
        assert len(list(file.frames())) == 4
        assert "source record 2" in file.damage[0]
        assert file.damage[1].startswith("source 2:")
        assert len(file.damage) == 2


def file_with_variants(path: Path) -> list[SourcePacket]:
    """12 frames of one source in skip mode, in packets of 4; the last 8 show the eyes of variants 1 and 2, which
    are in a record each. Return these."""
    shown = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    coder = SourceEncoder(SIZE)
    source = SourcePacket(0, coder.add(picture(80)))
    variants = [SourcePacket(n, coder.add(noise), base=0) for n, noise in enumerate(shown, 1)]
    payload = TransformCoder(load_transform_tables()).encode([np.zeros((4, 60), np.int32)])
    header = Header("stub", b"stubstub", 20, 1 / 128, 1 / 32, load_transform_tables().id, Fraction(25), SIZE, 12)
    with ContainerWriter(path, header) as writer:
        for packet in (source, *variants):
            writer.write_source(packet)
        for n in range(3):
            eyes = ((Run(n + 1, 4),),) if n else ()
            writer.write_motion(MotionPacket(4 * n, 4, None, payload, (Run(0, 4),), 78, eyes))
    return variants


@pytest.mark.parametrize("start", [3, 4, 11])
def test_seeking_finds_the_variants(start: int, tmp_path: Path) -> None:
    file_with_variants(tmp_path / "a.iwc")
    with IwcFile(tmp_path / "a.iwc", StubRuntime()) as file:
        frames, late = list(file.frames()), list(file.frames(start))
        assert file.damage == []
    assert len({frame.picture.tobytes() for frame in frames}) == 3
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(frames[start:], late, strict=True))


@pytest.mark.parametrize("lost", [0, 1])
def test_frames_that_name_a_damaged_variant_show_the_source(lost: int, tmp_path: Path) -> None:
    variants = file_with_variants(tmp_path / "a.iwc")
    with IwcFile(tmp_path / "a.iwc", StubRuntime()) as file:
        whole = [frame.picture for frame in file.frames()]
    data = bytearray((tmp_path / "a.iwc").read_bytes())
    data[data.find(variants[lost].payload) + 9] ^= 1
    (tmp_path / "a.iwc").write_bytes(data)
    with IwcFile(tmp_path / "a.iwc", StubRuntime()) as file:
        frames = [frame.picture for frame in file.frames()]
        assert file.damage[0].startswith(f"source record {lost + 2} at byte ")
        assert [line[:9] for line in file.damage[1:]] == (["source 2:"] if lost == 0 else [])  # predicted from 1
    intact = [True] * 4 + [lost == 1] * 4 + [False] * 4
    assert [np.array_equal(a, b) for a, b in zip(frames, whole, strict=True)] == intact
    assert all(np.array_equal(frames[0], frame) for frame, same in zip(frames, intact, strict=True) if not same)


def test_an_undecodable_record_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is read; and the number of reports is bounded."""
    with IwcFile(stub_file(tmp_path / "a.iwc", (SourcePacket, 1)), StubRuntime()) as file:
        for _ in range(3):
            assert len(list(file.frames())) == 12
        assert len(file.damage) == 2
        monkeypatch.setattr("iwcodec.codec.file.iwc_file.MAX_DAMAGE", 4)
        for number in range(9):
            file._note("source", number, FormatError("It is damaged."))
        assert len(file.undecodable) == 4


def test_missing_frames_repeat_the_previous_one() -> None:
    a, b = plain((1, 1, 1)), plain((2, 2, 2))
    frames = iter([Frame(1, a), Frame(4, b)])
    assert [p[0, 0, 0] for p in fill_gaps(frames, 10)] == [1, 1, 1, 1, 2]


def test_forged_frame_numbers_give_no_long_video(tmp_path: Path) -> None:
    """The header and a record with a valid checksum agree on the forged number."""
    header = Header("stub", b"stubstub", 20, 1 / 128, 1 / 32, load_transform_tables().id, Fraction(25), SIZE, 2**40)
    payload = TransformCoder(load_transform_tables()).encode([np.zeros((4, 60), np.int32)])
    with ContainerWriter(tmp_path / "a.iwc", header) as writer:
        writer.write_source(SourcePacket(0, SourceEncoder(SIZE).add(picture(80))))
        writer.write_motion(MotionPacket(0, 4, None, payload, (Run(0, 4),), scale=78))
        writer.write_motion(MotionPacket(2**39, 4, None, payload, (Run(0, 4),), scale=78))
    with IwcFile(tmp_path / "a.iwc", StubRuntime()) as file:
        count = sum(1 for _ in all_pictures(file))
    assert count < 256 * (tmp_path / "a.iwc").stat().st_size / 8


def test_seeking_in_a_recorded_call_with_many_sources(tmp_path: Path) -> None:
    """Frames that use old sources are decoded alike from the start and from the middle."""
    header = Header(
        "stub", b"stubstub", 20, Quantiser.step_xy, Quantiser.step_strength, load_tables().id, Fraction(25), SIZE, 0
    )
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False, fit=False, message_frames=5))
    with ContainerWriter(tmp_path / "call.iwc", header) as writer:
        for n in range(200):
            if n % 3 == 0:
                writer.write_source(encoder.add_source(picture(40 + n)))
            for packet in encoder.push_keypoints(StubRuntime().detect(picture(60)), reference_source=4):
                assert isinstance(packet, MotionPacket)
                writer.write_motion(packet)
    with IwcFile(tmp_path / "call.iwc", StubRuntime()) as file:
        frames, late = list(file.frames()), list(file.frames(start=190))
    assert [frame.number for frame in frames] == list(range(200))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(late, frames[190:], strict=True))


def test_filling_gaps_is_bounded() -> None:
    frames = iter([Frame(0, plain((1, 1, 1))), Frame(2**40, plain((2, 2, 2)))])
    assert len(list(fill_gaps(frames, 5))) == 1
