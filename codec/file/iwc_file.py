"""An .iwc file as pictures and sound, from the beginning or from anywhere, as far as it is whole."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from iwcodec.codec.bitstream.packets import MAX_FRAMES as MAX_TOGETHER
from iwcodec.codec.bitstream.packets import MAX_SLOT, AudioPacket, MotionPacket, Packet, SourcePacket
from iwcodec.codec.bitstream.reader import MAX_DAMAGE, ContainerReader
from iwcodec.codec.decoder import Decoder, Frame
from iwcodec.codec.errors import FormatError, MediaError, VersionError
from iwcodec.codec.media.opus import OpusReader
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.shipped_model import check_model, load_runtime_of
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.runtime.types import Runtime

OPUS_PREROLL = AUDIO_RATE * 80 // 1000
"""Samples after which a decoder that begins anywhere has settled (RFC 7845, section 4.6)."""
MAX_SILENCE = 3600 * AUDIO_RATE
"""Samples of silence that a gap in the sound may be filled with."""
RECORDED_SOURCES = 128
"""Kept of a recorded call, which may go on for hours: which of them it kept itself, what was used says, and who begins
in the middle does not know that. 2 MB each."""
MAX_FRAMES = 10_000_000
"""Bound where the header does not say how many frames there are."""


class IwcFile:
    """An .iwc file opened for decoding; a context manager.

    Raises FormatError for a file that is none, VersionError for one that needs another version or model.
    """

    def __init__(self, path: str | Path, runtime: Runtime | None = None) -> None:
        path = Path(path)
        if not path.is_file():
            raise MediaError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
        self.reader = ContainerReader(path)
        try:
            self.header = self.reader.header
            self._check_tables()
            self.runtime = runtime or load_runtime_of(self.header)
            check_model(self.header, self.runtime.info)
        except BaseException:
            self.reader.close()
            raise
        self.bad: list[str] = []
        """What could not be decoded although its checksum was right: each place once, however often it is read, and
        MAX_DAMAGE of them at most."""

    def __enter__(self) -> "IwcFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def _check_tables(self) -> None:
        here = (load_transform_tables().id, load_tables().id)  # of encoded files, and of recorded calls
        if self.header.tables not in here:
            raise VersionError(
                f"This file was coded with motion tables {self.header.tables:08x}; "
                f"this version has {here[0]:08x} and {here[1]:08x}."
            )

    def decoder(self) -> Decoder:
        quantiser = Quantiser(self.header.step_xy, self.header.step_strength)
        recorded = self.header.tables == load_tables().id
        capacity = RECORDED_SOURCES if recorded else CAPACITY
        zone = self.header.suppression / 10
        return Decoder(self.runtime, quantiser, capacity=capacity, active=self.header.active, suppression=zone)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Rebuilt frames from number `start` on. Frames whose record is damaged are missing; `damage` names them."""
        decoder, due = self.decoder(), 0
        for packet in self.reader.seek(start) if start else self.reader.records():
            if isinstance(packet, SourcePacket):
                if packet.slot != due:  # where a recorded call began anew it goes on with a key picture
                    decoder.miss_sources()
                due = (packet.slot + 1) % (MAX_SLOT + 1)
            if isinstance(packet, SourcePacket | MotionPacket):
                try:
                    yield from (frame for frame in decoder.push(packet) if frame.number >= start)
                except FormatError as error:
                    kind, number = (
                        ("source", packet.slot) if isinstance(packet, SourcePacket) else ("motion", packet.first)
                    )
                    self._note(kind, number, error)

    def samples(self, start: int = 0) -> Iterator[Samples]:
        """The sound from sample `start` on as mono int16 blocks at 48 kHz; what is missing or damaged is silent."""
        audio = self.header.audio
        if audio is None:
            return
        wanted = start + audio.pre_skip
        for at, block in self._decoded(OpusReader(pre_skip=0), max(0, wanted - OPUS_PREROLL)):
            if at + len(block) > wanted:
                yield block[max(0, wanted - at) :]

    def _decoded(self, opus: OpusReader, begin: int) -> Iterator[tuple[int, Samples]]:
        """Blocks, and which sample their first is, from a sample on; both counted with the pre-skip."""
        at = None
        for packet in from_sample(self.reader.records(), begin):
            if at is None:
                at = min(begin, packet.first)
            if packet.first < at:
                continue
            for block in silence(min(packet.first - at, MAX_SILENCE)):
                yield at, block
                at += len(block)
            at = packet.first
            for piece in packet.packets:
                try:
                    block = opus.decode(piece)
                except FormatError as error:
                    self._note("sound", at, error)
                    block = opus.decode(None)
                yield at, block
                at += len(block)

    def _note(self, kind: str, number: int, error: FormatError) -> None:
        line = f"{kind} {number}: {error}"
        if line not in self.bad and len(self.bad) < MAX_DAMAGE:
            self.bad.append(line)

    @property
    def damage(self) -> list[str]:
        return [*self.reader.damage, *self.bad]


def from_sample(packets: Iterable[Packet], begin: int) -> Iterator[AudioPacket]:
    """The sound of a file from the last packet on that begins no later than this sample."""
    held: AudioPacket | None = None
    for packet in packets:
        if not isinstance(packet, AudioPacket):
            continue
        if held is not None and packet.first > begin:
            yield held
        held = packet
    if held is not None:
        yield held


def silence(count: int) -> Iterator[Samples]:
    """So many samples, a second at a time."""
    for begin in range(0, count, AUDIO_RATE):
        yield np.zeros(min(AUDIO_RATE, count - begin), np.int16)


def held_to_the_end(file: IwcFile) -> Iterator[Picture]:
    """A file's pictures. Where records are damaged the last picture stands for what they held at the end, at most a
    message for each: a forged number of frames must not fill the disk, nor one that is forged alike in the header and
    in a record."""
    written, held = 0, None
    for held in filled(file.frames(), min(file.header.frames or MAX_FRAMES, file.reader.most_frames)):
        written += 1
        yield held
    if held is not None and not file.reader.truncated:
        for _ in range(min(file.header.frames - written, len(file.damage) * MAX_TOGETHER)):
            yield held


def filled(frames: Iterator[Frame], limit: int) -> Iterator[Picture]:
    """Pictures on the regular grid: a missing frame repeats the one before it (the first ones, the one after).

    Frames that claim to lie beyond `limit` are left out: a forged number must not fill the disk.
    """
    written, held = 0, None
    for frame in frames:
        if not written <= frame.number < limit:
            continue
        while written < frame.number:
            yield frame.picture if held is None else held
            written += 1
        yield frame.picture
        written, held = frame.number + 1, frame.picture
