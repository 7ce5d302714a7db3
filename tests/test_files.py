"""Whole files, there and back."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from circling import COUNT, PICTURES
from iwcodec import framing, media, ratecontrol
from iwcodec.container import ContainerReader, ContainerWriter, Header
from iwcodec.decoder import Decoder, Frame
from iwcodec.encoder import Encoder, EncoderSettings
from iwcodec.errors import CodecError, FormatError, MediaError, NoFaceError, VersionError
from iwcodec.files import EncodeOptions, IwcFile, decode, encode, filled, frame_input, held_to_the_end
from iwcodec.library import CAPACITY
from iwcodec.media import AUDIO_RATE, probe, read_samples, read_video
from iwcodec.motion import MotionCoder, Quantiser
from iwcodec.motion_tables import load_tables
from iwcodec.motion_transform import TransformCoder
from iwcodec.packets import MotionPacket, Run, SourcePacket
from iwcodec.quality import psnr
from iwcodec.sources import SourceEncoder
from iwcodec.transform_tables import load_transform_tables
from media_fixtures import grey_ramp, plain, tone, write_clip
from stub_runtime import SIZE, StubRuntime, picture


def test_report_adds_up(face_clip: Path, tmp_path: Path):
    target = tmp_path / "a.iwc"
    report = encode(face_clip, target, EncodeOptions(sources=2, verify=True))
    assert report.frames == probe(face_clip).frames
    assert report.sources == 2
    parts = [report.bytes[k] for k in ("sources", "motion", "audio", "container")]
    assert sum(parts) == report.bytes["total"] == target.stat().st_size
    assert all(part > 0 for part in parts)
    assert report.kbps["video"] == pytest.approx(
        (report.bytes["total"] - report.bytes["audio"]) * 8 / 1000 / report.duration_s, rel=1e-2
    )
    assert report.psnr_db is not None
    assert report.psnr_db > 15
    assert report.copy_psnr_db is not None


def test_decoded_file_has_every_frame_and_the_sound(iwc_file: Path, face_clip: Path, tmp_path: Path):
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


def test_lossless_output_is_what_the_decoder_made(iwc_file: Path, tmp_path: Path):
    target = tmp_path / "a.mkv"
    decode(iwc_file, target)
    with IwcFile(iwc_file) as file:
        made = [frame.picture for frame in file.frames()]
    stored = [frame.picture for frame in read_video(target)]
    assert len(made) == len(stored)
    assert all(np.array_equal(a, b) for a, b in zip(made, stored, strict=True))


def test_streaming_equals_the_file(iwc_file: Path):
    """Packets pushed one by one into a Decoder of one's own give the file's pictures, bit for bit."""
    with IwcFile(iwc_file) as file:
        expected = [frame.picture for frame in file.frames()]
        decoder = Decoder(file.runtime, active=file.header.active, dead_zone=file.header.dead_zone / 10)
        with_reader = [p for p in ContainerReader(iwc_file).records() if isinstance(p, SourcePacket | MotionPacket)]
        streamed = [frame.picture for packet in with_reader for frame in decoder.push(packet)]
    assert len(streamed) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(streamed, expected, strict=True))


def test_small_shifts_are_left_out_as_the_file_says(iwc_file: Path):
    shown = []
    for zone in (0, 50):
        with IwcFile(iwc_file) as file:
            file.header = replace(file.header, dead_zone=zone)
            pictures = [frame.picture for frame, _ in zip(file.frames(), range(12), strict=False)]
            shown.append(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairwise(pictures)]))
    assert 0 < shown[1] < shown[0]  # less moves


def test_live_encoder_makes_its_own_sources(face_clip: Path, iwc_file: Path):
    with IwcFile(iwc_file) as file:
        runtime = file.runtime
    encoder = Encoder(runtime, EncoderSettings(message_frames=4))
    decoder = Decoder(runtime)
    pictures = [np.ascontiguousarray(f.picture[:256, 180:436]) for f in read_video(face_clip)][:10]
    packets = [p for picture in pictures for p in encoder.push(picture)] + encoder.flush()
    assert isinstance(packets[0], SourcePacket)
    assert [p.count for p in packets if isinstance(p, MotionPacket)] == [4, 4, 2]
    frames = [frame for packet in packets for frame in decoder.push(packet)]
    assert [frame.number for frame in frames] == list(range(10))
    assert psnr(frames[0].picture, pictures[0]) > 20


def test_larger_pictures_through_a_file(face_clip: Path, tmp_path: Path):
    """A model with an up block: sources, file and rebuilt pictures of 512, on the attention grid of one for 256."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from dataclasses import replace

    from iwcodec.inspection import inspect
    from iwcodec.models.config import TINY
    from iwcodec.models.export import export
    from iwcodec.models.network import ImplicitWarp
    from iwcodec.models.runtime import OnnxRuntime

    small, large = ImplicitWarp(replace(TINY, size=256)), ImplicitWarp(replace(TINY, size=512, up_blocks=1))
    large.load_state_dict(small.state_dict(), strict=False)
    export(small.eval(), "tiny-256", tmp_path)
    export(large.eval(), "tiny-512", tmp_path, "tiny-256")
    runtime, target = OnnxRuntime("tiny-512", 1, tmp_path), tmp_path / "a.iwc"
    report = encode(face_clip, target, EncodeOptions(size=512, sources=2, verify=True), runtime)
    assert report.size == inspect(target).size == 512
    assert inspect(target).model == "tiny-512"
    assert report.psnr_db is not None
    assert report.psnr_db > 15
    decode(target, tmp_path / "a.mkv", runtime=runtime)
    assert (probe(tmp_path / "a.mkv").width, probe(tmp_path / "a.mkv").height) == (512, 512)
    other = OnnxRuntime("tiny-256", 1, tmp_path)
    with pytest.raises(VersionError, match="tiny-512"):
        IwcFile(target, other)
    with pytest.raises(CodecError, match="not 512"):
        encode(face_clip, tmp_path / "b.iwc", EncodeOptions(size=512), other)


