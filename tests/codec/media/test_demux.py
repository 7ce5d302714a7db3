"""Opening media files: errors, and the choice of tracks."""

from pathlib import Path

import av
import numpy as np
import pytest

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.types import Tracks
from iwcodec.codec.media.video import probe, read_video
from media_fixtures import GREEN, RED, plain, quarters, tone, write_clip


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


def test_tracks_are_chosen_by_number(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for stream, colour in zip(streams, (RED, GREEN), strict=True):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(plain(colour), format="rgb24")))
            out.mux(stream.encode(None))
    for number, colour in ((1, RED), (2, GREEN)):
        frame = next(read_video(path, tracks=Tracks(video=number)))
        assert np.abs(frame.picture.astype(int) - colour).max() <= 2
    with pytest.raises(MediaError, match=r"has 2 video tracks, so there is no video track 3"):
        probe(path, Tracks(video=3))
    with pytest.raises(MediaError, match=r"has 0 audio tracks, so there is no audio track 1"):
        probe(path, Tracks(audio=1))
