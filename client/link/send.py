"""Packing of what a link sends: frames into motion messages, source units into paced chunks.

Pure: time is passed in, in seconds.
"""

from collections import deque

from iwcodec.client.link.congestion_control import SendParameters
from iwcodec.client.link.messages import MAX_MESSAGE_FRAMES, MAX_SPAN_MS, MotionMessage, SourceChunk
from iwcodec.client.video.source_sequence import SourceSequence
from iwcodec.client.video.video_sender import OutgoingFrame
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.space import MotionSpace
from iwcodec.codec.motion.types import Quantiser

PART = 400
"""Bytes of a source in one chunk. With its headers it takes 135 ms on a link of 30 kbps, less than the interval between
motion messages."""
LAST_PART = 1.2
"""Largest last part of a unit, in usual parts: a short rest costs no packet of its own."""
NARROW_PART = 150
"""PART on narrow links."""
NARROW_KBPS = 5.0
"""Rate limit of sources up to which a link counts as narrow."""
MAX_BEHIND = 8
"""Units by which a receiver may be behind; further behind it gets a fresh sequence, which is shorter."""
FIRST_PART = 840
"""Bytes of the first picture in one chunk. No motion waits behind it yet, so there are fewer packets. A link of 12 kbps
carries it well before it counts as lost (sctp.FIRST_RTO_S)."""
MIN_PART = 64
"""Bytes that may be sent at once of a unit that arrives while none waits."""
SAVED = LAST_PART * PART
"""Bytes of sources that an idle link saves up, unless it is narrow: most sources leave at once, 0.4 s sooner. With 800
motion is up to 0.42 s late on a link of 24 kbps."""
FRAME_MS = 40
"""Interval of camera frames that SendParameters are made for. From other cameras a message takes as many frames as come
in the same time: neither more packets from a fast one, nor more delay from a slow one."""
MAX_GAP_MS = 250
"""Longest interval after which the next frame is expected as late again."""
MAX_REPEATS = 2
"""Maximum number of messages whose frames are repeated (SendParameters.repeats)."""
_KEPT_STAMPS = 256
"""Frames whose time stamps are kept."""


def quantiser(coarseness: int) -> Quantiser:
    """The quantiser that both sides use: the usual steps, doubled `coarseness` times."""
    times = 2**coarseness
    return Quantiser(Quantiser.step_xy * times, Quantiser.step_strength * times)


class MotionSender:
    """Packs frames into motion messages. Frames are numbered per link, in the order in which they are taken."""

    def __init__(self, sending: SendParameters) -> None:
        self.sending = sending
        self.captured: dict[int, int] = {}
        """Time stamps (ms) of the newest frames, by number."""
        self._encoder = MotionEncoder(quantiser(sending.coarseness))
        self._coarseness, self._stride = sending.coarseness, sending.stride
        self._offered = 0
        """Number of camera frames, including those that the stride drops."""
        self._count = 0
        """Number of frames taken; they are numbered from 0."""
        self._earliest = 0
        """The first frame with the present quantiser steps."""
        self._next = 0
        """The first frame that has not been sent."""
        self._repeatable: deque[int] = deque(maxlen=MAX_REPEATS)
        """First frame of each of the last messages, the newest last."""
        self._acknowledged = -1
        self._sequence = 0

    @property
    def waiting(self) -> int:
        """Number of frames that have not been sent yet."""
        return self._count - self._next

    def take(self, frame: OutgoingFrame, space: MotionSpace | None = None) -> bool:
        """Take a camera frame, or drop it according to the stride. Returns whether the message is full. A message that
        began with a longer stride counts as full, because its first frame would otherwise wait too long. `space`:
        coordinates of the reference source, with which the frame takes half the bytes."""
        self._offered += 1
        if (self._offered - 1) % self.sending.stride:
            return False
        if self.sending.coarseness != self._coarseness and not self.waiting:
            self._coarseness = self.sending.coarseness
            self._encoder.requantise(quantiser(self._coarseness))
            self._earliest = self._count
        gap_ms = frame.stamp_ms - self.captured.get(self._count - 1, frame.stamp_ms)
        if not 0 <= gap_ms <= MAX_SPAN_MS // MAX_MESSAGE_FRAMES:
            self._drop_all()  # no message spans a pause or a step of the clock
            gap_ms = 0
        number = self._encoder.push(frame.keypoints, frame.reference_source, frame.gram, frame.regions, space)
        self.captured[number] = frame.stamp_ms
        self.captured.pop(number - _KEPT_STAMPS, None)
        is_mixed = self.waiting > 0 and self.sending.stride != self._stride
        self._count, self._stride = number + 1, self.sending.stride
        return is_mixed or self._is_full(gap_ms)

    def _is_full(self, gap_ms: int) -> bool:
        """Whether the unsent frames span the time of a message; the next is expected `gap_ms` after the newest."""
        usual_ms = self.sending.stride * FRAME_MS
        span_ms = self.captured[self._count - 1] - self.captured[self._next] + min(gap_ms or usual_ms, MAX_GAP_MS)
        is_long = span_ms > (self.sending.message_frames - 0.5) * usual_ms
        return is_long or self.waiting >= MAX_MESSAGE_FRAMES

    def skip(self, kept: int | None = None) -> int:
        """Drop all unsent frames but the newest `kept` (default: one message), while messages cannot be sent. Returns
        how many were dropped."""
        dropped = max(0, self.waiting - (self.sending.message_frames if kept is None else kept))
        self._next += dropped
        return dropped

    def message(self, acknowledged: int | None) -> bytes:
        """The next message: the unsent frames, and before them repeated ones that are not acknowledged yet
        (SendParameters.repeats). `acknowledged`: number of the newest frame decoded of the other direction. Raises
        ValueError if no frame waits."""
        if not self.waiting:
            raise ValueError("no frame waits")
        first = self._next
        if self.sending.repeats and self._repeatable:
            repeated = self._repeatable[-min(self.sending.repeats, len(self._repeatable))]
            first = max(repeated, self._acknowledged + 1, self._earliest)
        first = max(min(first, self._next), self._count - MAX_MESSAGE_FRAMES)
        packet = self._encoder.pack(first, self._count - first)
        stamps = tuple(self.captured[number] for number in range(first, self._count))
        low = None if acknowledged is None else acknowledged & 0xFF
        message = MotionMessage(self._sequence, stamps, self._coarseness, low, packet)
        self._sequence = (self._sequence + 1) & 0xFF
        self._repeatable.append(self._next)
        self._next = self._count
        return message.to_bytes()

    def acknowledge(self, number: int) -> None:
        """The receiver has decoded this frame, so later ones may refer to it."""
        if self._acknowledged < number < self._next:
            self._acknowledged = number
            self._encoder.acknowledge(number)

    def acknowledge_low(self, low: int) -> None:
        """`acknowledge` the newest sent frame with this number modulo 256. Ignored if two frames after the last
        acknowledged one could match; reports carry the whole number."""
        if self._next - 1 - self._acknowledged <= 0xFF:
            self.acknowledge(self._next - 1 - ((self._next - 1 - low) & 0xFF))

    def forget_acknowledged(self) -> None:
        """The receiver may have lost its state, or the slots hold other sources: the next messages refer to no earlier
        frame and repeat none, and frames that wait name no source."""
        self._encoder.forget()
        self._earliest = self._next
        self._repeatable.clear()

    def _drop_all(self) -> None:
        """Drop unsent frames and repetitions."""
        self._next = self._count
        self._repeatable.clear()