def test_the_size_chooses_the_model(monkeypatch: pytest.MonkeyPatch):
    from iwcodec import files

    monkeypatch.setattr(files, "load_runtime", lambda name, threads: (name, threads))
    assert files.load_runtime_for(512, 1) == ("lite-512", 1)
    monkeypatch.undo()
    with pytest.raises(CodecError, match="no model for pictures of 640 pixels"):
        files.load_runtime_for(640)


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


def test_flash_and_beep_stay_together(tmp_path: Path):
    """A flash and a beep at 0.8 s: through the file and out again within 40 ms of each other."""
    fps, at = 25, 20
    pictures = [plain((255, 255, 255) if n == at else (30, 30, 30), 64, 64) for n in range(40)]
    sound = np.zeros(int(1.6 * 44_100), np.float32)
    start = int(at / fps * 44_100)
    sound[start : start + 4410] = tone(0.1)
    clip = write_clip(tmp_path / "flash.mp4", pictures, fps=fps, sound=sound)
    encode(clip, tmp_path / "f.iwc", EncodeOptions(sources=2, crop="none"))
    decode(tmp_path / "f.iwc", tmp_path / "f.mkv")
    out = np.abs(np.concatenate(list(read_samples(tmp_path / "f.mkv"))).astype(np.int32))
    beep = np.argmax(out > 2000) / AUDIO_RATE
    assert abs(beep - at / fps) < 0.04
    assert sum(1 for _ in read_video(tmp_path / "f.mkv")) == 40


def test_truncated_file_plays_what_is_there(iwc_file: Path, tmp_path: Path):
    data = iwc_file.read_bytes()
    cut = tmp_path / "cut.iwc"
    cut.write_bytes(data[: int(len(data) * 0.9)])
    report = decode(cut, tmp_path / "cut.mkv")
    assert report.truncated
    assert report.frames > 0


def test_file_of_nothing_but_a_header(iwc_file: Path, tmp_path: Path):
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


def test_damaged_motion_repeats_the_last_picture(iwc_file: Path, tmp_path: Path):
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


def stub_file(path: Path, lost: tuple[type, int] | None = None) -> Path:
    """12 frames in messages of 4, all led by the first of three sources; the n-th packet of a kind is damaged."""
    levels = [np.zeros((4, 60), np.int32)]
    payload = TransformCoder(load_transform_tables()).encode(levels)
    coder = SourceEncoder(SIZE)
    # Frames that are not known keep each in a record of its own.
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
        wanted = (sources if kind is SourcePacket else motion)[number].to_bytes()
        data = bytearray(path.read_bytes())
        at = data.find(wanted)
        data[at + len(wanted) - 1] ^= 1
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_damaged_message_costs_its_own_frames_alone(number: int, tmp_path: Path):
    report = decode(stub_file(tmp_path / "a.iwc", (MotionPacket, number)), tmp_path / "a.mkv", runtime=StubRuntime())
    assert report.frames == 12
    assert len(report.damage) == 1
    assert "motion" in report.damage[0]


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
        monkeypatch.setattr("iwcodec.files.MOST_DAMAGE", 4)
        for number in range(9):
            file._note("source", number, FormatError("It is damaged."))
        assert len(file.bad) == 4


