from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwcodec.client.audio import opus
from iwcodec.codec.errors import FormatError, MediaError
from iwcodec.codec.media import audio, opus, writer
from iwcodec.codec.media import video as media
from iwcodec.codec.media.audio import read_samples
from iwcodec.codec.media.opus import OpusReader, OpusWriter, read_audio_opus
from iwcodec.codec.media.types import AUDIO_RATE, VideoFrame
from iwcodec.codec.media.video import at_constant_rate, probe, read_video, sample_clip
from iwcodec.codec.media.writer import VideoWriter, check_writable
from media_fixtures import grey_ramp, plain, tone, write_clip

RED, GREEN, BLUE, GREY = (230, 30, 20), (20, 200, 40), (30, 40, 210), (128, 128, 128)


def quarters(width: int = 96, height: int = 64) -> np.ndarray:
    """Red and green above blue and grey."""
    picture = plain(RED, width, height)
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = GREY
    return picture


def corners(picture: np.ndarray) -> list[tuple[int, int, int]]:
    """The nearest of the four colours in each quarter: top left, top right, bottom left, bottom right."""
    height, width = picture.shape[:2]
    found = []
    for y, x in [(1, 1), (1, 3), (3, 1), (3, 3)]:
        pixel = picture[y * height // 4, x * width // 4].astype(int)
        found.append(min((RED, GREEN, BLUE, GREY), key=lambda c: np.abs(pixel - c).sum()))
    return found


def levels(pictures: Iterator[np.ndarray]) -> list[int]:
    """The numbers that grey_ramp's pictures tell."""
    return [round((float(p.mean()) - 20) / 8) for p in pictures]


# ---------------------------------------------------------------------------------------------- reading


def test_a_video_that_is_read_again_and_again_keeps_no_frames(tmp_path: Path) -> None:
    """Not even without the cycle collector, which comes by seldom in a call."""
    clip = write_clip(tmp_path / "large.mp4", [np.full((720, 1280, 3), 90, np.uint8)] * 4)
    list(read_video(clip))
    gc.collect()
    gc.disable()
    try:
        before = resident_mb()
        for _ in range(40):
            list(read_video(clip))
        grown = resident_mb() - before
    finally:
        gc.enable()
    assert grown < 15  # a frame takes 1.4


def resident_mb() -> float:
    psutil = pytest.importorskip("psutil")
    return float(psutil.Process().memory_info().rss) / 2**20


def test_probe_describes_the_sample() -> None:
    info = probe(sample_clip())
    assert (info.width, info.height, info.frames) == (640, 360, 200)
    assert info.fps == Fraction(24000, 1001)
    assert info.audio is None
    assert info.rotation == 0


def test_read_video_delivers_every_picture_in_order() -> None:
    times = []
    for frame in read_video(sample_clip()):
        assert frame.picture.shape == (360, 640, 3)
        assert frame.picture.dtype == np.uint8
        assert frame.picture.flags.c_contiguous
        times.append(frame.time_s)
    np.testing.assert_allclose(times, np.arange(200) * 1001 / 24000, atol=1e-4)


def test_read_video_from_the_middle() -> None:
    first = next(read_video(sample_clip(), start=5.0))
    assert 5.0 - 0.03 < first.time_s < 5.0 + 0.03
    whole = {round(f.time_s, 3): f.picture for f in read_video(sample_clip())}
    np.testing.assert_array_equal(first.picture, whole[round(first.time_s, 3)])


@pytest.mark.parametrize(
    ("turn", "expected", "size"),
    [
        ({"degrees": 0}, [RED, GREEN, BLUE, GREY], (96, 64)),
        ({"degrees": 0, "hflip": True}, [GREEN, RED, GREY, BLUE], (96, 64)),
        ({"degrees": 90}, [GREEN, GREY, RED, BLUE], (64, 96)),
        ({"degrees": 90, "hflip": True}, [GREY, GREEN, BLUE, RED], (64, 96)),
        ({"degrees": 180}, [GREY, BLUE, GREEN, RED], (96, 64)),
        ({"degrees": 180, "hflip": True}, [BLUE, GREY, RED, GREEN], (96, 64)),
        ({"degrees": 270}, [BLUE, RED, GREY, GREEN], (64, 96)),
        ({"degrees": 270, "hflip": True}, [RED, BLUE, GREEN, GREY], (64, 96)),
    ],
)
def test_rotation_and_mirroring_are_applied(tmp_path: Path, turn: dict, expected: list, size: tuple[int, int]) -> None:
    """``degrees`` is counter-clockwise, as FFmpeg counts."""
    path = write_clip(tmp_path / "a.mp4", [quarters()] * 3, prepare=lambda stream: stream.set_display_rotation(**turn))
    info = probe(path)
    assert (info.width, info.height) == size
    assert info.rotation == -turn["degrees"] % 360
    pictures = [frame.picture for frame in read_video(path)]
    assert len(pictures) == 3
    assert pictures[0].shape == (size[1], size[0], 3)
    assert corners(pictures[0]) == expected


def test_pixels_are_made_square(tmp_path: Path) -> None:
    def anamorphic(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = write_clip(tmp_path / "a.mp4", [quarters(96, 64)], prepare=anamorphic)
    assert (probe(path).width, probe(path).height) == (128, 64)
    assert next(read_video(path)).picture.shape == (64, 128, 3)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size"),
    [
        ("a.mp4", "libx264", "yuv444p", (97, 65)),
        ("a.mkv", "ffv1", "bgr0", (33, 31)),
        ("a.mkv", "ffv1", "yuv422p10le", (98, 67)),
        ("a.mkv", "ffv1", "gray", (51, 49)),
        ("a.gif", "gif", "rgb8", (65, 63)),
        ("a.webm", "libvpx-vp9", "yuv420p", (97, 65)),
        ("a.avi", "mjpeg", "yuvj420p", (97, 65)),
    ],
)
def test_any_format_and_odd_sizes(tmp_path: Path, name: str, codec: str, pixels: str, size: tuple[int, int]) -> None:
    source = quarters(*size)
    path = write_clip(tmp_path / name, [source] * 5, codec=codec, pixels=pixels)
    info = probe(path)
    assert (info.width, info.height, info.fps) == (*size, 25)
    pictures = list(at_constant_rate(read_video(path), info.fps))
    assert len(pictures) == 5
    for picture in pictures:
        assert picture.shape == source.shape
        if pixels != "gray":
            assert corners(picture) == [RED, GREEN, BLUE, GREY]


@pytest.mark.parametrize(("matrix", "height"), [(1, 64), (5, 64), (2, 64), (1, 720), (2, 720)])
def test_colours_are_decoded_with_the_matrix_they_were_made_with(tmp_path: Path, matrix: int, height: int) -> None:
    """Codes of ITU-T H.273, table 4; 2, unspecified, means BT.709 from 720 lines on, else BT.601."""
    bt709 = matrix == 1 or (matrix == 2 and height >= 720)
    target = av.video.reformatter.Colorspace.ITU709 if bt709 else av.video.reformatter.Colorspace.ITU601
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv444p"
        stream.codec_context.colorspace = matrix
        frame = av.VideoFrame.from_ndarray(plain(GREEN, 64, height), format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace=target)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    picture = next(read_video(path)).picture
    assert np.abs(picture.astype(int) - GREEN).max() <= 3


def test_a_size_that_changes_on_the_way_is_scaled_to_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    with path.open("wb") as joined:  # transport streams may simply be strung together
        for number, size in enumerate([(96, 64), (48, 32)]):
            part = write_clip(tmp_path / f"{number}.ts", [quarters(*size)] * 4)
            joined.write(part.read_bytes())
    shapes = {frame.picture.shape for frame in read_video(path)}
    assert shapes == {(64, 96, 3)}


def test_tags_in_another_encoding_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "XXXX"
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(plain(RED, 32, 32), format="rgb24")))
        out.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"XXXX", b"\xe9\xff\xfe\x80"))
    assert probe(path).width == 32


