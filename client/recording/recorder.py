"""`--record`: writes a participant's video and audio to an .iwc file without re-encoding.

The file holds the received AV1 units and Opus packets. Only the keypoints are resampled to the file's constant frame
rate and coded again.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from iwcodec.client.audio.jitter_buffer import AudioRtpPacket
from iwcodec.client.audio.sender import PACKET_MS
from iwcodec.client.link.link import Link
from iwcodec.client.recording.resampler import KeypointResampler
from iwcodec.client.recording.soundtrack import PRE_SKIP, Soundtrack
from iwcodec.client.room.call import Call, Participant
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, SourcePacket, region_runs, runs_of
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.types import Levels, Quantiser
from iwcodec.models.runtime.types import ModelInfo

FPS: Final = Fraction(25)
"""Frame rate of recordings."""
FRAMES_PER_PACKET: Final = 50
"""Maximum number of frames in a motion packet of the file."""


class Recorder:
    """Writes one participant's video and audio to an .iwc file.

    The file appears under its name on `close`, and only if a picture arrived. `source`, `motion`, `audio` and `close`
    raise MediaError where the file cannot be written; call `give_up` then.
    """

    def __init__(self, path: Path, info: ModelInfo, audio: bool = True) -> None:
        """`audio`: whether the file has an audio track."""
        self.path = path
        self.frames = 0
        """Frames recorded so far."""
        self.sources = 0
        """Source pictures recorded so far, variants included."""
        self.given_up = False
        self._info = info
        self._quantiser, self._tables = Quantiser(), load_tables()
        self._coder = PredictiveCoder(self._tables)
        self._resampler = KeypointResampler(FPS)
        self._soundtrack = Soundtrack() if audio else None
        self._levels: Levels | None = None
        self._pending: list[tuple[Levels, TimedFrame]] = []
        """Levels of the frames of the next motion packet, and what else is known of them."""
        self._writer: ContainerWriter | None = None

    def source(self, packet: SourcePacket) -> None:
        """Write a source picture; the first one creates the file."""
        if self._writer is None:
            self._writer = ContainerWriter(self.path, self._header())
        self._flush()
        self._writer.write_source(packet)
        self.sources += 1

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        """Write the frames of a motion message that arrived at `arrived_s` (monotonic clock)."""
        if self._soundtrack is not None:
            self._soundtrack.motion(frames, arrived_s)
        if self._writer is None:  # frames before the first source cannot be shown
            return
        for frame in frames:
            self._write_frames(self._resampler.add(frame))

    def audio(self, packet: AudioRtpPacket) -> None:
        """Write a received audio packet."""
        if self._soundtrack is not None:
            self._write_audio(self._soundtrack.push(packet, self._resampler.start_s))

    def close(self) -> bool:
        """Finish the file; returns whether there is one."""
        if self._writer is None:
            return False
        if not self.frames:
            self._writer.abort()
            return False
        if self._soundtrack is not None:
            self._write_audio(self._soundtrack.flush(self._resampler.start_s))
            self._write_frames(self._resampler.hold(self._soundtrack.end_s))
        self._flush()
        self._writer.close()
        self._writer = None
        return True

    def give_up(self) -> None:
        """Stop recording and delete the unfinished file."""
        if self._writer is not None:
            self._writer.abort()
        self._writer, self.given_up = None, True

    def _write_frames(self, frames: list[TimedFrame]) -> None:
        for frame in frames:
            self._levels = self._quantiser.quantise(frame.keypoints, self._levels)
            self._pending.append((self._levels, frame))
            self.frames += 1
            if len(self._pending) == FRAMES_PER_PACKET:
                self._flush()

    def _write_audio(self, packets: list[AudioPacket]) -> None:
        for packet in packets:
            if self._writer is not None:
                self._writer.write_audio(packet)

    def _flush(self) -> None:
        """Write the pending frames as a motion packet."""
        if self._pending and self._writer is not None:
            levels, frames = zip(*self._pending, strict=True)
            self._pending.clear()
            payload, count = self._coder.encode(np.stack(levels), None), len(levels)
            runs = runs_of([frame.reference_source for frame in frames])
            regions = region_runs([frame.regions for frame in frames])
            self._writer.write_motion(MotionPacket(self.frames - count, count, None, payload, runs, regions=regions))

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


class CallRecorder:
    """Records the participant whose picture arrives first. A write error ends the recording but not the call."""

    def __init__(self, call: Call, recorder: Recorder) -> None:
        self._call, self._recorder = call, recorder
        self._recorded: Link | None = None
        self._failed = False
        call.link_listeners.append(self._listen)

    def _listen(self, participant: Participant, link: Link) -> None:
        link.recording = _LinkListener(self, link, participant.name)
        if participant.audio_buffer is not None:
            participant.audio_buffer.packet_listener = lambda packet: self.audio(link, packet)

    def source(self, link: Link, name: str, packet: SourcePacket) -> None:
        if self._recorded is None:
            self._recorded = link
            self._call.notify(f"recording {name}")
        if self._recorded is link:
            self._write(lambda: self._recorder.source(packet))

    def motion(self, link: Link, frames: list[TimedFrame], arrived_s: float) -> None:
        if self._recorded is link:
            self._write(lambda: self._recorder.motion(frames, arrived_s))

    def audio(self, link: Link, packet: AudioRtpPacket) -> None:
        if self._recorded is link:
            self._write(lambda: self._recorder.audio(packet))

    def _write(self, work: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            work()
        except CodecError as error:
            self._failed = True
            self._recorder.give_up()
            self._call.notify(f"recording stopped: {error}")


class _LinkListener:
    """Passes what one link receives to the recorder."""

    def __init__(self, recorder: CallRecorder, link: Link, name: str) -> None:
        self._recorder, self._link, self._name = recorder, link, name

    def source(self, packet: SourcePacket) -> None:
        self._recorder.source(self._link, self._name, packet)

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        self._recorder.motion(self._link, frames, arrived_s)
