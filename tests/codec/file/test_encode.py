"""Encoding video files into .iwc files."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from iwcodec.codec.bitstream.info import inspect
from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import CodecError, MediaError, NoFaceError, VersionError
from iwcodec.codec.file.clip import Clip
from iwcodec.codec.file.decode import decode
from iwcodec.codec.file.encode import MAX_CODINGS, code_to_quality, encode, sound_warnings
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.media import writer
from iwcodec.codec.media.audio.opus_track import read_audio_opus
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import probe, read_video, sample_clip
from support.codec.circling import PICTURES
from support.codec.stub_runtime import SIZE, StubRuntime
from support.media.clips import grey_ramp, plain, write_clip

pytestmark = pytest.mark.usefixtures("no_fit")


def first_pictures(clip: Path, count: int) -> list[Picture]:
    return [frame.picture for frame in itertools.islice(read_video(clip), count)]


def test_the_report_adds_up(face_clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.iwc"
    report = encode(
        face_clip, target, EncodeOptions(SIZE, sources=2, tune="psnr", effort=0, verify=True), StubRuntime()
    )
    assert report.frames == probe(face_clip).frames
    assert report.sources == 2
    kinds = [report.bytes[kind] for kind in ("sources", "motion", "audio", "container")]
    assert sum(kinds) == report.bytes["total"] == target.stat().st_size
    assert all(count > 0 for count in kinds)
    assert report.variants == 0
    assert inspect(target).quality == {
        "psnr_db": pytest.approx(report.psnr_db, abs=0.006),
        "worst_psnr_db": pytest.approx(report.worst_psnr_db, abs=0.006),
        "worst_at_s": pytest.approx(report.worst_at_s, abs=0.002),
    }
    with ContainerReader(target) as reader:
        assert not any(packet.regions for packet in reader.records() if isinstance(packet, MotionPacket))
    assert report.kbps["video"] == pytest.approx(
        (report.bytes["total"] - report.bytes["audio"]) * 8 / 1000 / report.duration_s, rel=1e-2
    )
    assert report.psnr_db > 15
    assert report.copy_psnr_db is not None


def test_pictures_of_512_are_encoded_and_decoded(face_clip: Path, tmp_path: Path) -> None:
    """With a model with an up block: sources and decoded pictures of 512, on the attention grid of 256."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")

    from iwcodec.models.export.export import export
    from iwcodec.models.network.config import TINY
    from iwcodec.models.network.network import ImplicitWarp
    from iwcodec.models.runtime.onnx import OnnxRuntime

    small, large = ImplicitWarp(replace(TINY, size=256)), ImplicitWarp(replace(TINY, size=512, up_blocks=1))
    large.load_state_dict(small.state_dict(), strict=False)
    export(small.eval(), "tiny-256", tmp_path)
    export(large.eval(), "tiny-512", tmp_path, "tiny-256")
    runtime, target = OnnxRuntime("tiny-512", 1, tmp_path), tmp_path / "a.iwc"
    clip = write_clip(tmp_path / "short.mp4", first_pictures(face_clip, 3), fps=24)
    report = encode(clip, target, EncodeOptions(size=512, sources=2, effort=0, verify=True), runtime)
    assert report.size == inspect(target).size == 512
    assert inspect(target).model == "tiny-512"
    assert report.psnr_db > 15
    decode(target, tmp_path / "a.mkv", runtime=runtime)
    assert (probe(tmp_path / "a.mkv").width, probe(tmp_path / "a.mkv").height) == (512, 512)
    other = OnnxRuntime("tiny-256", 1, tmp_path)
    with pytest.raises(VersionError, match="tiny-512"):
        IwcFile(target, other)
    with pytest.raises(CodecError, match="not 512"):
        encode(clip, tmp_path / "b.iwc", EncodeOptions(size=512), other)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("rate", [{"kbps": 4.0}, {"quality_db": 30.0}])