def test_what_leaves_nothing_is_named(tmp_path: Path):
    with pytest.raises(FormatError, match="source record 1"):
        decode(stub_file(tmp_path / "a.iwc", (SourcePacket, 0)), tmp_path / "a.mkv", runtime=StubRuntime())
    data = stub_file(tmp_path / "b.iwc").read_bytes()
    with ContainerReader(tmp_path / "b.iwc") as reader:
        (tmp_path / "b.iwc").write_bytes(data[: reader._start + 5])
    with pytest.raises(FormatError, match="truncated"):
        decode(tmp_path / "b.iwc", tmp_path / "b.mkv", runtime=StubRuntime())


def test_the_model_that_is_needed_is_named_where_none_has_the_size(tmp_path: Path):
    with pytest.raises(VersionError, match="needs the model stub"):
        IwcFile(stub_file(tmp_path / "a.iwc"))


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


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("rate", [{"kbps": 4.0}, {"quality_db": 30.0}])
def test_a_clip_of_a_moment_has_a_rate_too(frames: int, rate: dict[str, float], tmp_path: Path):
    clip = write_clip(tmp_path / "short.mp4", PICTURES[:frames], fps=25)
    options = EncodeOptions(SIZE, crop="none", audio=False, **rate)
    assert encode(clip, tmp_path / "a.iwc", options, StubRuntime()).frames == frames


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
            for packet in encoder.push_keypoints(StubRuntime().detect(picture(60)), leader=4):
                assert isinstance(packet, MotionPacket)
                writer.write_motion(packet)
    with IwcFile(tmp_path / "call.iwc", StubRuntime()) as file:
        frames, late = list(file.frames()), list(file.frames(start=190))
    assert [frame.number for frame in frames] == list(range(200))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(late, frames[190:], strict=True))


def test_filled_is_bounded_whatever_the_numbers_say():
    frames = iter([Frame(0, plain((1, 1, 1))), Frame(2**40, plain((2, 2, 2)))])
    assert len(list(filled(frames, 5))) == 1


def test_other_models_files_are_refused(iwc_file: Path, tmp_path: Path):
    data = iwc_file.read_bytes()
    with IwcFile(iwc_file) as file:
        digest = file.header.model_digest
    assert digest in data
    # The header is protected by a checksum, so that a changed digest shows as damage, not as another model:
    forged = tmp_path / "forged.iwc"
    forged.write_bytes(data.replace(digest, bytes(8), 1))
    with pytest.raises(FormatError):
        decode(forged, tmp_path / "x.mkv")
    with IwcFile(iwc_file) as file:
        from dataclasses import replace

        from iwcodec.files import check_model

        with pytest.raises(VersionError, match="lite-256"):
            check_model(replace(file.header, model_digest=bytes(8)), file.runtime.info)


def test_no_face_names_the_way_out(tmp_path: Path):
    clip = write_clip(tmp_path / "grey.mp4", grey_ramp(12, 96, 64))
    with pytest.raises(NoFaceError, match="--crop none"):
        encode(clip, tmp_path / "x.iwc")
    assert not list(tmp_path.glob("x.iwc*"))
    assert encode(clip, tmp_path / "x.iwc", EncodeOptions(crop="none", sources=1)).frames == 12


def test_a_square_video_is_taken_whole_after_one_look_that_finds_a_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks: list[int] = []

    class Detector:
        def detect(self, picture: np.ndarray) -> list[framing.Face]:
            looks.append(len(looks))
            return [framing.Face(8, 8, 16, 16, 0.9)] if len(looks) == 2 else []

    monkeypatch.setattr(framing, "FaceDetector", Detector)
    clip = write_clip(tmp_path / "square.mp4", grey_ramp(25, 64, 64))
    video = frame_input(clip, EncodeOptions(), lambda name, share: None)
    assert set(video.crops) == {framing.Crop(0, 0, 64)}
    assert len(looks) == 2
    looks += [0, 0]
    with pytest.raises(NoFaceError):
        frame_input(clip, EncodeOptions(), lambda name, share: None)


