"""`--record`: writes each participant's video and audio to an .iwc file without re-encoding.

A file holds the received AV1 units and Opus packets. Only the keypoints are resampled to the file's constant frame
rate and coded again.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from iwcodec.client.audio.jitter_buffer import AudioRtpPacket
from iwcodec.client.audio.sender import PACKET_MS
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.recording.resampler import KeypointResampler, ResampledFrame
from iwcodec.client.recording.soundtrack import PRE_SKIP, Soundtrack
from iwcodec.client.room.call import Call, Participant
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, SourcePacket, runs_of
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
        """Source pictures recorded so far."""
        self.given_up = False
        self._info = info
        self._quantiser, self._tables = Quantiser(), load_tables()
        self._coder = PredictiveCoder(self._tables)
        self._resampler = KeypointResampler(FPS)
        self._soundtrack = Soundtrack() if audio else None
        self._levels: Levels | None = None
        self._pending: list[tuple[Levels, int | None]] = []
        """Levels and reference source of the frames of the next motion packet."""
        self._writer: ContainerWriter | None = None
        self._arrived_s: float | None = None
        """When the last motion message arrived."""
        self._restarted = False

    def restart(self) -> None:
        """The participant was restarted: what follows has other clocks, and continues after a pause as long as that in
        the arrivals."""
        if self._soundtrack is not None:
            self._write_audio(self._soundtrack.restart(self._resampler.start_s))
        self._restarted = True

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
        if self._restarted and self._arrived_s is not None:
            self._resampler.restart(arrived_s - self._arrived_s)
        self._restarted, self._arrived_s = False, arrived_s
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

    def _write_frames(self, frames: list[ResampledFrame]) -> None:
        for keypoints, reference_source in frames:
            self._levels = self._quantiser.quantise(keypoints, self._levels)
            self._pending.append((self._levels, reference_source))
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
            levels, reference_sources = zip(*self._pending, strict=True)
            self._pending.clear()
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


class CallRecorder:
    """Records everybody whose picture arrives, each to a file of their own. A person who leaves and joins again, or
    whose program is restarted, is recorded to the same file. A write error ends a recording but not the call."""

    def __init__(self, call: Call, make_recorder: Callable[[str | None], Recorder]) -> None:
        """`make_recorder` makes the recorder for a name; for None that of the first participant."""
        self.recordings: list[_Recording] = []
        self._call, self._make_recorder = call, make_recorder
        call.link_listeners.append(self._listen)

    def _listen(self, participant: Participant, link: Link) -> None:
        link.recording = listener = _LinkListener(self, participant, link)
        if participant.audio_buffer is not None:
            participant.audio_buffer.packet_listener = listener.audio

    def begin(self, participant: Participant, link: Link) -> "_Recording":
        """The recording that a link's first picture belongs to: the person's, if there is one that has ended."""
        for recording in self.recordings:
            if recording.name == participant.name and recording.link.state is LinkState.CLOSED:
                recording.link = link
                recording.write(recording.recorder.restart, self._call)
                self._call.notify(f"recording {participant.name} again")
                return recording
        name = participant.name if self.recordings else None
        recording = _Recording(participant.name, link, self._make_recorder(name))
        self.recordings.append(recording)
        self._call.notify(f"recording {participant.name}")
        return recording

    def write(self, recording: "_Recording", work: Callable[[], None]) -> None:
        recording.write(work, self._call)


@dataclass
class _Recording:
    """The recording of one person."""

    name: str
    link: Link
    """The person's present or last link."""
    recorder: Recorder

    def write(self, work: Callable[[], None], call: Call) -> None:
        if self.recorder.given_up:
            return
        try:
            work()
        except CodecError as error:
            self.recorder.give_up()
            call.notify(f"recording of {self.name} stopped: {error}")


class _LinkListener:
    """Passes what one link receives to the recorder, from its first picture on."""

    def __init__(self, recorder: CallRecorder, participant: Participant, link: Link) -> None:
        self._recorder, self._participant, self._link = recorder, participant, link
        self._recording: _Recording | None = None

    def restart(self) -> None:
        if self._recording is not None:
            self._recorder.write(self._recording, self._recording.recorder.restart)

    def source(self, packet: SourcePacket) -> None:
        if self._recording is None:
            self._recording = self._recorder.begin(self._participant, self._link)
        recorder = self._recording.recorder
        self._recorder.write(self._recording, lambda: recorder.source(packet))

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        if self._recording is not None:
            recorder = self._recording.recorder
            self._recorder.write(self._recording, lambda: recorder.motion(frames, arrived_s))

    def audio(self, packet: AudioRtpPacket) -> None:
        if self._recording is not None:
            recorder = self._recording.recorder
            self._recorder.write(self._recording, lambda: recorder.audio(packet))


def path_for(path: Path, name: str | None) -> Path:
    """The file of a participant: `path` for the first one (`name` None), else beside it with the name, and with a
    number if that exists."""
    if name is None:
        return path
    stem = f"{path.stem}-{re.sub('[^A-Za-z0-9]+', '-', name).strip('-') or 'somebody'}"
    numbers = ("" if number == 1 else f"-{number}" for number in count(1))
    return next(free for number in numbers if not (free := path.with_name(f"{stem}{number}{path.suffix}")).exists())