# ----------------------------------------------------------------------------------------- constant rate


def frames_at(times: list[float]) -> Iterator[VideoFrame]:
    return (VideoFrame(time, picture) for time, picture in zip(times, grey_ramp(len(times), 4, 4), strict=True))


def test_a_regular_video_passes_unchanged() -> None:
    for fps in (Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001)):
        rounded = [round(float(n / fps), 3) for n in range(25)]  # milliseconds, as Matroska stores them
        assert levels(at_constant_rate(frames_at(rounded), fps)) == list(range(25))


def test_variable_frame_rate_takes_the_nearest_picture() -> None:
    times = [0.0, 0.05, 0.055, 0.06, 0.2, 0.24]
    assert levels(at_constant_rate(frames_at(times), Fraction(25))) == [0, 1, 3, 3, 4, 4, 5]


def test_pictures_that_start_late_leave_no_hole() -> None:
    assert levels(at_constant_rate(frames_at([0.1, 0.14]), Fraction(25))) == [0, 0, 0, 0, 1]


def test_repeats_are_the_same_object() -> None:
    pictures = list(at_constant_rate(frames_at([0.0, 0.2]), Fraction(25)))
    assert pictures[0] is pictures[1]
    assert pictures[0] is not pictures[-1]


def test_grid_may_begin_later() -> None:
    times = [n / 25 for n in range(10)]
    assert levels(at_constant_rate(frames_at(times), Fraction(25), start=0.2)) == [5, 6, 7, 8, 9]


