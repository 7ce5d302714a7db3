"""Read an .iwc file: pictures and sound, from the start or from any frame, also of damaged and truncated files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from iwcodec.codec.arguments import check_path, check_runtime
from iwcodec.codec.bitstream.packets import (
    MAX_PACKET_FRAMES,
    MAX_SLOT,
    AudioPacket,
    MotionPacket,
    Packet,
    SourcePacket,
)
from iwcodec.codec.bitstream.reader import MAX_DAMAGE, ContainerReader
from iwcodec.codec.decoder import Decoder, Frame
from iwcodec.codec.errors import FormatError, MediaError, VersionError, naming
from iwcodec.codec.media.audio.opus_track import OpusReader
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.shipped_model import check_model, load_runtime_of
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.runtime.types import Runtime

OPUS_PREROLL = AUDIO_RATE * 80 // 1000
"""Samples decoded and dropped before a seek target, so that the decoder has converged (RFC 7845, section 4.6)."""
MAX_SILENCE = 3600 * AUDIO_RATE
"""Maximum samples of silence inserted for a gap in the sound."""
RECORDED_SOURCES = 128
"""Library capacity for recorded calls, 2 MB per source. Which sources the call's decoder kept depends on their use,
which a decoder that starts in the middle does not know; so it keeps more."""
MAX_FILE_FRAMES = 10_000_000
"""Bound on the number of frames if the header does not state it."""


class IwcFile:
    """An .iwc file opened for decoding; a context manager.

    Raises MediaError if there is no such file, FormatError if it is not an .iwc file, VersionError if it needs another
    version or model.
    """

    def __init__(self, path: str | Path, runtime: Runtime | None = None) -> None:
        path = check_path("path", path)
        if runtime is not None:
            check_runtime(runtime)
        if not path.is_file():
            raise MediaError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
        self.reader = ContainerReader(path)
        try:
            self.header = self.reader.header
            with naming(path):
                self._check_tables()
                self.runtime = runtime or load_runtime_of(self.header)
                check_model(self.header, self.runtime.info)
        except BaseException:
            self.reader.close()
            raise
        self.undecodable: list[str] = []
        """Records with a valid checksum that could not be decoded: each once, however often it is read, and at most
        MAX_DAMAGE."""

    def __enter__(self) -> "IwcFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def _check_tables(self) -> None:
        known = (load_transform_tables().id, load_tables().id)  # of encoded files, and of recorded calls
        if self.header.tables not in known:
            raise VersionError(
                f"This file was coded with motion tables {self.header.tables:08x}; "
                f"this version has {known[0]:08x} and {known[1]:08x}."
            )

    def decoder(self) -> Decoder:
        """A new decoder with the parameters of the file's header."""
        quantiser = Quantiser(self.header.step_xy, self.header.step_strength)
        recorded = self.header.tables == load_tables().id
        capacity = RECORDED_SOURCES if recorded else CAPACITY
        suppression = self.header.suppression / 10
        return Decoder(self.runtime, quantiser, capacity=capacity, active=self.header.active, suppression=suppression)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Decoded frames from number `start` on. Frames of damaged records are missing; `damage` names them."""
        decoder, next_slot = self.decoder(), 0
        for packet in self.reader.seek(start) if start else self.reader.records():
            if isinstance(packet, SourcePacket):
                if packet.slot != next_slot:  # a source is missing, or a recorded call restarted with a key picture
                    decoder.reset_sources()
                next_slot = (packet.slot + 1) % (MAX_SLOT + 1)
            if not isinstance(packet, AudioPacket):
                try:
                    yield from (frame for frame in decoder.push(packet) if frame.number >= start)
                except FormatError as error:
                    self._note(*_named(packet), error)

    def samples(self, start: int = 0) -> Iterator[Samples]:
        """Sound from sample `start` on, in blocks of mono int16 at 48 kHz; silence where it is missing or damaged."""
        audio = self.header.audio
        if audio is None:
            return
        first = start + audio.pre_skip
        for at, block in self._decode_audio(OpusReader(pre_skip=0), max(0, first - OPUS_PREROLL)):
            if at + len(block) > first:
                yield block[max(0, first - at) :]

    def _decode_audio(self, opus: OpusReader, start: int) -> Iterator[tuple[int, Samples]]:
        """(number of the first sample, block) from sample `start` on, counted with the pre-skip."""
        at = None
        for packet in audio_from(self.reader.records(), start):
            if at is None:
                at = min(start, packet.first)
            if packet.first < at:
                continue
            for block in silence(min(packet.first - at, MAX_SILENCE)):
                yield at, block
                at += len(block)
            at = packet.first
            for payload in packet.packets:
                try:
                    block = opus.decode(payload)
                except FormatError as error:
                    self._note("sound", at, error)
                    block = opus.decode(None)
                yield at, block
                at += len(block)

    def _note(self, kind: str, number: int, error: FormatError) -> None:
        line = f"{kind} {number}: {error}"
        if line not in self.undecodable and len(self.undecodable) < MAX_DAMAGE:
            self.undecodable.append(line)

    @property
    def damage(self) -> list[str]:
        """Damaged records read so far, one line each."""
        return [*self.reader.damage, *self.undecodable]


def _named(packet: SourcePacket | MotionPacket) -> tuple[str, int]:
    """Kind and number of a packet, for reports."""
    return ("source", packet.slot) if isinstance(packet, SourcePacket) else ("motion", packet.first)


def audio_from(packets: Iterable[Packet], start: int) -> Iterator[AudioPacket]:
    """The audio packets of a file, beginning with the last one whose first sample is not after `start`."""
    last: AudioPacket | None = None
    for packet in packets:
        if not isinstance(packet, AudioPacket):
            continue
        if last is not None and packet.first > start:
            yield last
        last = packet
    if last is not None:
        yield last


def silence(count: int) -> Iterator[Samples]:
    """`count` samples of silence, in blocks of at most a second."""
    for start in range(0, count, AUDIO_RATE):
        yield np.zeros(min(AUDIO_RATE, count - start), np.int16)


def all_pictures(file: IwcFile) -> Iterator[Picture]:
    """Pictures of all frames of a file; missing frames are filled as by `fill_gaps`.

    Frames missing at the end repeat the last picture, at most MAX_PACKET_FRAMES for each damaged record: a forged
    number of frames, in the header or in a record with a valid checksum, must not fill the disk.
    """
    count, picture = 0, None
    for picture in fill_gaps(file.frames(), min(file.header.frames or MAX_FILE_FRAMES, file.reader.max_frames)):
        count += 1
        yield picture
    if picture is not None and not file.reader.truncated:
        for _ in range(min(file.header.frames - count, len(file.damage) * MAX_PACKET_FRAMES)):
            yield picture


def fill_gaps(frames: Iterator[Frame], limit: int) -> Iterator[Picture]:
    """Pictures at the constant frame rate: a missing frame repeats the previous one; missing first frames repeat the
    first that is there. Frames from number `limit` on are dropped: a forged number must not fill the disk."""
    count, previous = 0, None
    for frame in frames:
        if not count <= frame.number < limit:
            continue
        while count < frame.number:
            yield frame.picture if previous is None else previous
            count += 1
        yield frame.picture
        count, previous = frame.number + 1, frame.picture
