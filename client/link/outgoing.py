"""The sending half of a link: when motion, sources, acknowledgements and reports leave.

The first picture precedes everything but the hello: it leaves when the channels open, and motion waits until it is
sent. A motion message leaves when it is full. Acknowledgements and reports are sent in the same turn of the event loop
and so share its packet (transport/sctp.py), or leave alone when there is no motion. So do sources on a fast path.
Otherwise they follow in packets of their own, so that motion does not wait until the rest of its packet is through.
"""

import asyncio
from collections import deque
from dataclasses import replace

from iwcodec.client.link.channels import Channels
from iwcodec.client.link.congestion_control import LADDER, CongestionControl, SendParameters
from iwcodec.client.link.incoming import IncomingVideo
from iwcodec.client.link.messages import (
    MOTION_CHANNEL,
    SOURCE_CHANNEL,
    Hello,
    Report,
    SourceAck,
    Status,
    control_to_bytes,
)
from iwcodec.client.link.send import PART, MotionSender, SourceSender
from iwcodec.client.video.source_sequence import SourceSequence, slot_of
from iwcodec.client.video.video_sender import OutgoingFrame, VideoSender
from iwcodec.codec.motion.space import MotionSpace

SOURCE_DELAY_S = 0.005
"""Sources leave this long after a motion message, so that they do not share its packet."""
MAX_RIDING_PART = 80
"""Bytes of a source's part up to which it shares the packet of a motion message after all, which is a packet less: the
message takes 20 ms longer on a link of 30 kbps. On a fast path every part does."""
FAST_S = 0.02
"""A path is fast if a large message takes at most this much longer to be acknowledged than reports take: if it carries
about 200 kbps."""
MAX_SILENCE_S = 0.25
"""Without a motion message for this long, pending acknowledgements and reports are sent alone."""
MIN_SEQUENCE_S = 20.0
"""Minimum time between changes from usual to small sources or back: each costs a key picture."""
MIN_RESTART_S = 1.0
"""Minimum time between two sequences that the peer asks for: each costs pictures to be coded."""
MAX_SEQUENCES, SEQUENCES_S = 8, 60.0
"""Sequences that are begun for one peer in so many seconds."""
UNREACHED_S = 3.0
"""A peer that has not sent a report for this long does not hold up the sources of the others."""
MOTION_RESERVE = 600
"""Bytes of the congestion window that sources leave to motion."""
MAX_FLIGHT = 900
"""Unacknowledged bytes from which on sources wait: what a link of 24 kbps carries in a round trip of 100 ms and the
delay of an acknowledgement. A link of 12 kbps drains it before it counts as lost (sctp.FIRST_RTO_S)."""
FIRST_FLIGHT = 1750
"""MAX_FLIGHT until the peer has its first picture, which must not wait."""
FIRST_PACE_S = 0.02
"""Interval at which the first picture is continued: there is no motion yet that its chunks could follow."""
START = SendParameters(2, 2, 0, 26.0)
"""Used until the peer has acknowledged its first picture: little motion, the rest for the picture."""