@given(st.lists(st.floats(0, 3), min_size=1, max_size=20))
def test_every_instant_gets_a_picture_that_is_near(times: list[float]) -> None:
    times = sorted(times)
    shown = levels(at_constant_rate(frames_at(times), Fraction(10)))
    assert shown == sorted(shown)
    for n, level in enumerate(shown):
        assert abs(times[level] - n / 10) <= min(abs(t - n / 10) for t in times) + 1e-9
    assert len(shown) >= round((times[-1] - 1e-6) * 10)


def test_variable_frame_rate_file(tmp_path: Path) -> None:
    times = [0.0, 0.033, 0.067, 0.1, 0.3, 0.333, 0.5, 0.9, 0.933]
    path = write_clip(tmp_path / "a.mkv", grey_ramp(9), times_s=times)
    frames = list(read_video(path))
    np.testing.assert_allclose([f.time_s for f in frames], times, atol=1e-3)
    shown = levels(at_constant_rate(iter(frames), Fraction(30)))
    assert len(shown) in (29, 30)
    assert shown[:12] == [0, 1, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5]


def test_nonsense_rates_fall_back() -> None:
    stream: Any = SimpleNamespace(average_rate=None, guessed_rate=Fraction(1000), base_rate=Fraction(90000))
    assert media._frame_rate(stream) == 25
    stream.guessed_rate = Fraction(29_997, 1000)
    assert media._frame_rate(stream) == 30
    stream.average_rate = Fraction(29_970_1, 10_000)
    assert media._frame_rate(stream) == Fraction(30000, 1001)
    stream.average_rate = Fraction(0)
    assert media._frame_rate(stream) == 30


def test_a_leap_of_the_files_clock_is_taken_out() -> None:
    clock = media._Clock(origin=2.0)
    assert clock(2.0, 0.04) == 0.0
    assert clock(2.5, 0.04) == 0.5
    assert clock(90_002.5, 0.04) == pytest.approx(0.54)
    assert clock(90_002.54, 0.04) == pytest.approx(0.58)
    assert clock(None, 0.04) == pytest.approx(0.62)


# ----------------------------------------------------------------------------------------------- faults


def fault(path: Path) -> str:
    with pytest.raises(MediaError) as probed:
        probe(path)
    with pytest.raises(MediaError) as read:
        next(read_video(path))
    assert str(probed.value) == str(read.value)
    assert str(path) in str(read.value)
    assert "\n" not in str(read.value)
    return str(read.value)


def test_missing_folder_empty_and_foreign_inputs(tmp_path: Path) -> None:
    assert "does not exist" in fault(tmp_path / "none.mp4")
    assert "is a folder" in fault(tmp_path)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "is empty" in fault(empty)
    text = tmp_path / "notes.txt"
    text.write_text("nothing to see here\n" * 100)
    assert "not a video" in fault(text)
    foreign = tmp_path / "foreign.mp4"
    foreign.write_bytes(bytes(range(256)) * 40)
    assert "not a video" in fault(foreign)


def test_sound_only_is_refused_even_with_a_cover(tmp_path: Path) -> None:
    song = tmp_path / "song.mka"
    with av.open(str(song), "w") as out:
        stream = out.add_stream("flac", rate=44_100)
        stream.layout = "mono"
        block = av.AudioFrame.from_ndarray(tone(0.1)[None], format="flt", layout="mono")
        block.sample_rate = 44_100
        out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    assert "only sound" in fault(song)

    cover = tmp_path / "cover.mp4"
    write_clip(cover, [quarters()], codec="mjpeg", pixels="yuvj420p", sound=tone(0.2))
    # In MP4 the muxer stores a stream of this disposition as the "covr" atom of the file's tags.
    with av.open(str(cover)) as source, av.open(str(tmp_path / "album.m4a"), "w", format="mp4") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        streams[source.streams.video[0].index].disposition = av.stream.Disposition.attached_pic
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    assert "only sound" in fault(tmp_path / "album.m4a")


