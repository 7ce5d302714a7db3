"""Recordings of a peer: what came over the link plays as a file, on a regular grid; and the virtual camera."""

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiortc")
from iwcodec.client.audio.jitter_buffer import Playout, Received
from iwcodec.client.audio.opus import OpusEncoder
from iwcodec.client.recording import recorder as r
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.errors import CodecError, MediaError
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.crop_tracking import Crop, crop_resize
from iwcodec.codec.media.video import read_video
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.models.runtime.load import load_runtime
from stub_runtime import StubRuntime, picture
from told_links import Told

QUIET = OpusEncoder(12_000, 60).encode(np.zeros(2880, np.int16))


def at(stamp_s: float, value: float) -> TimedFrame:
    return TimedFrame(0, stamp_s, np.full((2, 3), value, np.float32))


def values(grid: r.Grid, *frames: TimedFrame) -> list[float]:
    return [round(float(k[0, 0]), 3) for frame in frames for k, _ in grid.add(frame)]


def test_frames_on_the_grid_stay_as_they_are() -> None:
    assert values(r.Grid(Fraction(25)), *(at(7 + n / 25, n) for n in range(5))) == [0, 1, 2, 3, 4]


def test_frames_beside_the_grid_are_interpolated() -> None:
    assert values(r.Grid(Fraction(10)), at(1.0, 0), at(1.15, 3), at(1.3, 6)) == [0, 2, 4, 6]


def test_a_hole_is_held_and_a_late_frame_passed_over() -> None:
    assert values(r.Grid(Fraction(2)), at(0, 1), at(2.0, 5), at(1.5, 9), at(2.5, 7)) == [1, 1, 1, 1, 1, 7]


def test_another_clock_joins_on() -> None:
    grid = r.Grid(Fraction(10))
    assert values(grid, at(0, 0), at(0.1, 1), at(5000.0, 2), at(5000.1, 3)) == [0, 1, 2, 3]


def test_what_came_plays(tmp_path: Path, face_clip: Path) -> None:
    """The file's pictures are those that the receiver's own decoder makes of the same packets."""
    runtime = load_runtime(threads=1)
    pictures = [crop_resize(f.picture, Crop(140, 0, 360), 256) for f in read_video(face_clip)][::3][:6]
    encoder = SourceEncoder(256, 55, 10)
    recorder = r.Recorder(tmp_path / "call.iwc", runtime.info)
    tracks = [runtime.detect(picture) for picture in pictures]
    recorder.motion([TimedFrame(0, 0.0, tracks[0])], 1.0)  # before any picture: not kept
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


def test_nothing_came_and_nothing_is_written(tmp_path: Path) -> None:
    runtime = load_runtime(threads=1)
    recorder = r.Recorder(tmp_path / "call.iwc", runtime.info)
    assert not recorder.close()
    recorder.source(SourcePacket(0, b"unit"))
    assert not recorder.close()
    assert list(tmp_path.iterdir()) == []


class Kept:
    """In place of a recorder."""

    def __init__(self, fails: bool = False) -> None:
        self.took: list[str] = []
        self.fails = fails

    def source(self, packet: SourcePacket) -> None:
        if self.fails:
            raise MediaError("The disk is full.")
        self.took.append(f"source {packet.slot}")

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        self.took.append(f"motion {len(frames)}")

    def sound(self, packet: Received) -> None:
        self.took.append(f"sound {packet.timestamp}")

    def give_up(self) -> None:
        self.given_up = True


def test_whoever_is_seen_first_is_recorded() -> None:
    call, recorder = Told(), Kept()
    r.CallRecorder(call, recorder)  # type: ignore[arg-type]
    links = [SimpleNamespace(recording=None) for _ in range(2)]
    playouts = [Playout(), Playout()]
    for name, link, playout in zip(("Ada", "Bob"), links, playouts, strict=True):
        call.linked[0](SimpleNamespace(name=name, playout=playout), link)
    ada, bob = (link.recording for link in links)
    ada.motion([at(0, 0)], 1.0)
    bob.source(SourcePacket(0, b"x"))
    ada.source(SourcePacket(1, b"x"))
    bob.motion([at(0, 0), at(1, 0)], 1.0)
    for n, playout in enumerate(playouts):
        playout.push(1, 0, n, QUIET, 1.0)
    assert recorder.took == ["source 0", "motion 2", "sound 1"]
    assert call.notes == ["recording Bob"]


def test_a_full_disk_ends_the_recording_alone() -> None:
    call, recorder = Told(), Kept(fails=True)
    r.CallRecorder(call, recorder)  # type: ignore[arg-type]
    link = SimpleNamespace(recording=None)
    call.linked[0](SimpleNamespace(name="Ada", playout=None), link)
    assert link.recording is not None
    link.recording.source(SourcePacket(0, b"x"))
    link.recording.motion([at(0, 0)], 1.0)
    assert recorder.took == []
    assert recorder.given_up
    assert call.notes[-1] == "not recording any more: The disk is full."


def test_a_virtual_camera_shows_whoever_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[np.ndarray] = []
    camera = SimpleNamespace(send=sent.append, close=lambda: None)
    module = SimpleNamespace(Camera=lambda *_, **__: camera, PixelFormat=SimpleNamespace(RGB=1))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    call = Told()
    call.participants = {"a": SimpleNamespace(id="a"), "b": SimpleNamespace(id="b")}
    shows = r.VirtualCamera(call)  # type: ignore[arg-type]
    pictures = {
        id: SimpleNamespace(picture=np.full((256, 256, 3), level, np.uint8))
        for id, level in zip("ab", (50, 90), strict=True)
    }
    for id in "aba":
        shows.show(call.participants[id], pictures[id])
    del call.participants["a"]
    shows.show(call.participants["b"], pictures["b"])
    assert [frame[240, 320, 0] for frame in sent] == [50, 50, 90]
    assert sent[0].shape == (480, 640, 3)
    assert not sent[0][:, :80].any()


def test_without_pyvirtualcam_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(CodecError, match="pip install pyvirtualcam"):
        r.VirtualCamera(Told())  # type: ignore[arg-type]


def test_without_a_device_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise RuntimeError("no device")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=none, PixelFormat=SimpleNamespace(RGB=1)))
    with pytest.raises(CodecError, match="v4l2loopback"):
        r.VirtualCamera(Told())  # type: ignore[arg-type]


def test_what_a_full_disk_leaves_is_no_file(tmp_path: Path) -> None:
    """And finishing it is no fault."""
    call, recorder = Told(), r.Recorder(tmp_path / "a.iwc", StubRuntime.info, False)
    r.CallRecorder(call, recorder)  # type: ignore[arg-type]
    link = SimpleNamespace(recording=None)
    call.linked[0](SimpleNamespace(name="Ada", playout=None), link)
    assert link.recording is not None
    link.recording.source(SourcePacket(0, SourceEncoder(64).add(picture(100))))
    full = SimpleNamespace(write=raising(OSError(28, "No space left on device")), close=lambda: None)
    recorder._writer._file.close()  # type: ignore[union-attr]
    recorder._writer._file = full  # type: ignore[union-attr]
    keypoints = np.zeros((20, 3), np.float32)
    link.recording.motion([TimedFrame(n, n / 25, keypoints, 0) for n in range(2 * r.MESSAGE)], 3.0)
    assert "No space left" in call.notes[-1]
    assert recorder.given_up
    assert not recorder.close()
    assert list(tmp_path.iterdir()) == []


def raising(error: OSError) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        raise error

    return write