def test_very_short_clips_can_have_a_rate_or_a_quality(frames: int, rate: dict[str, float], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "short.mp4", PICTURES[:frames], fps=25)
    options = EncodeOptions(SIZE, crop="none", audio=False, **rate)
    assert encode(clip, tmp_path / "a.iwc", options, StubRuntime()).frames == frames


@pytest.mark.parametrize("rate", [{}, {"kbps": 4.0}, {"quality_db": 15.0}])
def test_very_short_clips_can_be_tuned_for_the_face(rate: dict[str, float], tmp_path: Path) -> None:
    """Too short for any variant."""
    clip, target = write_clip(tmp_path / "short.mp4", PICTURES[:5], fps=25), tmp_path / "a.iwc"
    options = EncodeOptions(SIZE, crop="none", audio=False, tune="face", **rate)
    assert encode(clip, target, options, StubRuntime()).variants == 0
    with IwcFile(target, StubRuntime()) as file:
        assert [frame.number for frame in file.frames()] == list(range(5))
        assert file.damage == []


@pytest.mark.parametrize("rate", [{}, {"sources": 1}])
def test_a_clip_whose_keypoints_miss_the_face_is_coded_as_any_picture(
    rate: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iwcodec.codec.file.clip.MOST_WRONG", -1.0)
    clip, files = write_clip(tmp_path / "short.mp4", PICTURES[:5], fps=25), []
    for tune in ("face", "psnr"):
        options = EncodeOptions(SIZE, crop="none", audio=False, tune=tune, **rate)
        encode(clip, tmp_path / f"{tune}.iwc", options, StubRuntime())
        files.append((tmp_path / f"{tune}.iwc").read_bytes())
    assert files[0] == files[1]


def test_a_clip_without_a_face_can_be_tuned_for_one(tmp_path: Path) -> None:
    """Its keypoints are all in the same place."""
    clip, target = write_clip(tmp_path / "slow.mp4", PICTURES[:30], fps=1), tmp_path / "a.iwc"
    report = encode(clip, target, EncodeOptions(SIZE, crop="none", audio=False, tune="face"), StubRuntime())
    with IwcFile(target, StubRuntime()) as file:
        assert len(list(file.frames())) == report.frames == 30
        assert file.damage == []


def test_the_error_of_no_face_suggests_a_crop(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "grey.mp4", grey_ramp(12, 96, 64))
    with pytest.raises(NoFaceError, match="--crop none"):
        encode(clip, tmp_path / "x.iwc")
    assert not list(tmp_path.glob("x.iwc*"))
    assert encode(clip, tmp_path / "x.iwc", EncodeOptions(SIZE, crop="none"), StubRuntime()).frames == 12


def test_a_face_that_leaves_and_returns(face_clip: Path, tmp_path: Path) -> None:
    faces = first_pictures(face_clip, 12)
    grey = [plain((120, 120, 120), faces[0].shape[1], faces[0].shape[0])] * 12
    clip = write_clip(tmp_path / "gone.mp4", [*faces, *grey, *faces], fps=24)
    report = encode(clip, tmp_path / "gone.iwc", EncodeOptions(SIZE, verify=True), StubRuntime())
    assert report.frames == 36
    assert report.psnr_db > 18


def test_impossible_outputs_and_sizes_are_refused(face_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="folder"):
        encode(face_clip, tmp_path)
    with pytest.raises(MediaError, match="does not exist"):
        encode(face_clip, tmp_path / "nowhere" / "x.iwc")
    with pytest.raises(CodecError, match="640"):
        encode(face_clip, tmp_path / "x.iwc", EncodeOptions(size=640))


def test_a_failed_encode_leaves_nothing(face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("iwcodec.codec.file.encode.write_streams", broken)
    with pytest.raises(KeyboardInterrupt):
        encode(face_clip, tmp_path / "x.iwc", EncodeOptions(SIZE, sources=1), StubRuntime())
    assert list(tmp_path.iterdir()) == []


def test_a_variable_frame_rate_keeps_the_duration(face_clip: Path, tmp_path: Path) -> None:
    pictures = first_pictures(face_clip, 12)
    times = np.cumsum([0.0] + [0.04, 0.12] * 6)[:12]
    clip = write_clip(tmp_path / "vfr.mp4", pictures, list(times))
    report = encode(clip, tmp_path / "v.iwc", EncodeOptions(SIZE, sources=1), StubRuntime())
    assert report.duration_s == pytest.approx(times[-1] + 0.08, abs=0.15)


def test_a_quality_is_reached(tmp_path: Path) -> None:
    """By more sources: the stub network has no other way."""
    clip, sizes = write_clip(tmp_path / "short.mp4", first_pictures(sample_clip(), 32)[::4], fps=8), []
    for quality_db in (18.0, 30.0):
        options = EncodeOptions(SIZE, quality_db=quality_db, effort=0, verify=True, audio=False, overwrite=True)
        report = encode(clip, tmp_path / "a.iwc", options, StubRuntime())
        assert report.psnr_db > quality_db - 1
        sizes.append(report.bytes["total"])
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("start", [2.0, 4.0, 20.0])
@pytest.mark.parametrize("doubling_db", [1.5, 2.5, 4.0])
def test_a_clip_is_coded_until_its_quality_is_the_one_asked_for(
    start: float, doubling_db: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded: list[float] = []

    def code(clip: Any) -> Any:
        coded.append(clip.options.kbps)
        return clip.options.kbps, 0

    def quality(kbps: float, originals: object, runtime: object) -> float:
        return 30 + doubling_db * math.log2(kbps / 5)

    monkeypatch.setattr("iwcodec.codec.file.encode.stream_quality", quality)
    video: Any = SimpleNamespace(pictures=lambda: iter(PICTURES[:5]))
    survey: Any = SimpleNamespace(keypoints=[None] * 5)
    clip = Clip(video, survey, StubRuntime(), EncodeOptions(SIZE, kbps=start))
    rate: Any = code_to_quality(clip, 30.0, code)[0]
    assert coded[0] == start
    assert len(coded) <= MAX_CODINGS
    assert rate in coded
    assert 0.9 * 5 <= rate <= 1.25 * 5


def test_a_fractional_frame_rate_is_kept(face_clip: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "ntsc.mp4", first_pictures(face_clip, 6), fps=Fraction(30_000, 1001))
    encode(clip, tmp_path / "n.iwc", EncodeOptions(SIZE, sources=1), StubRuntime())
    with IwcFile(tmp_path / "n.iwc", StubRuntime()) as file:
        assert file.header.fps == Fraction(30_000, 1001)


def test_unreadable_inputs_raise_media_errors(tmp_path: Path) -> None:
    for name, content in (("empty.mp4", b""), ("noise.mp4", b"not a video" * 50)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError):
            encode(tmp_path / name, tmp_path / "x.iwc")
    with pytest.raises(MediaError):
        encode(tmp_path / "missing.mp4", tmp_path / "x.iwc")
    with pytest.raises(MediaError):
        IwcFile(tmp_path / "missing.iwc")
    assert writer.WRITABLE


def test_sound_that_cannot_be_decoded_is_reported(tmp_path: Path) -> None:
    """In joined recordings the second part may have another format."""
    parts = []
    for name, codec in (("1.ts", "mp2"), ("2.ts", "aac")):
        with av.open(str(tmp_path / name), "w") as out:
            sound = out.add_stream(codec, rate=48_000)
            sound.layout = "mono"
            video = out.add_stream("mpeg2video", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for n in range(25):
                video_frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * n, np.uint8), format="rgb24")
                out.mux(video.encode(video_frame))
                block = np.full((1, 1920), 1000, np.int16)
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 48_000, 1920 * n
                out.mux(sound.encode(frame))
            out.mux(video.encode(None))
            out.mux(sound.encode(None))
        parts.append((tmp_path / name).read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    track = read_audio_opus(path)
    assert sound_warnings(path, track) == []
    assert list(track)
    (warning,) = sound_warnings(path, track)
    assert "packets of the sound of joined.ts cannot be decoded" in warning
    assert sound_warnings(path, None) == []
