"""What a call leaves behind: `--record`, a peer's video as an .iwc file, and `--virtual-camera`, a peer as a camera.

A recording holds what the peer sent and nothing is coded twice: its AV1 units and its Opus packets as they came, and
its keypoints put on a regular grid of frames, as files want it, between their neighbours in time where they do not lie
on it.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.client.audio.jitter_buffer import Received
from iwcodec.client.audio.track import PACKET_MS
from iwcodec.client.recording.soundtrack import PRE_SKIP, Soundtrack
from iwcodec.client.room.call import Call, Participant
from iwcodec.client.video.jitter_buffer import TimedFrame, between
from iwcodec.client.video.link import Link, Shown
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, SourcePacket, runs_of
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.motion.predictive_coder import MotionCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.types import Levels, Quantiser
from iwcodec.models.runtime.types import ModelInfo

FPS: Final = Fraction(25)
MESSAGE: Final = 50
"""Frames in one record."""
MAX_BRIDGE_S: Final = 0.5
"""A longer hole is not interpolated: the last frame stays."""
MAX_HOLE_S: Final = 600.0
"""What the sender's clock may leap by; more is another clock."""
CAMERA: Final = (640, 480)
"""Every program takes a camera of that size."""

Placed = tuple[NDArray[np.float32], int | None]
"""Keypoints (K, 3), and the slot of the source that leads."""


class Grid:
    """Frames at any times to keypoints at a constant rate, the first at the first frame's time."""

    def __init__(self, fps: Fraction) -> None:
        self._period = float(1 / fps)
        self._start_s = 0.0
        self._count = 0
        self._last: TimedFrame | None = None

    @property
    def start_s(self) -> float | None:
        """Where the first frame lies, on the clock of the stamps that come now; None before it."""
        return None if self._last is None else self._start_s

    def hold(self, end_s: float) -> list[Placed]:
        """The last frame again, until the grid has lasted so long."""
        if self._last is None:
            return []
        held = self._last.keypoints, self._last.reference_source
        return self._up_to(self._start_s + min(end_s, self._count * self._period + MAX_HOLE_S), lambda at: held)

    def add(self, frame: TimedFrame) -> list[Placed]:
        """What the grid holds up to this frame. One that comes late is passed over."""
        last, self._last = self._last, frame
        if last is None:
            self._start_s, self._count = frame.stamp_s, 1
            return [(frame.keypoints, frame.reference_source)]
        passed = frame.stamp_s - last.stamp_s
        if not -MAX_HOLE_S < passed < MAX_HOLE_S:
            # The peer began anew: what follows joins on.
            self._start_s = frame.stamp_s - self._count * self._period
            return self._up_to(frame.stamp_s, lambda at: (frame.keypoints, frame.reference_source))
        if passed <= 0:
            self._last = last
            return []
        if passed > MAX_BRIDGE_S:
            return self._up_to(frame.stamp_s, lambda at: (last.keypoints, last.reference_source))
        return self._up_to(frame.stamp_s, lambda at: between(last, frame, (at - last.stamp_s) / passed))

    def _up_to(self, end_s: float, at: Callable[[float], Placed]) -> list[Placed]:
        made = []
        while (due := self._start_s + self._count * self._period) <= end_s + 1e-6:
            made.append(at(min(due, end_s)))
            self._count += 1
        return made


