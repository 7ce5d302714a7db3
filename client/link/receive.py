"""Parsing and validation of received messages: motion messages into frames, source chunks into units.

Invalid messages are dropped and counted by reason: malformed, replayed, implausible, out of sequence, or too many.
Whatever follows is treated as if they had been lost. Pure: time is passed in, in seconds.
"""

from collections import Counter, deque
from dataclasses import dataclass

from iwcodec.client.link.messages import MotionMessage, SourceChunk
from iwcodec.client.link.send import quantiser
from iwcodec.client.video.jitter_buffer import TimedFrame, VideoJitterBuffer
from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES, SourcePacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.decoder import Motion, MotionDecoder, Spaces
from iwcodec.codec.token_bucket import TokenBucket

MAX_OFF_S = 10.0
"""Maximum deviation of a message's time stamps from those expected from earlier messages."""
EXPECTED_S = 15.0
"""After this long without a message any time stamp is accepted."""
MAX_RATE = 250
"""Maximum number of frames per second, by the sender's own time stamps."""
FRAMES_PER_S, FRAME_BURST = 120.0, 300.0
"""Frames that are decoded per second, at 0.5 ms each, and at once. 30 frames/s that are each sent three times take 90 a
second; the burst is what a queue of three seconds lets through together."""
NEW_FRAMES_PER_S, NEW_FRAME_BURST = 40.0, 150.0
"""New frames that are decoded per second, and at once; each costs a picture. Cameras deliver up to 30 a second."""
MAX_REORDERING = 64
"""Number of messages by which one may be overtaken."""
MAX_ENDED = 64
"""Number of past sequences that are remembered, so that delayed chunks of them are not taken for a new sequence."""


@dataclass
class ReceptionCounts:
    """Number of motion messages received and lost."""

    messages: int = 0
    lost: int = 0


class MotionReceiver:
    """Decodes motion messages and puts their frames into the jitter buffer."""

    def __init__(
        self,
        keypoints: int,
        decodable: TokenBucket | None = None,
        spaces: Spaces = lambda slot: None,
        showable: TokenBucket | None = None,
    ) -> None:
        """`decodable`, `showable`: the budgets of frames to decode, and of new ones among them; by default new budgets.
        `spaces`: of the peer's sources."""
        self.jitter_buffer = VideoJitterBuffer()
        self.dropped: Counter[str] = Counter()
        self.arrived_s: float | None = None
        """When the last valid message arrived."""
        self.reception = ReceptionCounts()
        """Counts since the owner last replaced this object."""
        self.newest_frames: list[TimedFrame] = []
        """The frames of the last valid message."""
        self._decoder = MotionDecoder(keypoints, spaces=spaces)
        self._decodable = decodable or TokenBucket(FRAMES_PER_S, FRAME_BURST)
        self._showable = showable or TokenBucket(NEW_FRAMES_PER_S, NEW_FRAME_BURST)
        self._charged = -1
        """Number of the newest frame that was charged to the budgets."""
        self._decoded: set[int] = set()
        """Numbers of the MAX_PACKET_FRAMES newest frames, as far as they were decoded."""
        self._highest: int | None = None
        """The highest sequence number so far, unwrapped."""
        self._recent: set[int] = set()
        self._newest: tuple[int, float] | None = None
        """Number and time stamp (seconds) of the newest frame."""

    @property
    def acknowledged(self) -> int | None:
        """Number of the newest decoded frame."""
        return None if self._newest is None else self._newest[0]

    def take(self, data: bytes, now_s: float) -> int | None:
        """Take a message: `check`, `decode` and `add` at once. Returns the acknowledgement in it (modulo 256), if any.
        Invalid messages are dropped and counted."""
        message = self.check(data, now_s)
        if message is None:
            return None
        try:
            self.add(message, self.decode(message), now_s)
        except FormatError:
            self.dropped["malformed"] += 1
            return None
        return message.acknowledged

    def check(self, data: bytes, now_s: float) -> MotionMessage | None:
        """Parse a message. None for one that is invalid, has no frame that is still to be decoded, or exceeds
        FRAMES_PER_S: it is dropped and counted."""
        try:
            message = MotionMessage.from_bytes(data)
            self._check(message, now_s)
            self._account(self._unwrap(message.sequence, now_s))
            self._charge(message, now_s)
        except FormatError as error:
            self.dropped[error.reason if isinstance(error, _Rejected) else "malformed"] += 1
            return None
        return message

    def decode(self, message: MotionMessage) -> list[Motion]:
        """Decode a checked message: on any thread, one message at a time. Raises FormatError."""
        return self._decoder.decode(message.packet, quantiser(message.coarseness))

    def add(self, message: MotionMessage, motion: list[Motion], now_s: float) -> None:
        """Take the decoded frames of a message that arrived at `now_s`."""
        self.arrived_s = now_s
        frames = [
            TimedFrame(frame.number, stamp / 1000, frame.keypoints, frame.reference_source, frame.regions)
            for frame, stamp in zip(motion, message.stamps, strict=True)
        ]
        self.newest_frames = frames
        last = frames[-1]
        if self._newest is None or last.number > self._newest[0]:
            self._newest = last.number, last.stamp_s
        self._decoded.update(frame.number for frame in frames)
        self._decoded = {number for number in self._decoded if number > self._newest[0] - MAX_PACKET_FRAMES}
        self.dropped["late frames"] += self.jitter_buffer.push(frames, now_s)

    def _charge(self, message: MotionMessage, now_s: float) -> None:
        """Take the frames of a message from the budget. Repeated ones cost as much as new ones: a message can only be
        decoded as a whole."""
        first, count = message.packet.first, message.packet.count
        oldest = -1 if self._newest is None else self._newest[0] - MAX_PACKET_FRAMES
        if all(number <= oldest or number in self._decoded for number in range(first, first + count)):
            raise _Rejected("repeated")
        new = min(count, max(0, first + count - 1 - self._charged))
        if not self._showable.take(now_s, new) or not self._decodable.take(now_s, count):
            raise _Rejected("flood")
        self._charged = max(self._charged, first + count - 1)

    def _check(self, message: MotionMessage, now_s: float) -> None:
        if self._newest is None or self.arrived_s is None or now_s - self.arrived_s > EXPECTED_S:
            return
        number, stamp_s = self._newest
        ahead_s = message.stamps[-1] / 1000 - stamp_s
        if abs(ahead_s - (now_s - self.arrived_s)) > MAX_OFF_S:
            raise _Rejected("implausible")
        last = message.packet.first + message.packet.count - 1
        if last - number > MAX_RATE * (max(0.0, ahead_s) + 1):
            raise _Rejected("implausible")

    def _unwrap(self, low: int, now_s: float) -> int:
        if self._highest is None:
            return low
        if self.arrived_s is None or now_s - self.arrived_s > EXPECTED_S:  # more than 256 may have been lost: count on
            return self._highest + 1 + ((low - self._highest - 1) & 0xFF)
        sequence = self._highest + ((low - self._highest + 128) & 0xFF) - 128
        if sequence in self._recent or sequence < self._highest - MAX_REORDERING:
            raise _Rejected("replayed")
        return sequence

    def _account(self, sequence: int) -> None:
        self.reception.messages += 1
        if self._highest is None or sequence > self._highest:
            self.reception.lost += 0 if self._highest is None else sequence - self._highest - 1
            self._highest = sequence
        else:
            self.reception.lost -= 1
        self._recent.add(sequence)
        self._recent = {n for n in self._recent if n >= self._highest - MAX_REORDERING}