class SourceSender:
    """Splits the units of a sequence into chunks, at a limited rate."""

    def __init__(self) -> None:
        self.sequence: SourceSequence | None = None
        self.index = 0
        """The unit that is being sent, or the next one."""
        self._offset = 0
        self._first: int | None = None
        self._part = self._burst = PART
        """Bytes of a chunk, and the largest burst, which is also what may catch up after a delay."""
        self._budget = 0.0
        self._filled_s: float | None = None

    def start(self, sequence: SourceSequence | None, index: int = 0, first: bool = False) -> None:
        """Send `sequence` from the unit at `index` on. `first`: the receiver has no picture, so this unit is sent in
        larger chunks. The larger burst remains for the rest of the sequence, because sources that arrive late make the
        VideoSender add others."""
        self.sequence, self.index, self._offset = sequence, index, 0
        self._first = index if first else None
        self._part = self._burst = FIRST_PART if first else PART
        self._budget, self._filled_s = float(self._burst), None

    def backlog(self) -> int:
        """Units not sent yet."""
        return 0 if self.sequence is None else self.sequence.next - self.index

    def can_resume(self, number: int | None, index: int) -> bool:
        """Whether a receiver that has what comes before this unit can go on with the present sequence."""
        sequence = self.sequence
        if sequence is None or number != sequence.number or index > sequence.next:
            return False
        return sequence.next - index <= MAX_BEHIND and all(n in sequence.units for n in range(index, sequence.next))

    def is_lost(self) -> bool:
        """Whether the receiver is more than MAX_BEHIND units behind, or the unit it needs is not kept any more."""
        return self.sequence is not None and (
            self.backlog() > MAX_BEHIND or self.index < self.sequence.next - len(self.sequence.units)
        )

    def fill(self, now_s: float, kbps: float) -> None:
        """Add to the budget for the time since the last call, at `kbps`. Budget that is not used is lost."""
        if self.index != self._first:
            self._part = PART if kbps > NARROW_KBPS else NARROW_PART
        if self._filled_s is not None:
            self._budget += (now_s - self._filled_s) * kbps * 125
            most = self._burst if self.backlog() else MIN_PART
            self._budget = min(self._budget, max(most, SAVED) if kbps > NARROW_KBPS else most)
        self._filled_s = now_s

    def next_part(self) -> int:
        """Bytes of the next chunk's part; 0 if no unit waits."""
        unit = None if self.sequence is None else self.sequence.units.get(self.index)
        rest = 0 if unit is None else len(unit.packet) - self._offset
        most = 1.0 if self.index == self._first else LAST_PART
        return rest if rest <= most * self._part else self._part

    def chunk(self) -> SourceChunk | None:
        """The next chunk, if there is one and the budget covers all of it: each costs a packet."""
        unit = None if self.sequence is None else self.sequence.units.get(self.index)
        if self.sequence is None or unit is None:
            return None
        length = self.next_part()
        if length > self._budget:
            return None
        part = unit.packet[self._offset : self._offset + length]
        chunk = SourceChunk(self.sequence.number, self.index, unit.is_snapshot, len(unit.packet), self._offset, part)
        self._budget -= length
        self._offset += length
        if self._offset == len(unit.packet):
            self.index, self._offset = self.index + 1, 0
        return chunk
