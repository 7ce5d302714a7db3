"""Recordings of a participant: files that play, and write errors."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwcodec.client.audio.jitter_buffer import AudioJitterBuffer, AudioRtpPacket
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.recording import recorder as r
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import MediaError
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.audio.opus import OpusEncoder
from iwcodec.codec.media.crop.square import Crop, crop_resize
from iwcodec.codec.media.video import read_video
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.models.runtime.load import load_runtime
from support.calls.fake_call import RecordedCall
from support.codec.stub_runtime import StubRuntime, picture

QUIET = OpusEncoder(12_000, 60).encode(np.zeros(2880, np.int16))


def at(stamp_s: float, value: float) -> TimedFrame:
    return TimedFrame(0, stamp_s, np.full((2, 3), value, np.float32))


def test_a_recording_plays(tmp_path: Path, face_clip: Path) -> None:
    """The decoded pictures show what was sent."""
    runtime = load_runtime(threads=1)
    pictures = [crop_resize(f.picture, Crop(140, 0, 360), 256) for f in read_video(face_clip)][::2]
    encoder = SourceEncoder(256, 55, 10)
    recorder = r.Recorder(tmp_path / "call.iwc", runtime.info)
    tracks = [runtime.detect(picture) for picture in pictures]
    recorder.motion([TimedFrame(0, 0.0, tracks[0])], 1.0)  # before any source: not recorded
    recorder.source(SourcePacket(0, encoder.add(pictures[0])))
    recorder.motion([TimedFrame(n, n / 25, tracks[n]) for n in range(3)], 1.1)
    recorder.source(SourcePacket(1, encoder.add(pictures[5])))
    recorder.motion([TimedFrame(n, n / 25, tracks[n]) for n in range(2, 6)], 1.2)
    assert recorder.close()
    with IwcFile(tmp_path / "call.iwc", runtime) as file:
        frames = list(file.frames())
        assert not file.damage
    assert [frame.number for frame in frames] == list(range(6))
    gap = np.abs(frames[5].picture.astype(int) - pictures[5].astype(int)).mean()
    assert gap < 12
    assert np.abs(frames[0].picture.astype(int) - frames[5].picture.astype(int)).mean() > 1


def test_without_a_picture_no_file_is_written(tmp_path: Path) -> None:
    runtime = load_runtime(threads=1)
    recorder = r.Recorder(tmp_path / "call.iwc", runtime.info)
    assert not recorder.close()
    recorder.source(SourcePacket(0, b"unit"))
    assert not recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_variants_and_the_regions_of_frames_are_recorded(tmp_path: Path) -> None:
    encoder, recorder = SourceEncoder(64, 55, 10), r.Recorder(tmp_path / "call.iwc", StubRuntime.info, False)
    recorder.source(SourcePacket(0, encoder.add(picture(100))))
    recorder.source(SourcePacket(1, encoder.add(picture(110)), base=0))
    keypoints, shown = np.zeros((20, 3), np.float32), [(None, None), (1, None), (1, None)]
    recorder.motion([TimedFrame(n, n / 25, keypoints, 0, regions) for n, regions in enumerate(shown)], 1.0)
    assert recorder.close()
    with ContainerReader(tmp_path / "call.iwc") as file:
        _, variant, motion = file.records()
    assert isinstance(variant, SourcePacket)
    assert variant.base == 0
    assert isinstance(motion, MotionPacket)
    assert [motion.regions_of(n) for n in range(3)] == shown


class RecorderDouble:
    """Recorder that lists its calls, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[str] = []
        self.fails = fails
        self.given_up = False

    def restart(self) -> None:
        self.calls.append("restart")

    def source(self, packet: SourcePacket) -> None:
        if self.fails:
            raise MediaError("The disk is full.")
        self.calls.append(f"source {packet.slot}")

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        self.calls.append(f"motion {len(frames)}")

    def audio(self, packet: AudioRtpPacket) -> None:
        self.calls.append(f"audio {packet.timestamp}")

    def give_up(self) -> None:
        self.given_up = True


def test_everybody_is_recorded() -> None:
    call = RecordedCall()
    recorders: dict[str | None, RecorderDouble] = {}
    r.CallRecorder(call, lambda name: recorders.setdefault(name, RecorderDouble()))
    links = [SimpleNamespace(recording=None, state=LinkState.LIVE) for _ in range(2)]
    audio_buffers = [AudioJitterBuffer(), AudioJitterBuffer()]
    for name, link, audio_buffer in zip(("Ada", "Bob"), links, audio_buffers, strict=True):
        call.link_listeners[0](SimpleNamespace(name=name, audio_buffer=audio_buffer), link)
    ada, bob = (link.recording for link in links)
    ada.motion([at(0, 0)], 1.0)
    bob.source(SourcePacket(0, b"x"))
    ada.source(SourcePacket(1, b"x"))
    bob.motion([at(0, 0), at(1, 0)], 1.0)
    for n, audio_buffer in enumerate(audio_buffers):
        audio_buffer.push(1, 0, n, QUIET, 1.0)
    assert recorders[None].calls == ["source 0", "motion 2", "audio 1"]
    assert recorders["Ada"].calls == ["source 1", "audio 0"]
    assert call.notices == ["recording Bob", "recording Ada"]