def test_a_truncated_file_plays_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(sample_clip().read_bytes()[:300_000])  # its index is at the front
    frames = list(read_video(path))
    assert 50 < len(frames) < 200


def test_damage_in_the_middle_is_survived(tmp_path: Path) -> None:
    data = bytearray(sample_clip().read_bytes())
    data[200_000:200_500] = np.random.default_rng(1).bytes(500)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert len(list(read_video(path))) > 150


# ------------------------------------------------------------------------------------------------- sound


def peak_time(samples: np.ndarray, rate: int = AUDIO_RATE) -> float:
    """When the sound first exceeds half of its greatest level, in seconds."""
    loud = np.abs(samples.astype(float))
    return float(np.argmax(loud > loud.max() / 2)) / rate


def all_samples(path: Path, **options: float) -> np.ndarray:
    return np.concatenate(list(read_samples(path, **options)))


def decoded(packets: list[bytes], pre_skip: int) -> np.ndarray:
    reader = OpusReader(pre_skip)
    return np.concatenate([reader.decode(packet) for packet in packets])


@pytest.mark.parametrize("packet_ms", [20, 40, 60])
def test_opus_round_trip_keeps_every_sample_in_place(packet_ms: int) -> None:
    time = np.arange(AUDIO_RATE) / AUDIO_RATE
    # A chirp has one best alignment with itself.
    wave = (8000 * np.sin(2 * np.pi * (200 + 600 * time) * time)).astype(np.int16)
    writer = OpusWriter(bitrate=24_000, packet_ms=packet_ms)
    packets = [p for begin in range(0, len(wave), 777) for p in writer.encode(wave[begin : begin + 777])]
    packets += writer.flush()
    back = decoded(packets, writer.pre_skip)
    assert 0 < writer.pre_skip < 960
    assert len(wave) <= len(back) <= len(wave) + 2 * opus.packet_samples
    heard = [back[10_000 + lag : 40_000 + lag].astype(float) for lag in range(-96, 97, 4)]
    best = int(np.argmax([np.dot(wave[10_000:40_000], part) for part in heard]))
    assert abs(range(-96, 97, 4)[best]) <= 8


def test_opus_bitrate_and_silence() -> None:
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(4 * AUDIO_RATE) * 3000).astype(np.int16)
    writer = OpusWriter(bitrate=12_000)
    packets = writer.encode(noise) + writer.flush()
    assert 8_000 < sum(map(len, packets)) * 8 / 4 < 16_000
    assert OpusWriter().flush() == []


def test_lost_and_foreign_opus_packets() -> None:
    writer = OpusWriter(packet_ms=20)
    packets = writer.encode((10_000 * tone(0.2, AUDIO_RATE)).astype(np.int16))
    reader = OpusReader(0)
    assert len(reader.decode(packets[0])) == 960
    lost = reader.decode(None)
    assert len(lost) == 960
    assert not lost.any()
    assert len(reader.decode(packets[2])) == 960
    for foreign in (b"", b"\x03", b"\xff\xff\xff"):
        with pytest.raises(FormatError):
            OpusReader(0).decode(foreign)


def test_no_sound_no_track(tmp_path: Path) -> None:
    assert read_audio_opus(sample_clip()) is None
    assert list(read_samples(sample_clip())) == []


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", grey_ramp(25), sound=tone(0.5), sound_start_s=0.3, pixels="yuv444p")
    samples = all_samples(path)
    assert peak_time(samples) == pytest.approx(0.3, abs=0.005)
    assert len(samples) / AUDIO_RATE == pytest.approx(0.8, abs=0.005)
    info = probe(path)
    assert info.audio is not None
    assert info.audio.start_s == pytest.approx(0.3, abs=0.005)


def test_sound_from_the_middle_and_of_limited_length(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(round(0.6 * 44_100), np.float32), tone(0.4)])
    path = write_clip(tmp_path / "a.mp4", grey_ramp(25), sound=sound)
    samples = all_samples(path, start=0.4, duration_s=0.5)
    assert len(samples) == AUDIO_RATE // 2
    assert peak_time(samples) == pytest.approx(0.2, abs=0.005)


