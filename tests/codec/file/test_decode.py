"""Decoding .iwc files into video files."""

from pathlib import Path

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import FormatError, MediaError
from iwcodec.codec.file.decode import decode
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.media.audio.samples import read_samples
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.media.video import probe, read_video
from support.codec.stub_file import stub_file
from support.codec.stub_runtime import SIZE, StubRuntime
from support.media.clips import plain, tone, write_clip


def test_the_output_has_every_frame_and_the_sound(iwc_file: Path, face_clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.mkv"
    report = decode(iwc_file, target)
    before, after = probe(face_clip), probe(target)
    assert report.frames == before.frames
    assert (after.width, after.height, after.fps) == (256, 256, before.fps)
    assert not report.truncated
    assert report.damage == []
    sound = np.concatenate(list(read_samples(target)))
    assert len(sound) == pytest.approx(report.duration_s * AUDIO_RATE, abs=AUDIO_RATE * 0.04)
    assert np.abs(sound).max() > 5000


def test_lossless_output_equals_the_decoded_pictures(iwc_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.mkv"
    decode(iwc_file, target)
    with IwcFile(iwc_file) as file:
        decoded = [frame.picture for frame in file.frames()]
    stored = [frame.picture for frame in read_video(target)]
    assert len(decoded) == len(stored)
    assert all(np.array_equal(a, b) for a, b in zip(decoded, stored, strict=True))


def test_a_flash_and_a_beep_stay_in_sync(tmp_path: Path) -> None:
    """Both at 0.8 s; after encoding and decoding within 40 ms of each other."""
    fps, at = 25, 20
    pictures = [plain((255, 255, 255) if n == at else (30, 30, 30), 64, 64) for n in range(40)]
    sound = np.zeros(int(1.6 * 44_100), np.float32)
    start = int(at / fps * 44_100)
    sound[start : start + 4410] = tone(0.1)
    clip = write_clip(tmp_path / "flash.mp4", pictures, fps=fps, sound=sound)
    encode(clip, tmp_path / "f.iwc", EncodeOptions(SIZE, sources=2, effort=0, crop="none"), StubRuntime())
    decode(tmp_path / "f.iwc", tmp_path / "f.mkv", runtime=StubRuntime())
    out = np.abs(np.concatenate(list(read_samples(tmp_path / "f.mkv"))).astype(np.int32))
    beep = np.argmax(out > 2000) / AUDIO_RATE
    assert abs(beep - at / fps) < 0.04
    assert sum(1 for _ in read_video(tmp_path / "f.mkv")) == 40


def test_a_truncated_file_is_decoded_as_far_as_possible(iwc_file: Path, tmp_path: Path) -> None:
    data = iwc_file.read_bytes()
    cut = tmp_path / "cut.iwc"
    cut.write_bytes(data[: int(len(data) * 0.9)])
    report = decode(cut, tmp_path / "cut.mkv")
    assert report.truncated
    assert report.frames > 0


def test_a_file_with_only_a_header_is_refused(iwc_file: Path, tmp_path: Path) -> None:
    reader = ContainerReader(iwc_file)
    first = next(iter(reader.records()))
    assert isinstance(first, SourcePacket)
    reader.close()
    size = iwc_file.read_bytes().find(first.payload)
    cut = tmp_path / "cut.iwc"
    cut.write_bytes(iwc_file.read_bytes()[: size - 8])
    with pytest.raises(FormatError):
        decode(cut, tmp_path / "cut.mkv")
    assert not list(tmp_path.glob("cut.mkv*"))


def test_damaged_motion_is_reported(iwc_file: Path, tmp_path: Path) -> None:
    data = bytearray(iwc_file.read_bytes())
    packets = [p for p in ContainerReader(iwc_file).records() if isinstance(p, MotionPacket)]
    at = data.find(packets[0].payload[:12])
    data[at + 5] ^= 0x10
    broken = tmp_path / "broken.iwc"
    broken.write_bytes(bytes(data))
    if len(packets) == 1:
        with pytest.raises(FormatError):
            decode(broken, tmp_path / "b.mkv")
    else:
        report = decode(broken, tmp_path / "b.mkv")
        assert len(report.damage) == 1
        assert "motion" in report.damage[0]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_damaged_message_costs_only_its_own_frames(number: int, tmp_path: Path) -> None:
    report = decode(stub_file(tmp_path / "a.iwc", (MotionPacket, number)), tmp_path / "a.mkv", runtime=StubRuntime())
    assert report.frames == 12
    assert len(report.damage) == 1
    assert "motion" in report.damage[0]


def test_the_error_says_why_nothing_can_be_decoded(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="source record 1"):
        decode(stub_file(tmp_path / "a.iwc", (SourcePacket, 0)), tmp_path / "a.mkv", runtime=StubRuntime())
    data = stub_file(tmp_path / "b.iwc").read_bytes()
    with ContainerReader(tmp_path / "b.iwc") as reader:
        (tmp_path / "b.iwc").write_bytes(data[: reader._start + 5])
    with pytest.raises(FormatError, match="truncated"):
        decode(tmp_path / "b.iwc", tmp_path / "b.mkv", runtime=StubRuntime())


def test_an_existing_output_is_kept_unless_overwritten(iwc_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.mp4"
    target.write_text("precious")
    with pytest.raises(MediaError, match="-f"):
        decode(iwc_file, target)
    assert target.read_text() == "precious"
    decode(iwc_file, target, overwrite=True)
    assert target.stat().st_size > 1000