class SourceAssembler:
    """Joins chunks to source units, in the order of their sequence."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.sequence: int | None = None
        self.index = 0
        """The unit that is being received."""
        self._part = bytearray()
        self._ended: deque[int] = deque(maxlen=MAX_ENDED)
        """Numbers of sequences that others have replaced."""

    def take(self, data: bytes) -> tuple[SourcePacket, bool] | None:
        """Take a chunk. Returns the unit that it completes, if any, and whether that is a scene snapshot. Chunks that
        are invalid or do not continue the sequence are dropped and counted."""
        try:
            return self._take(SourceChunk.from_bytes(data))
        except FormatError as error:
            self.dropped[error.reason if isinstance(error, _Rejected) else "malformed"] += 1
            return None

    def forget(self) -> None:
        """Accept only the start of a sequence from now on, also of the same one: the sender may begin it again."""
        self.sequence, self.index = None, 0
        self._part.clear()
        self._ended.clear()

    def restart_unit(self) -> None:
        """Discard the part of a unit: on another connection the sender begins it again."""
        self._part.clear()

    def _take(self, chunk: SourceChunk) -> tuple[SourcePacket, bool] | None:
        is_repeated = chunk.sequence == self.sequence and (chunk.index, chunk.offset) < (self.index, len(self._part))
        if is_repeated or chunk.sequence in self._ended:
            raise _Rejected("replayed")
        if chunk.sequence != self.sequence and not chunk.index and not chunk.offset:
            self._begin(chunk.sequence)
        if chunk.sequence != self.sequence or chunk.index != self.index or chunk.offset != len(self._part):
            raise _Rejected("out of sequence")
        self._part += chunk.part
        if len(self._part) < chunk.length:
            return None
        whole = bytes(self._part)
        self.index += 1
        self._part.clear()
        return SourcePacket.from_bytes(whole), chunk.is_snapshot

    def _begin(self, sequence: int) -> None:
        if self.sequence is not None:
            self._ended.append(self.sequence)
        self.sequence, self.index = sequence, 0
        self._part.clear()


class _Rejected(FormatError):
    """Raised for a well-formed message that is dropped."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"A message is {reason}.")
        self.reason = reason