def test_gaps_are_filled_and_overlaps_dropped() -> None:
    def frame(time_s: float, level: int) -> av.AudioFrame:
        return opus._audio_frame(np.full(4800, level, np.int16), round(time_s * AUDIO_RATE))

    pieces = [frame(-0.05, 1), frame(0.05, 2), frame(0.151, 3), frame(0.5, 4), frame(0.55, 5)]
    samples = np.concatenate(list(audio._in_place(pieces, origin=0.0, start=0.0)))
    runs = [(int(level), int((samples == level).sum())) for level in range(6)]
    # The millisecond that 3 comes late is rounding; of 5 the half that overlaps with 4 is dropped.
    assert runs == [(0, 24000 - 3 * 4800 + 2400), (1, 2400), (2, 4800), (3, 4800), (4, 4800), (5, 2400)]
    assert len(samples) == round(0.65 * AUDIO_RATE)


def test_a_long_pause_of_the_sound_is_silence_while_pictures_go_on() -> None:
    """Where a participant is muted, or comes late: no fault of the file's clock."""

    def length_s(*starts_s: float, end_s: float) -> float:
        pieces = [opus._audio_frame(np.full(AUDIO_RATE, 9, np.int16), round(at * AUDIO_RATE)) for at in starts_s]
        return sum(map(len, audio._in_place(pieces, 0.0, 0.0, end_s))) / AUDIO_RATE

    assert length_s(0, 71, end_s=80) == 72
    assert length_s(75, end_s=80) == 76
    assert length_s(0, 4000, end_s=80) == 2  # the clock leapt: the pictures end before


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("late", [0.0, 0.48])
def test_flash_and_beep_stay_together(tmp_path: Path, suffix: str, late: float) -> None:
    """A file with a flash and a beep at 1.2 s, through Opus and back into a file."""
    pictures = [plain((240,) * 3 if 30 <= n < 33 else (16,) * 3) for n in range(50)]
    sound = np.zeros(round((2 - late) * 44_100), np.float32)
    begin = round((1.2 - late) * 44_100)
    sound[begin : begin + 4410] = tone(0.1)
    source = write_clip(tmp_path / "in.mp4", pictures, sound=sound, sound_start_s=late)

    track = read_audio_opus(source, bitrate=16_000)
    assert track is not None
    reader = OpusReader(track.pre_skip)
    target = tmp_path / f"out{suffix}"
    with VideoWriter(target, (64, 48), Fraction(25), audio=True) as writer:
        for picture in at_constant_rate(read_video(source), Fraction(25)):
            writer.write(picture)
        for packet in track:
            writer.write_audio(reader.decode(packet))

    flash = next(frame.time_s for frame in read_video(target) if frame.picture.mean() > 128)
    beep = peak_time(all_samples(target))
    assert flash == pytest.approx(1.2, abs=0.002)
    assert beep == pytest.approx(flash, abs=0.01)


# ----------------------------------------------------------------------------------------------- writing


def noise_clip(count: int = 5, width: int = 64, height: int = 48) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, height // 8, width // 8, 3), np.uint8)
    return [np.ascontiguousarray(c.repeat(8, 0).repeat(8, 1)) for c in coarse]


def written(path: Path, pictures: list[np.ndarray], fps: Fraction = Fraction(25)) -> list[np.ndarray]:
    with VideoWriter(path, (pictures[0].shape[1], pictures[0].shape[0]), fps) as writer:
        for picture in pictures:
            writer.write(picture)
    assert list(path.parent.iterdir()) == [path]
    assert probe(path).fps == fps
    return [frame.picture for frame in read_video(path)]


def test_mkv_keeps_every_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (37, 51, 3), np.uint8) for _ in range(4)]
    back = written(tmp_path / "a.mkv", pictures, Fraction(30000, 1001))
    assert len(back) == 4
    for picture, other in zip(pictures, back, strict=True):
        np.testing.assert_array_equal(picture, other)


def test_mkv_keeps_every_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    samples = rng.integers(-20_000, 20_000, 30_000, np.int16)
    with VideoWriter(tmp_path / "a.mkv", (64, 48), Fraction(25), audio=True) as writer:
        for n, picture in enumerate(grey_ramp(15)):
            writer.write(picture)
            writer.write_audio(samples[n * 2000 : (n + 1) * 2000])
    np.testing.assert_array_equal(all_samples(tmp_path / "a.mkv"), samples)


