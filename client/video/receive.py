"""What a link receives: checks, counts and decodes foreign messages. Pure: time is passed in, in seconds.

Whatever is not as it should be is dropped and counted by reason, and what comes next is taken as if it had been lost on
the way: malformed, too large, another kind than its channel's, repeated, out of all proportion, too many.
"""

from collections import Counter, deque
from dataclasses import dataclass

from iwcodec.client.video.jitter_buffer import Playout, TimedFrame
from iwcodec.client.video.messages import MotionMessage, SourceChunk
from iwcodec.client.video.send import quantiser
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.decoder import MotionDecoder

MAX_OFF_S = 10.0
"""By how much a message's times may differ from what those before it led to expect."""
EXPECTED_S = 15.0
"""After so long without a message any time is taken."""
MAX_RATE = 250
"""Frames a second, by the sender's own stamps."""
REORDERED = 64
"""Messages that one may be behind others."""
MAX_QUEUED_UNITS = 64
MAX_ENDED = 64
"""Sequences whose numbers are kept, so that what is left of them is not taken for the start of another one."""


class Allowance:
    """A token bucket: `rate` a second, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens = burst
        self._filled_s: float | None = None

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        if self._filled_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._rate)
        self._filled_s = now_s
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True


@dataclass
class Reception:
    """Motion messages of a while."""

    messages: int = 0
    lost: int = 0


class MotionReceiver:
    """Motion messages in, frames into the play-out."""

    def __init__(self, keypoints: int) -> None:
        self.playout = Playout()
        self.dropped: Counter[str] = Counter()
        self.arrived_s: float | None = None
        """When the last good message came."""
        self.reception = Reception()
        """Since the owner put a new one here."""
        self.taken: list[TimedFrame] = []
        """The frames of the last good message."""
        self._decoder = MotionDecoder(keypoints)
        self._highest: int | None = None
        """The highest sequence number, unwrapped."""
        self._seen: set[int] = set()
        self._newest: tuple[int, float] | None = None
        """Number and stamp of the newest frame."""

    @property
    def acknowledged(self) -> int | None:
        """Number of the newest frame decoded."""
        return self._decoder.newest

    def take(self, data: bytes, now_s: float) -> int | None:
        """A message. Returns the acknowledgement in it (modulo 256), if any; drops and counts what is not good."""
        try:
            message = MotionMessage.from_bytes(data)
            self._check(message, now_s)
            self._account(self._unwrap(message.sequence, now_s))
            motion = self._decoder.decode(message.packet, quantiser(message.coarseness))
        except FormatError as error:
            self.dropped[error.reason if isinstance(error, _Unwanted) else "malformed"] += 1
            return None
        self.arrived_s = now_s
        frames = [
            TimedFrame(frame.number, stamp / 1000, frame.keypoints, frame.reference_source)
            for frame, stamp in zip(motion, message.stamps, strict=True)
        ]
        self.taken = frames
        last = frames[-1]
        if self._newest is None or last.number > self._newest[0]:
            self._newest = last.number, last.stamp_s
        self.dropped["late frames"] += self.playout.push(frames, now_s)
        return message.acknowledged

    def _check(self, message: MotionMessage, now_s: float) -> None:
        if self._newest is None or self.arrived_s is None or now_s - self.arrived_s > EXPECTED_S:
            return
        number, stamp_s = self._newest
        ahead_s = message.stamps[-1] / 1000 - stamp_s
        if abs(ahead_s - (now_s - self.arrived_s)) > MAX_OFF_S:
            raise _Unwanted("implausible")
        last = message.packet.first + message.packet.count - 1
        if last - number > MAX_RATE * (max(0.0, ahead_s) + 1):
            raise _Unwanted("implausible")

    def _unwrap(self, low: int, now_s: float) -> int:
        if self._highest is None:
            return low
        if self.arrived_s is None or now_s - self.arrived_s > EXPECTED_S:  # however many were lost: it goes on
            return self._highest + 1 + ((low - self._highest - 1) & 0xFF)
        sequence = self._highest + ((low - self._highest + 128) & 0xFF) - 128
        if sequence in self._seen or sequence < self._highest - REORDERED:
            raise _Unwanted("replayed")
        return sequence

    def _account(self, sequence: int) -> None:
        self.reception.messages += 1
        if self._highest is None or sequence > self._highest:
            self.reception.lost += 0 if self._highest is None else sequence - self._highest - 1
            self._highest = sequence
        else:
            self.reception.lost -= 1
        self._seen.add(sequence)
        self._seen = {n for n in self._seen if n >= self._highest - REORDERED}


class SourceAssembler:
    """Chunks in, whole packets out, in the order of their sequence."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.sequence: int | None = None
        self.index = 0
        """The unit that comes next."""
        self._part = bytearray()
        self._ended: deque[int] = deque(maxlen=MAX_ENDED)
        """Sequences that another one has replaced."""

    def take(self, data: bytes) -> tuple[SourcePacket, bool] | None:
        """A chunk. Returns the unit that it completes, and whether that is a still; drops and counts what is not good
        or does not follow what came before."""
        try:
            return self._take(SourceChunk.from_bytes(data))
        except FormatError as error:
            self.dropped[error.reason if isinstance(error, _Unwanted) else "malformed"] += 1
            return None

    def forget(self) -> None:
        """Only the start of a sequence is taken from now on: of any, for a sender may well begin the same one again."""
        self.sequence, self.index = None, 0
        self._part.clear()
        self._ended.clear()

    def restart_unit(self) -> None:
        """On a new connection a unit begins again."""
        self._part.clear()

    def _take(self, chunk: SourceChunk) -> tuple[SourcePacket, bool] | None:
        came = chunk.sequence == self.sequence and (chunk.index, chunk.offset) < (self.index, len(self._part))
        if came or chunk.sequence in self._ended:
            raise _Unwanted("replayed")
        if chunk.sequence != self.sequence and not chunk.index and not chunk.offset:
            self._begin(chunk.sequence)
        if chunk.sequence != self.sequence or chunk.index != self.index or chunk.offset != len(self._part):
            raise _Unwanted("out of sequence")
        self._part += chunk.part
        if len(self._part) < chunk.length:
            return None
        whole = bytes(self._part)
        self.index += 1
        self._part.clear()
        return SourcePacket.from_bytes(whole), chunk.still

    def _begin(self, sequence: int) -> None:
        if self.sequence is not None:
            self._ended.append(self.sequence)
        self.sequence, self.index = sequence, 0
        self._part.clear()


class _Unwanted(FormatError):
    """Well-formed, and dropped all the same."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"A message is {reason}.")
        self.reason = reason
