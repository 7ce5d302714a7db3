"""What a link sends: frames into motion messages, source units into paced chunks. Pure: time is passed in."""

from collections import deque

from iwcodec.client.video.congestion_control import Sending
from iwcodec.client.video.messages import MAX_FRAMES, MAX_SPAN_MS, MotionMessage, SourceChunk
from iwcodec.client.video.video_sender import OutgoingFrame, SourceSequence
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.types import Quantiser

PART = 300
"""Bytes of a source in one chunk: with its headers 105 ms of a link of 30 kbps, less than from one motion message to
the next."""
NARROW_PART = 150
"""On links that carry less."""
NARROW_KBPS = 5.0
"""Where sources may take no more than this, their chunks are smaller."""
MAX_BEHIND = 8
"""Units: a receiver that is further behind is better off with a fresh sequence."""
FIRST_PART = 840
"""Of the first picture, which nothing else has to get past yet: fewer packets. What a link of 12 kbps carries well
before it counts as lost (sctp.FIRST_RTO_S)."""
MIN_PART = 64
"""Bytes that the next unit may send at once where none has waited."""
MAX_REPEATS = 2
_KEPT = 256


def quantiser(coarseness: int) -> Quantiser:
    """Both sides': the usual steps, doubled `coarseness` times."""
    times = 2**coarseness
    return Quantiser(Quantiser.step_xy * times, Quantiser.step_strength * times)


class MotionSender:
    """Frames in, messages out. Frames are numbered by link, in the order they are taken."""

    def __init__(self, sending: Sending) -> None:
        self.sending = sending
        self.captured: dict[int, int] = {}
        """The stamps (ms) of the newest frames, by number."""
        self._encoder = MotionEncoder(quantiser(sending.coarseness))
        self._coarseness, self._stride = sending.coarseness, sending.stride
        self._offered = 0
        self._taken = 0
        self._earliest = 0
        """The first frame with the present steps."""
        self._next = 0
        """The first frame that waits."""
        self._repeatable: deque[int] = deque(maxlen=MAX_REPEATS)
        """The first frames of the last messages, the newest last."""
        self._acknowledged = -1
        self._sequence = 0

    @property
    def waiting(self) -> int:
        """Frames that wait for their message to fill."""
        return self._taken - self._next

    def take(self, frame: OutgoingFrame) -> bool:
        """A frame, unless it is one that is not to be sent now. Returns whether a message is full; one that began when
        fewer frames were sent is, for its first frame would wait longer than any before or after it."""
        self._offered += 1
        if (self._offered - 1) % self.sending.stride:
            return False
        if self.sending.coarseness != self._coarseness and not self.waiting:
            self._coarseness = self.sending.coarseness
            self._encoder.requantise(quantiser(self._coarseness))
            self._earliest = self._taken
        if self.captured and not 0 <= frame.stamp_ms - self.captured[self._taken - 1] <= MAX_SPAN_MS // MAX_FRAMES:
            self._start_anew()  # a pause, or a clock that was set: no message spans it
        number = self._encoder.push(frame.keypoints, frame.reference_source, frame.gram)
        self.captured[number] = frame.stamp_ms
        self.captured.pop(number - _KEPT, None)
        mixed = self.waiting > 0 and self.sending.stride != self._stride
        self._taken, self._stride = number + 1, self.sending.stride
        return mixed or self.waiting >= self.sending.message_frames

    def skip(self, kept: int | None = None) -> int:
        """The way out is blocked: only the newest frames, so many or a message's worth, go on waiting. Returns how many
        were given up."""
        given_up = max(0, self.waiting - (self.sending.message_frames if kept is None else kept))
        self._next += given_up
        return given_up

    def message(self, acknowledged: int | None) -> bytes:
        """The frames that wait; where messages get lost with those of the messages before, unless they are known to
        have come. `acknowledged` is the newest frame decoded of the other direction. Raises ValueError where none
        waits."""
        if not self.waiting:
            raise ValueError("no frame waits")
        first = self._next
        if self.sending.repeats and self._repeatable:
            repeated = self._repeatable[-min(self.sending.repeats, len(self._repeatable))]
            first = max(repeated, self._acknowledged + 1, self._earliest)
        first = max(min(first, self._next), self._taken - MAX_FRAMES)
        packet = self._encoder.pack(first, self._taken - first)
        stamps = tuple(self.captured[number] for number in range(first, self._taken))
        low = None if acknowledged is None else acknowledged & 0xFF
        message = MotionMessage(self._sequence, stamps, self._coarseness, low, packet)
        self._sequence = (self._sequence + 1) & 0xFF
        self._repeatable.append(self._next)
        self._next = self._taken
        return message.to_bytes()

    def acknowledge(self, number: int) -> None:
        """The receiver has decoded this frame."""
        if self._acknowledged < number < self._next:
            self._acknowledged = number
            self._encoder.acknowledge(number)

    def acknowledge_low(self, low: int) -> None:
        """Likewise from the number modulo 256: the newest such frame that was sent. Where so many may be missing that
        it could be one of two, reports say which."""
        if self._next - 1 - self._acknowledged <= 0xFF:
            self.acknowledge(self._next - 1 - ((self._next - 1 - low) & 0xFF))

    def forget_acknowledged(self) -> None:
        """The receiver may have lost everything: the next messages stand alone."""
        self._encoder.requantise(quantiser(self._coarseness))
        self._earliest = self._taken
        self._start_anew()

    def _start_anew(self) -> None:
        """Nothing before this is sent."""
        self._next = self._taken
        self._repeatable.clear()


class SourceSender:
    """Units of a sequence, part by part, at a limited rate."""

    def __init__(self) -> None:
        self.sequence: SourceSequence | None = None
        self.index = 0
        """The unit that is being sent, or the next one."""
        self._offset = 0
        self._first: int | None = None
        self._part = self._burst = PART
        """Bytes of a chunk, and of what may be sent at once, now and after a hold-up."""
        self._budget = 0.0
        self._filled_s: float | None = None

    def start(self, sequence: SourceSequence | None, index: int = 0, first: bool = False) -> None:
        """`first`: the receiver has no picture, and wants the one at `index` before anything else. What follows in the
        sequence may still make up for a hold-up: sources that come late make the feed add others."""
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
        """Whether the receiver is so far behind that the unit it needs is not kept any more, or not worth sending."""
        return self.sequence is not None and (
            self.backlog() > MAX_BEHIND or self.index < self.sequence.next - len(self.sequence.units)
        )

    def fill(self, now_s: float, kbps: float) -> None:
        """Let time pass: this much more may be sent. What is not used, because nothing waits, is lost."""
        if self.index != self._first:
            self._part = PART if kbps > NARROW_KBPS else NARROW_PART
        if self._filled_s is not None:
            self._budget += (now_s - self._filled_s) * kbps * 125
            self._budget = min(self._budget, self._burst if self.backlog() else MIN_PART)
        self._filled_s = now_s

    def chunk(self) -> SourceChunk | None:
        """The next part, if there is one and the whole of it may be sent: each costs a packet."""
        unit = None if self.sequence is None else self.sequence.units.get(self.index)
        if self.sequence is None or unit is None:
            return None
        rest = len(unit.packet) - self._offset
        length = min(rest, self._part)
        if length > self._budget:
            return None
        part = unit.packet[self._offset : self._offset + length]
        chunk = SourceChunk(self.sequence.number, self.index, unit.still, len(unit.packet), self._offset, part)
        self._budget -= length
        self._offset += length
        if length == rest:
            self.index, self._offset = self.index + 1, 0
        return chunk
