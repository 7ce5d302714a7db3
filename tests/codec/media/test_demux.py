"""Opening media files: errors, frame rates and timestamps."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.demux import StreamClock, frame_rate
from iwcodec.codec.media.video import probe, read_video
from media_fixtures import RED, plain, quarters, tone, write_clip


def test_impossible_rates_fall_back_to_the_next_or_25() -> None:
    stream: Any = SimpleNamespace(average_rate=None, guessed_rate=Fraction(1000), base_rate=Fraction(90000))
    assert frame_rate(stream) == 25
    stream.guessed_rate = Fraction(29_997, 1000)
    assert frame_rate(stream) == 30
    stream.average_rate = Fraction(29_970_1, 10_000)
    assert frame_rate(stream) == Fraction(30000, 1001)
    stream.average_rate = Fraction(0)
    assert frame_rate(stream) == 30


def test_a_jump_of_the_timestamps_is_removed() -> None:
    clock = StreamClock(origin=2.0)
    assert clock(2.0, 0.04) == 0.0
    assert clock(2.5, 0.04) == 0.5
    assert clock(90_002.5, 0.04) == pytest.approx(0.54)
    assert clock(90_002.54, 0.04) == pytest.approx(0.58)
    assert clock(None, 0.04) == pytest.approx(0.62)


def open_error(path: Path) -> str:
    """The one-line message with which both `probe` and `read_video` refuse a file."""
    with pytest.raises(MediaError) as probed:
        probe(path)
    with pytest.raises(MediaError) as read:
        next(read_video(path))
    assert str(probed.value) == str(read.value)
    assert str(path) in str(read.value)
    assert "\n" not in str(read.value)
    return str(read.value)


def test_missing_folder_empty_and_other_files_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in open_error(tmp_path / "none.mp4")
    assert "is a folder" in open_error(tmp_path)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "is empty" in open_error(empty)
    text = tmp_path / "notes.txt"
    text.write_text("nothing to see here\n" * 100)
    assert "not a video" in open_error(text)
    foreign = tmp_path / "foreign.mp4"
    foreign.write_bytes(bytes(range(256)) * 40)
    assert "not a video" in open_error(foreign)


def test_a_file_of_only_sound_is_refused_even_with_cover_art(tmp_path: Path) -> None:
    song = tmp_path / "song.mka"
    with av.open(str(song), "w") as out:
        stream = out.add_stream("flac", rate=44_100)
        stream.layout = "mono"
        block = av.AudioFrame.from_ndarray(tone(0.1)[None], format="flt", layout="mono")
        block.sample_rate = 44_100
        out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    assert "only sound" in open_error(song)

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
    assert "only sound" in open_error(tmp_path / "album.m4a")


def test_tags_in_another_encoding_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "XXXX"
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(plain(RED, 32, 32), format="rgb24")))
        out.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"XXXX", b"\xe9\xff\xfe\x80"))
    assert probe(path).width == 32