class OutgoingVideo:
    """Sends the frames and sources of a VideoSender to one peer; a `video_sender.Subscriber`."""

    def __init__(self, video_sender: VideoSender, incoming: IncomingVideo) -> None:
        """`incoming`: the receiving half of the same link, whose acknowledgements and reports are sent."""
        self.peer: Hello | None = None
        """The peer's hello on the present connection."""
        self.congestion_control = CongestionControl()
        self.motion = MotionSender(self.congestion_control.sending)
        self.sources = SourceSender()
        self._video_sender = video_sender
        self._incoming = incoming
        self._loop = asyncio.get_running_loop()
        self._channels: Channels
        self._sent_s = self._heard_s = self._loop.time()
        """When something was sent last, and when the peer's last report or hello came."""
        self._blocked = False
        """Whether motion had to wait for the transport since the peer's last report."""
        self._sources_scheduled = False
        self._wants_sequence = False
        self._recent: deque[float] = deque(maxlen=MAX_SEQUENCES)
        """When the newest sequences were begun, on all connections."""
        self._starting: asyncio.Task[None] | None = None
        self._peer_has_picture = False
        """Whether the peer has a picture of the present sequence."""
        self._peer_is_blank = True
        """Whether the peer has had no picture of any sequence, and cannot show anything."""
        self._peer_has: tuple[int, int] | None = None
        """(number of the sequence, how many of its units the peer has)"""

    def attach(self, channels: Channels) -> None:
        """Send over these channels from now on."""
        self._channels = channels
        self.peer = None
        self._begun_s = float("-inf")
        """When the last sequence was begun on this connection."""

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)

    @property
    def first_picture_waits(self) -> bool:
        """Whether the peer has no picture yet, and one is still to be sent or will be soon."""
        is_expected = self.sources.sequence is None and not (self._video_sender.paused or self._video_sender.face_lost)
        return self._is_first_picture_unsent() or (self._peer_is_blank and is_expected)

    # Called by the VideoSender

    @property
    def sequence(self) -> SourceSequence | None:
        return self.sources.sequence

    def take(self, frame: OutgoingFrame) -> None:
        if not self._channels.are_open or self.peer is None:
            return
        self.motion.sending = self.parameters()
        slot = None if frame.reference_source is None else self.slot(frame.reference_source)
        regions = tuple(None if number is None else self.slot(number) for number in frame.regions)
        gram = None if slot is None else frame.gram
        space = None if slot is None else self._space(frame.reference_source)
        is_full = self.motion.take(replace(frame, reference_source=slot, gram=gram, regions=regions), space)
        if self._is_first_picture_unsent():
            # The peer derives its playout delay from the first frames, so none of them may have waited here.
            self.motion.skip(kept=1)
        elif is_full:
            self._send_motion()

    def status_changed(self) -> None:
        if self._channels.are_open:
            self._channels.send_control(Status(self._video_sender.paused, self._video_sender.face_lost))

    def backlog(self) -> int:
        return self.sources.backlog() if self.is_reached else 0

    @property
    def is_reached(self) -> bool:
        return self._channels.are_open and self._loop.time() - self._heard_s < UNREACHED_S

    @property
    def has_picture(self) -> bool:
        return self._peer_has_picture

    def slot(self, number: int) -> int | None:
        sequence = self.sources.sequence
        if sequence is None or self._peer_has is None or self._peer_has[0] != sequence.number:
            return None
        index = sequence.numbers.get(number)
        return None if index is None or index >= self._peer_has[1] else slot_of(index)

    def _space(self, number: int | None) -> MotionSpace | None:
        sequence = self.sources.sequence
        return None if sequence is None or number is None else sequence.spaces.get(number)

    # Called by the Link

    def channels_opened(self) -> None:
        """Begin a sequence on the first connection, before the hello: the peer cannot have anything to resume."""
        self._wants_sequence = True
        self._request_sequence()

    def receive_hello(self, hello: Hello, is_new_stream: bool) -> None:
        """`is_new_stream`: the peer was restarted and has lost everything."""
        if is_new_stream:
            self.motion.forget_acknowledged()
            self._peer_is_blank = True
        is_first, self.peer = self.peer is None, hello
        self._heard_s = self._loop.time()
        if is_first and hello.sequence is None and self.sources.sequence is not None and self._begun_s >= 0:
            pass  # the sequence that was begun before the hello is on its way
        elif self.sources.can_resume(hello.sequence, hello.index):
            self.sources.start(self.sources.sequence, hello.index, not self.has_picture)
            self._peer_has = None if hello.sequence is None else (hello.sequence, hello.index)
        else:
            self.sources.start(None)
            self._wants_sequence = True
            self._peer_has = None
            self._peer_has_picture = False
            self._request_sequence()

    def receive_report(self, report: Report, now_s: float) -> None:
        self._heard_s = now_s
        if report.acknowledged is not None:
            self.motion.acknowledge(report.acknowledged)
        total = report.messages + report.lost
        loss = report.lost / total if total else 0.0
        self.congestion_control.report(now_s, loss, report.queued_ms / 1000, self._blocked)
        self._blocked = False
        if self.sources.is_lost():
            self.sources.start(None)
            self._wants_sequence = True

    def receive_source_ack(self, ack: SourceAck) -> None:
        sequence = self.sources.sequence
        if sequence is not None and ack.sequence == sequence.number:
            before = self._peer_has[1] if self._peer_has is not None and self._peer_has[0] == sequence.number else 0
            self._peer_has = sequence.number, max(before, min(ack.index, sequence.next))
            self._peer_has_picture |= ack.index > 0
            self._peer_is_blank &= ack.index == 0

    def tick(self, now_s: float) -> None:
        """Send what has waited too long. Call it several times a second while `peer` is known."""
        self.congestion_control.silence(now_s)
        if now_s - self._sent_s >= MAX_SILENCE_S:
            if self.motion.waiting and not self._is_first_picture_unsent():
                self._send_motion()
            else:
                self.send_pending()
        self._choose_size(now_s)
        self._request_sequence()

    def send_pending(self) -> None:
        """Send acknowledgements and reports that are due, and schedule sources."""
        now = self._sent_s = self._loop.time()
        self._schedule_sources(SOURCE_DELAY_S)
        ack = self._incoming.take_source_ack()
        if ack is not None:
            self._channels.send_control(ack)
        if self._is_first_picture_unsent():
            return
        report = self._incoming.take_report(now)
        if report is not None:
            self._channels.send(MOTION_CHANNEL, control_to_bytes(report))

    def parameters(self) -> SendParameters:
        is_start = not self.has_picture and self.congestion_control.sending == LADDER[0]
        return START if is_start else self.congestion_control.sending

    # Motion and sources

    def _is_first_picture_unsent(self) -> bool:
        """Whether part of the peer's first picture is still to be sent. Motion is useless before it and would delay
        it."""
        return self._peer_is_blank and self.sources.sequence is not None and self.sources.index == 0

    def _send_motion(self) -> None:
        if self._channels.queued_bytes(MOTION_CHANNEL):  # more would queue behind it and be outdated when it leaves
            self._blocked = True
            self.motion.skip()
            return
        self._channels.send(MOTION_CHANNEL, self.motion.message(self._incoming.motion.acknowledged))
        if self.has_picture and self._is_fast():
            self._send_parts(PART)
        elif self.has_picture and 0 < self.sources.next_part() <= MAX_RIDING_PART:
            self._send_parts(1)
        self.send_pending()

    def _schedule_sources(self, delay_s: float) -> None:
        if not self._sources_scheduled:
            self._sources_scheduled = True
            self._loop.call_later(delay_s, self._send_sources)

    def _send_sources(self) -> None:
        self._sources_scheduled = False
        if not self._channels.are_open:
            return
        was_unsent = self._is_first_picture_unsent()
        self._send_parts(PART if self.has_picture else FIRST_FLIGHT)
        if self._is_first_picture_unsent():
            self._schedule_sources(FIRST_PACE_S)
        elif was_unsent and self.motion.waiting:
            self._send_motion()

    def _send_parts(self, most: float) -> None:
        """Send the parts that begin within the next `most` bytes, as far as budget and congestion window allow."""
        self.sources.fill(self._loop.time(), self.parameters().source_kbps)
        room = 0.0 if self._channels.queued_bytes(SOURCE_CHANNEL) else min(most, self._room())
        while room > 0 and (chunk := self.sources.chunk()) is not None:
            self._channels.send(SOURCE_CHANNEL, chunk.to_bytes())
            room -= len(chunk.part)

    def _is_fast(self) -> bool:
        """Whether a source's part delays what shares its packet by FAST_S at most, as far as that was measured."""
        transport, usual_s = self._channels.transport, self._incoming.round_trip_s
        return transport is not None and usual_s is not None and transport.large_round_trip_s <= usual_s + FAST_S

    def _room(self) -> float:
        """Bytes that sources may send now."""
        most = MAX_FLIGHT if self.has_picture else FIRST_FLIGHT
        transport = self._channels.transport
        return most if transport is None else min(transport.room - MOTION_RESERVE, most - transport.flight)

    # Sequences

    def _choose_size(self, now_s: float) -> None:
        """Ask for a sequence with pictures of the other size if congestion control wants it and some wait."""
        sequence = self.sources.sequence
        small = self.congestion_control.small
        if sequence is None or sequence.small == small or now_s - self._begun_s < MIN_SEQUENCE_S:
            return
        self._wants_sequence |= self.sources.backlog() > 0

    def _request_sequence(self) -> None:
        """Get a sequence from the VideoSender if one is wanted; there is none before its first picture."""
        now = self._loop.time()
        is_rested = now - self._begun_s >= MIN_RESTART_S
        is_rested &= len(self._recent) < MAX_SEQUENCES or now - self._recent[0] >= SEQUENCES_S
        is_starting = self._starting is not None and not self._starting.done()
        if self._wants_sequence and not is_starting and is_rested:
            self._starting = asyncio.ensure_future(self._start_sequence())

    async def _start_sequence(self) -> None:
        sequence = await self._video_sender.sequence_for_newcomer(self.congestion_control.small)
        if sequence is not None and self._wants_sequence and self._channels.are_open:
            self._wants_sequence, self._begun_s = False, self._loop.time()
            self._recent.append(self._begun_s)
            self.motion.forget_acknowledged()  # the slots hold other sources now
            self.sources.start(sequence, first=not self.has_picture)
            if self.peer is None:
                self._send_sources()
            else:
                self.send_pending()