class Recorder:
    """One peer's video and sound into an .iwc file. The file appears under its name with `close`, and only if any
    picture came."""

    def __init__(self, path: Path, info: ModelInfo, sound: bool = True) -> None:
        """`sound`: whether any is to be expected."""
        self.path = path
        self.frames = 0
        self.sources = 0
        self.given_up = False
        self._info = info
        self._quantiser, self._tables = Quantiser(), load_tables()
        self._coder = MotionCoder(self._tables)
        self._grid = Grid(FPS)
        self._soundtrack = Soundtrack() if sound else None
        self._held: Levels | None = None
        self._waiting: list[tuple[Levels, int | None]] = []
        self._writer: ContainerWriter | None = None

    def source(self, packet: SourcePacket) -> None:
        """Raises MediaError where the file cannot be written."""
        if self._writer is None:
            self._writer = ContainerWriter(self.path, self._header())
        self._flush()
        self._writer.write_source(packet)
        self.sources += 1

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        """Raises MediaError where the file cannot be written."""
        if self._soundtrack is not None:
            self._soundtrack.motion(frames, arrived_s)
        if self._writer is None:  # nothing to see yet
            return
        for frame in frames:
            self._put(self._grid.add(frame))

    def sound(self, packet: Received) -> None:
        """Raises MediaError where the file cannot be written."""
        if self._soundtrack is not None:
            self._put_sound(self._soundtrack.push(packet, self._grid.start_s))

    def close(self) -> bool:
        """Whether there is a file now. Raises MediaError where it cannot be written."""
        if self._writer is None:
            return False
        if not self.frames:
            self._writer.abort()
            return False
        if self._soundtrack is not None:
            self._put_sound(self._soundtrack.rest(self._grid.start_s))
            self._put(self._grid.hold(self._soundtrack.end_s))
        self._flush()
        self._writer.close()
        self._writer = None
        return True

    def _put(self, grid: list[Placed]) -> None:
        for keypoints, reference_source in grid:
            self._held = self._quantiser.quantise(keypoints, self._held)
            self._waiting.append((self._held, reference_source))
            self.frames += 1
            if len(self._waiting) == MESSAGE:
                self._flush()

    def _put_sound(self, records: list[AudioPacket]) -> None:
        for record in records:
            if self._writer is not None:
                self._writer.write_audio(record)

    def _flush(self) -> None:
        if self._waiting and self._writer is not None:
            levels, reference_sources = zip(*self._waiting, strict=True)
            self._waiting.clear()
            payload, count = self._coder.encode(np.stack(levels), None), len(levels)
            self._writer.write_motion(
                MotionPacket(self.frames - count, count, None, payload, runs_of(reference_sources))
            )

    def _header(self) -> Header:
        header = Header(
            model_id=self._info.model_id,
            model_digest=self._info.digest,
            keypoints=self._info.keypoints,
            step_xy=self._quantiser.step_xy,
            step_strength=self._quantiser.step_strength,
            tables=self._tables.id,
            fps=FPS,
            size=self._info.size,
            frames=0,
        )
        return header if self._soundtrack is None else header.with_audio(PRE_SKIP, PACKET_MS * AUDIO_RATE // 1000)

    def give_up(self) -> None:
        """Nothing more can be written: no file is left."""
        if self._writer is not None:
            self._writer.abort()
        self._writer, self.given_up = None, True


class CallRecorder:
    """Records whoever sends a first picture; a fault of the disk ends the recording, not the call."""

    def __init__(self, call: Call, recorder: Recorder) -> None:
        self._call, self._recorder = call, recorder
        self._recorded: Link | None = None
        self._failed = False
        call.linked.append(self._linked)

    def _linked(self, participant: Participant, link: Link) -> None:
        link.recording = _OneLink(self, link, participant.name)
        if participant.playout is not None:
            participant.playout.recording = lambda packet: self.sound(link, packet)

    def source(self, link: Link, name: str, packet: SourcePacket) -> None:
        if self._recorded is None:
            self._recorded = link
            self._call.note(f"recording {name}")
        if self._recorded is link:
            self._guarded(lambda: self._recorder.source(packet))

    def motion(self, link: Link, frames: list[TimedFrame], arrived_s: float) -> None:
        if self._recorded is link:
            self._guarded(lambda: self._recorder.motion(frames, arrived_s))

    def sound(self, link: Link, packet: Received) -> None:
        if self._recorded is link:
            self._guarded(lambda: self._recorder.sound(packet))

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            work()
        except CodecError as error:
            self._failed = True
            self._recorder.give_up()
            self._call.note(f"not recording any more: {error}")


class _OneLink:
    """Tells the recorder which link something came from."""

    def __init__(self, recorder: CallRecorder, link: Link, name: str) -> None:
        self._recorder, self._link, self._name = recorder, link, name

    def source(self, packet: SourcePacket) -> None:
        self._recorder.source(self._link, self._name, packet)

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        self._recorder.motion(self._link, frames, arrived_s)


class VirtualCamera:
    """Shows the peer that was seen first to other programs, as a camera, for as long as it is in the call.

    Raises CodecError where pyvirtualcam is not installed, or finds no camera to feed.
    """

    def __init__(self, call: Call) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise CodecError("--virtual-camera needs pyvirtualcam: pip install pyvirtualcam.") from error
        width, height = CAMERA
        try:
            self._camera: Any = pyvirtualcam.Camera(width, height, float(FPS), fmt=pyvirtualcam.PixelFormat.RGB)
        except RuntimeError as error:
            raise CodecError(
                "--virtual-camera found no camera to feed: Linux needs v4l2loopback, Windows and macOS OBS Studio."
            ) from error
        self._call = call
        self._id: str | None = None
        call.watchers.append(self.show)

    def show(self, participant: Participant, shown: Shown) -> None:
        if self._id not in self._call.participants:
            self._id = participant.id
        if participant.id == self._id:
            self._camera.send(letterboxed(shown.picture, *CAMERA))

    def close(self) -> None:
        self._camera.close()


def letterboxed(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A square picture as high as the frame, in the middle of black."""
    frame = np.zeros((height, width, 3), np.uint8)
    left = (width - height) // 2
    frame[:, left : left + height] = cv2.resize(picture, (height, height), interpolation=cv2.INTER_CUBIC)
    return frame
