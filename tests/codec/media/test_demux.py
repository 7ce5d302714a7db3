"""Opening media files: errors, and the choice of tracks."""

from pathlib import Path

import av
import numpy as np
import pytest

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.types import Tracks
from iwcodec.codec.media.video import probe, read_video
from support.media.clips import GREEN, RED, plain, quarters, tone, write_clip


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


def test_what_is_cut_off_before_its_index_is_named(tmp_path: Path) -> None:
    """Recorders write it last."""
    whole = write_clip(tmp_path / "whole.mp4", [plain(RED)] * 8).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: whole.index(b"moov") - 8])
    assert "ends before its index" in open_error(cut)
    cut.write_bytes(whole[: whole.index(b"mdat") + 40])
    assert "ends before its index" in open_error(cut)


def test_of_unknown_formats_the_others_are_read(tmp_path: Path) -> None:
    """Some phones record a second sound track that FFmpeg cannot decode."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        sounds = {}
        for layout, codec in (("stereo", "ac3"), ("mono", "flac")):
            sounds[layout] = out.add_stream(codec, rate=48_000)
            sounds[layout].layout = layout
        out.mux(video.encode(av.VideoFrame.from_ndarray(plain(RED), format="rgb24")))
        out.mux(video.encode(None))
        for layout, sound in sounds.items():
            pcm = "fltp" if layout == "stereo" else "s16"
            block = np.zeros((2, 4608), np.float32) if layout == "stereo" else np.zeros((1, 4608), np.int16)
            frame = av.AudioFrame.from_ndarray(block, format=pcm, layout=layout)
            frame.sample_rate, frame.pts = 48_000, 0
            out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
    assert probe(path).audio is not None
    unknown = tmp_path / "unknown.mkv"
    unknown.write_bytes(path.read_bytes().replace(b"A_AC3", b"A_XY3"))
    info = probe(unknown)
    assert (info.audio.codec, info.sound_is_unknown) == ("flac", False)
    unknown.write_bytes(path.read_bytes().replace(b"A_AC3", b"A_XY3").replace(b"A_FLAC", b"A_XYAC"))
    info = probe(unknown)
    assert (info.audio, info.sound_is_unknown) == (None, True)
    unknown.write_bytes(path.read_bytes().replace(b"V_MJPEG", b"V_XYZEG"))
    assert "has a format that cannot be decoded" in open_error(unknown)