def test_face_that_leaves_and_returns(face_clip: Path, tmp_path: Path):
    faces = [frame.picture for frame in read_video(face_clip)][:12]
    grey = [plain((120, 120, 120), faces[0].shape[1], faces[0].shape[0])] * 12
    clip = write_clip(tmp_path / "gone.mp4", [*faces, *grey, *faces], fps=24)
    report = encode(clip, tmp_path / "gone.iwc", EncodeOptions(verify=True))
    assert report.frames == 36
    assert report.psnr_db is not None
    assert report.psnr_db > 18


def test_output_exists_needs_force(iwc_file: Path, tmp_path: Path):
    target = tmp_path / "there.mp4"
    target.write_text("precious")
    with pytest.raises(MediaError, match="-f"):
        decode(iwc_file, target)
    assert target.read_text() == "precious"
    decode(iwc_file, target, overwrite=True)
    assert target.stat().st_size > 1000


def test_impossible_targets(face_clip: Path, tmp_path: Path):
    with pytest.raises(MediaError, match="folder"):
        encode(face_clip, tmp_path)
    with pytest.raises(MediaError, match="does not exist"):
        encode(face_clip, tmp_path / "nowhere" / "x.iwc")
    with pytest.raises(CodecError, match="640"):
        encode(face_clip, tmp_path / "x.iwc", EncodeOptions(size=640))


def test_a_failed_encode_leaves_nothing(face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from iwcodec import files

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_streams", broken)
    with pytest.raises(KeyboardInterrupt):
        encode(face_clip, tmp_path / "x.iwc", EncodeOptions(sources=1))
    assert list(tmp_path.iterdir()) == []


def test_variable_frame_rate_keeps_its_length(face_clip: Path, tmp_path: Path):
    pictures = [frame.picture for frame in read_video(face_clip)][:12]
    times = np.cumsum([0.0] + [0.04, 0.12] * 6)[:12]
    clip = write_clip(tmp_path / "vfr.mp4", pictures, list(times))
    report = encode(clip, tmp_path / "v.iwc", EncodeOptions(sources=1))
    assert report.duration_s == pytest.approx(times[-1] + 0.08, abs=0.15)


def test_source_count_and_bitrate(face_clip: Path, tmp_path: Path):
    few = encode(face_clip, tmp_path / "a.iwc", EncodeOptions(sources=1))
    more = encode(face_clip, tmp_path / "b.iwc", EncodeOptions(sources=4))
    assert (few.sources, more.sources) == (1, 4)
    assert few.bytes["sources"] < more.bytes["sources"]


def test_a_bitrate_holds_for_a_number_of_sources_too(face_clip: Path, tmp_path: Path):
    rates = []
    for kbps in (12.0, 30.0):
        options = EncodeOptions(sources=2, kbps=kbps, audio=False, overwrite=True)
        report = encode(face_clip, tmp_path / "a.iwc", options)
        assert report.sources == 2
        rates.append(report.kbps["video"])
        assert 0.8 * kbps < rates[-1] < 1.05 * kbps
    assert rates[0] < rates[1]


def test_a_quality_is_had(face_clip: Path, tmp_path: Path):
    """By sending more real frames: this network has no other way."""
    sizes = []
    for wanted_db in (18.0, 30.0):
        options = EncodeOptions(SIZE, quality_db=wanted_db, verify=True, audio=False, overwrite=True)
        report = encode(face_clip, tmp_path / "a.iwc", options, StubRuntime())
        assert report.psnr_db is not None
        assert report.psnr_db > wanted_db - 1
        sizes.append(report.bytes["total"])
    assert sizes[0] < sizes[1]


def test_odd_rates_survive(face_clip: Path, tmp_path: Path):
    pictures = [frame.picture for frame in read_video(face_clip)][:6]
    clip = write_clip(tmp_path / "ntsc.mp4", pictures, fps=Fraction(30_000, 1001))
    encode(clip, tmp_path / "n.iwc", EncodeOptions(sources=1))
    with IwcFile(tmp_path / "n.iwc") as file:
        assert file.header.fps == Fraction(30_000, 1001)


def test_media_errors_pass_through(tmp_path: Path):
    for name, content in (("empty.mp4", b""), ("noise.mp4", b"not a video" * 50)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError):
            encode(tmp_path / name, tmp_path / "x.iwc")
    with pytest.raises(MediaError):
        encode(tmp_path / "missing.mp4", tmp_path / "x.iwc")
    with pytest.raises(MediaError):
        IwcFile(tmp_path / "missing.iwc")
    assert media.WRITABLE
