"""Files from the beginning, from the middle, and damaged."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from circling import COUNT, PICTURES
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import MotionPacket, Run, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.decoder import Decoder, Frame
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.errors import FormatError
from iwcodec.codec.file import rate_control as ratecontrol
from iwcodec.codec.file.clip import EncodeOptions
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile, filled, held_to_the_end
from iwcodec.codec.motion.predictive_coder import MotionCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.library import CAPACITY
from media_fixtures import plain, write_clip
from stub_file import stub_file
from stub_runtime import SIZE, StubRuntime, picture


def test_streaming_equals_the_file(iwc_file: Path):
    """Packets pushed one by one into a Decoder of one's own give the file's pictures, bit for bit."""
    with IwcFile(iwc_file) as file:
        expected = [frame.picture for frame in file.frames()]
        decoder = Decoder(file.runtime, active=file.header.active, suppression=file.header.suppression / 10)
        with_reader = [p for p in ContainerReader(iwc_file).records() if isinstance(p, SourcePacket | MotionPacket)]
        streamed = [frame.picture for packet in with_reader for frame in decoder.push(packet)]
    assert len(streamed) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(streamed, expected, strict=True))


def test_small_shifts_are_left_out_as_the_file_says(iwc_file: Path):
    shown = []
    for zone in (0, 50):
        with IwcFile(iwc_file) as file:
            file.header = replace(file.header, suppression=zone)
            pictures = [frame.picture for frame, _ in zip(file.frames(), range(12), strict=False)]
            shown.append(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairwise(pictures)]))
    assert 0 < shown[1] < shown[0]  # less moves


def test_seeking_gives_the_same_frames(iwc_file: Path):
    with IwcFile(iwc_file) as file:
        frames = list(file.frames())
    with IwcFile(iwc_file) as file:
        late = list(file.frames(start=20))
    assert [f.number for f in late] == list(range(20, len(frames)))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(late, frames[20:], strict=True))


def test_a_stream_of_sources_comes_back_whole_and_from_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of more than a library holds, in which poses come back when their first sources have left."""
    monkeypatch.setattr(ratecontrol, "STRIDES", (2,))
    clip, coded = write_clip(tmp_path / "circling.mp4", PICTURES, fps=25), tmp_path / "a.iwc"
    report = encode(clip, coded, EncodeOptions(SIZE, kbps=16.0, crop="none", audio=False), StubRuntime())
    assert CAPACITY < report.sources < COUNT
    with IwcFile(coded, StubRuntime()) as file:
        frames = list(file.frames())
        late = list(file.frames(start=70))
    assert [frame.number for frame in frames] == list(range(COUNT))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(late, frames[70:], strict=True))


@pytest.mark.parametrize("start", [1, 5000, 48_000, 60_001])
def test_sound_begins_anywhere(start: int, iwc_file: Path):
    """In step with what it is from the beginning on, but for what the decoder would remember."""
    with IwcFile(iwc_file) as file:
        whole = np.concatenate(list(file.samples()))
        part = np.concatenate(list(file.samples(start)))
    assert len(part) == len(whole) - start
    assert np.corrcoef(part, whole[start:])[0, 1] > 0.98  # of a tone of 48 samples: one sample off has 0.99, two 0.96


def test_sources_behind_a_damaged_one_are_lost_and_named(tmp_path: Path):
    with IwcFile(stub_file(tmp_path / "a.iwc", (SourcePacket, 1)), StubRuntime()) as file:
        assert len(list(file.frames())) == 12
        assert "source record 2" in file.damage[0]
        assert file.damage[1].startswith("source 2:")


def test_a_recorded_call_goes_on_with_the_sequence_that_begins_anew(tmp_path: Path):
    """Sources of one sequence, then of another; the second of the first is damaged."""
    path, info, motion = tmp_path / "call.iwc", StubRuntime.info, MotionCoder(load_tables())
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


def test_what_is_refused_is_named_once_however_often_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks at a damaged place for hours neither runs out of memory nor is told of it again."""
    with IwcFile(stub_file(tmp_path / "a.iwc", (SourcePacket, 1)), StubRuntime()) as file:
        for _ in range(3):
            assert len(list(file.frames())) == 12
        assert len(file.damage) == 2
        monkeypatch.setattr("iwcodec.codec.file.iwc_file.MAX_DAMAGE", 4)
        for number in range(9):
            file._note("source", number, FormatError("It is damaged."))
        assert len(file.bad) == 4


def test_filled_repeats_for_missing_frames():
    a, b = plain((1, 1, 1)), plain((2, 2, 2))
    frames = iter([Frame(1, a), Frame(4, b)])
    assert [p[0, 0, 0] for p in filled(frames, 10)] == [1, 1, 1, 1, 2]


def test_a_small_file_is_no_long_film_whatever_its_numbers_say(tmp_path: Path):
    """Alike in the header and in a record, whose checksums are right."""
    header = Header("stub", b"stubstub", 20, 1 / 128, 1 / 32, load_transform_tables().id, Fraction(25), SIZE, 2**40)
    payload = TransformCoder(load_transform_tables()).encode([np.zeros((4, 60), np.int32)])
    with ContainerWriter(tmp_path / "a.iwc", header) as writer:
        writer.write_source(SourcePacket(0, SourceEncoder(SIZE).add(picture(80))))
        writer.write_motion(MotionPacket(0, 4, None, payload, (Run(0, 4),), scale=78))
        writer.write_motion(MotionPacket(2**39, 4, None, payload, (Run(0, 4),), scale=78))
    with IwcFile(tmp_path / "a.iwc", StubRuntime()) as file:
        shown = sum(1 for _ in held_to_the_end(file))
    assert shown < 256 * (tmp_path / "a.iwc").stat().st_size / 8


def test_a_recorded_call_of_many_sources_is_entered_anywhere(tmp_path: Path):
    """What it showed from sources of long ago, it shows again."""
    header = Header(
        "stub", b"stubstub", 20, Quantiser.step_xy, Quantiser.step_strength, load_tables().id, Fraction(25), SIZE, 0
    )
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False, fit=False, message_frames=5))
    with ContainerWriter(tmp_path / "call.iwc", header) as writer:
        for n in range(200):
            if n % 5 == 0:
                writer.write_source(encoder.add_source(picture(40 + n)))
            for packet in encoder.push_keypoints(StubRuntime().detect(picture(60)), reference_source=4):
                assert isinstance(packet, MotionPacket)
                writer.write_motion(packet)
    with IwcFile(tmp_path / "call.iwc", StubRuntime()) as file:
        frames, late = list(file.frames()), list(file.frames(start=190))
    assert [frame.number for frame in frames] == list(range(200))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(late, frames[190:], strict=True))


def test_filled_is_bounded_whatever_the_numbers_say():
    frames = iter([Frame(0, plain((1, 1, 1))), Frame(2**40, plain((2, 2, 2)))])
    assert len(list(filled(frames, 5))) == 1