@pytest.mark.parametrize(("name", "most"), [("a.mp4", 6.0), ("a.y4m", 1.5), ("A.Y4M", 1.5)])
def test_mp4_and_y4m_are_close(tmp_path: Path, name: str, most: float) -> None:
    pictures = [plain(colour) for colour in (RED, GREEN, BLUE, GREY, (255, 255, 255), (0, 0, 0))]
    back = written(tmp_path / name, pictures, Fraction(24000, 1001))
    assert len(back) == len(pictures)
    for picture, other in zip(pictures, back, strict=True):
        assert np.abs(picture.astype(int) - other.astype(int)).mean() < most


def test_y4m_is_yuv_444_that_other_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "a.y4m"
    written(path, noise_clip(2, 40, 24), Fraction(30000, 1001))
    header, _, rest = path.read_bytes().partition(b"\n")
    assert header == b"YUV4MPEG2 W40 H24 F30000:1001 Ip A1:1 C444"
    assert len(rest) == 2 * (len(b"FRAME\n") + 40 * 24 * 3)


def test_mp4_is_playable_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, (64, 48), Fraction(25), audio=True) as writer:
        for picture in grey_ramp(10):
            writer.write(picture)
            writer.write_audio(np.zeros(1920, np.int16))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # "faststart": playable while it downloads
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (audio.codec_context.name, audio.rate) == ("aac", AUDIO_RATE)
        frame = next(container.decode(video))
        assert (frame.colorspace, frame.color_range) == (1, 1)
        assert audio.start_time == 0


def test_unknown_suffixes_name_those_that_work(tmp_path: Path) -> None:
    for name in ("a.avi", "a", "a.mp4.txt"):
        with pytest.raises(MediaError, match=r"\.mp4, \.mkv and \.y4m"):
            VideoWriter(tmp_path / name, (64, 48), Fraction(25))
    assert check_writable(tmp_path / "A.MP4") == ".mp4"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"the folder .*none does not exist"):
        VideoWriter(tmp_path / "none" / "a.mkv", (64, 48), Fraction(25))
    (tmp_path / "b.mkv").mkdir()
    with pytest.raises(MediaError, match="is a folder"):
        VideoWriter(tmp_path / "b.mkv", (64, 48), Fraction(25))
    with pytest.raises(MediaError, match="even width"):
        VideoWriter(tmp_path / "a.mp4", (63, 48), Fraction(25))
    assert [p.name for p in tmp_path.iterdir()] == ["b.mkv"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user who may not do all")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MediaError, match="could not be written"):
        VideoWriter(tmp_path / "a.mkv", (64, 48), Fraction(25))
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m"])
def test_a_full_disk(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "full.part"
    part.symlink_to("/dev/full")
    monkeypatch.setattr(writer, "_sibling", lambda path: part)
    rng = np.random.default_rng(5)

    def write_all() -> None:
        with VideoWriter(tmp_path / name, (256, 256), Fraction(25)) as writer:
            for _ in range(3):
                writer.write(rng.integers(0, 256, (256, 256, 3), np.uint8))

    with pytest.raises(MediaError, match="disk is full"):
        write_all()
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_nothing_behind_and_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(b"older")

    def interrupted() -> None:
        with VideoWriter(path, (64, 48), Fraction(25), audio=True) as writer:
            for picture in grey_ramp(10):
                writer.write(picture)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"older"


def test_a_picture_of_another_size_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mkv", (64, 48), Fraction(25)) as writer:
        with pytest.raises(ValueError, match="48 x 64"):
            writer.write(plain(RED, 48, 64))
        writer.write(plain(RED))
    assert len(list(read_video(tmp_path / "a.mkv"))) == 1


def test_timestamps_of_a_long_output_do_not_drift(tmp_path: Path) -> None:
    fps = Fraction(30000, 1001)
    path = tmp_path / "a.mp4"
    with VideoWriter(path, (16, 16), fps) as writer:
        for _ in range(900):
            writer.write(plain(GREY, 16, 16))
    times = [frame.time_s for frame in read_video(path)]
    assert len(times) == 900
    assert times[-1] == pytest.approx(float(899 / fps), abs=1e-3)
    assert all(a < b for a, b in pairwise(times))