def test_the_recording_follows_a_person_who_joins_again() -> None:
    """Over another link, or over the same one if only the program was restarted; a second Ada is somebody else."""
    call = RecordedCall()
    recorders: list[RecorderDouble] = []
    r.CallRecorder(call, lambda name: recorders.append(RecorderDouble()) or recorders[-1])

    def joins() -> Any:
        link = SimpleNamespace(recording=None, state=LinkState.LIVE)
        call.link_listeners[0](SimpleNamespace(name="Ada", audio_buffer=None), link)
        return link

    first = joins()
    first.recording.source(SourcePacket(0, b"x"))
    first.recording.restart()
    first.recording.source(SourcePacket(1, b"x"))
    other = joins()
    other.recording.source(SourcePacket(2, b"x"))
    first.state = LinkState.CLOSED
    again = joins()
    again.recording.source(SourcePacket(3, b"x"))
    assert [recorder.calls for recorder in recorders] == [
        ["source 0", "restart", "source 1", "restart", "source 3"],
        ["source 2"],
    ]


def test_files_are_named_after_people(tmp_path: Path) -> None:
    out = tmp_path / "out.iwc"
    assert r.path_for(out, None) == out
    assert r.path_for(out, "../Ada L\u00e9vy").name == "out-Ada-L-vy.iwc"
    assert r.path_for(out, "\u5f20").name == "out-somebody.iwc"
    (tmp_path / "out-Ada.iwc").touch()
    assert r.path_for(out, "Ada").name == "out-Ada-2.iwc"


def test_a_restarted_sender_continues_after_the_pause(tmp_path: Path) -> None:
    """Its stamps begin anew; the time that it was away is a held frame."""
    recorder = r.Recorder(tmp_path / "a.iwc", StubRuntime.info, False)
    encoder, keypoints = SourceEncoder(64), np.zeros((20, 3), np.float32)
    recorder.source(SourcePacket(0, encoder.add(picture(100))))
    for n in range(25):
        recorder.motion([TimedFrame(n, 5 + n / 25, keypoints, 0)], 100 + n / 25)
    recorder.restart()
    recorder.source(SourcePacket(0, SourceEncoder(64).add(picture(100))))
    for n in range(25):
        recorder.motion([TimedFrame(n, 1 + n / 25, keypoints + 0.1, 0)], 104 + n / 25)
    assert recorder.close()
    assert recorder.frames == pytest.approx(125, abs=2)
    with IwcFile(tmp_path / "a.iwc", StubRuntime()) as file:
        levels = [float(frame.picture.mean()) for frame in file.frames()]
        assert not file.damage
    assert levels[60] == pytest.approx(levels[24], abs=1)
    assert levels[-1] > levels[24] + 8


def test_a_write_error_ends_the_recording_but_not_the_call() -> None:
    call, recorder = RecordedCall(), RecorderDouble(fails=True)
    r.CallRecorder(call, lambda name: recorder)
    link = SimpleNamespace(recording=None)
    call.link_listeners[0](SimpleNamespace(name="Ada", audio_buffer=None), link)
    link.recording.source(SourcePacket(0, b"x"))
    link.recording.motion([at(0, 0)], 1.0)
    assert recorder.calls == []
    assert recorder.given_up
    assert call.notices[-1] == "recording of Ada stopped: The disk is full."


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    """Closing the recorder afterwards raises nothing."""
    call, recorder = RecordedCall(), r.Recorder(tmp_path / "a.iwc", StubRuntime.info, False)
    r.CallRecorder(call, lambda name: recorder)
    link = SimpleNamespace(recording=None)
    call.link_listeners[0](SimpleNamespace(name="Ada", audio_buffer=None), link)
    link.recording.source(SourcePacket(0, SourceEncoder(64).add(picture(100))))
    full = SimpleNamespace(write=raising(OSError(28, "No space left on device")), close=lambda: None)
    recorder._writer._file.close()
    recorder._writer._file = full
    keypoints = np.zeros((20, 3), np.float32)
    link.recording.motion([TimedFrame(n, n / 25, keypoints, 0) for n in range(2 * r.FRAMES_PER_PACKET)], 3.0)
    assert "No space left" in call.notices[-1]
    assert recorder.given_up
    assert not recorder.close()
    assert list(tmp_path.iterdir()) == []


def raising(error: OSError) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        raise error

    return write
