"""The video of one peer connection, both ways, on its data channels (messages.py).

Everything runs in one event loop, on its clock, which is that of time.monotonic(); the network runs in the executor.
The first picture comes before all else, hello apart: it sets out when the channels open, and motion waits for its end.
Motion leaves when a message is full; acknowledgements and reports go along with it, in the same packet (sctp.py), or by
themselves where there is no motion. Sources follow it in packets of their own: on a narrow link motion must not wait
until what shares its packet is through.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, TypeVar

from aiortc import RTCDataChannel, RTCPeerConnection

from iwcodec.client.transport.sctp import BundlingSctpTransport
from iwcodec.client.video.clocks import Clocks
from iwcodec.client.video.congestion_control import LADDER, RateControl, Sending
from iwcodec.client.video.jitter_buffer import DueFrame, TimedFrame
from iwcodec.client.video.messages import (
    CONTROL_CHANNEL,
    MAX_MESSAGE,
    MOTION_CHANNEL,
    PROTOCOL,
    SOURCE_CHANNEL,
    Control,
    Hello,
    Report,
    SourceAck,
    Status,
    control_from_bytes,
    control_to_bytes,
    is_control,
)
from iwcodec.client.video.receive import MAX_QUEUED_UNITS, Allowance, MotionReceiver, Reception, SourceAssembler
from iwcodec.client.video.send import MotionSender, SourceSender
from iwcodec.client.video.video_sender import OutgoingFrame, SourceSequence, VideoSender, slot_of
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.sources.av1 import SourceDecoder
from iwcodec.codec.sources.library import CAPACITY, Library
from iwcodec.models.runtime.types import Runtime, Source

T = TypeVar("T")
log = logging.getLogger(__name__)

TICK_S = 0.1
REPORT_S, BAD_REPORT_S = 1.0, 0.5
"""Between two reports; while there is something bad to report they come faster."""
QUEUED_S = 0.05
BEHIND_S = 0.005
"""Sources leave so long after motion: when its packet has gone."""
ALONE_S = 0.25
"""After so long without motion to go along with, what waits goes by itself."""
FROZEN_S = 1.5
STATS_S = 2.0
SWITCH_S = 20.0
"""Between two changes from usual to small sources or back: each costs a key picture."""
FRESH_S = 2.0
"""Between two requests for a fresh sequence."""
MAX_LEAD_S = 0.3
RECEIVED = 2 * CAPACITY
"""Sources kept of a peer: all that it keeps itself, although what it has used is known here later, or never."""
UNREACHED_S = 3.0
"""A peer that has not reported for so long holds up nobody's sources."""
MOTION_ROOM = 600
"""Bytes of the congestion window that sources leave to motion."""
MAX_FLIGHT = 900
"""Bytes on the way, from which on sources wait: what a link of 24 kbps carries in a round trip of 100 ms and the delay
of an acknowledgement. One of 12 kbps empties it before it counts as lost (sctp.FIRST_RTO_S)."""
FIRST_FLIGHT = 1750
"""Likewise until the peer has its first picture, which must not wait."""
FIRST_PACE_S = 0.02
"""Between two looks for room for the first picture, while there is no motion that sources could follow."""
START = Sending(2, 2, 0, 26.0)
"""Until the peer has said that it has its first picture."""
MAX_EARLY = 64
"""Source chunks that may come before the hello."""
_ALLOWANCES = {MOTION_CHANNEL: (100, 200), SOURCE_CHANNEL: (200, 400), CONTROL_CHANNEL: (20, 60)}
"""Messages a second, and at once."""
_NAMES = {MOTION_CHANNEL: "motion", SOURCE_CHANNEL: "sources", CONTROL_CHANNEL: "control"}


class LinkState(StrEnum):
    CONNECTING = "connecting"
    INCOMPATIBLE = "another version or size"
    WAITING_FOR_SOURCE = "waiting for first picture"
    LIVE = "live"
    FACE_LOST = "face lost"
    FROZEN = "frozen"
    CAMERA_OFF = "camera off"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True)
class Shown:
    """A picture of the peer, at the moment it has to be seen."""

    number: int
    picture: Picture
    due_s: float
    """Play-out time, on the clock of time.monotonic()."""
    delay_s: float
    """Estimate of the time since the peer's camera took it (glass to glass)."""
    state: LinkState


@dataclass(frozen=True)
class LinkStats:
    """The last 2 seconds."""

    sent_kbps: dict[str, float]
    """By layer: motion, sources, control, acknowledgements, overhead (SCTP, DTLS, UDP, IP), total."""
    received_kbps: dict[str, float]
    frames_per_s: float
    """Frames shown."""
    delay_ms: float
    loss: float
    """Share of the peer's motion messages that did not come, 0..1."""
    sources: int
    """Pictures of the peer in the library."""
    dropped: dict[str, int]
    """Messages that were not taken, by reason, since the link began."""
    queued: dict[str, int] = field(default_factory=dict)
    """What waits now: frames to be shown, units of sources to be decoded and to be sent, bytes for the transport."""


class Recording(Protocol):
    def source(self, packet: SourcePacket) -> None:
        """The next unit of the peer's AV1 sequence, stills included; a key unit begins another one."""
        ...

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        """Frames of a message, and when it came; messages may come twice, late, or not at all."""
        ...


class Link:
    """Sends what the feed gives and shows what the peer sends."""

    def __init__(self, connection: RTCPeerConnection, feed: VideoSender, runtime: Runtime, executor: Executor) -> None:
        """Creates its channels (negotiated, fixed ids: both sides alike), so it must be made before the offer or the
        answer, in a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._feed = feed
        self._runtime = runtime
        self._executor = executor
        self._tables = load_tables().id
        self._dropped: Counter[str] = Counter()
        self._closed = False
        self._began = False
        self._foreign = False
        """Whether the peer said what this end cannot show."""
        self.recording: Recording | None = None
        """Told of everything that comes from the peer and is good."""

        self._rate = RateControl()
        self._motion_out = MotionSender(self._rate.sending)
        self._sources_out = SourceSender()
        self._along_s = self._reported_s = self._heard_s = self._loop.time()
        self._blocked = False
        self._sources_behind = False
        self._wants_sequence = False
        self._peer_has_picture = False
        """Of the present sequence."""
        self._peer_is_blank = True
        """Whether it cannot show anything: it has not had a picture of any sequence."""
        self._peer_has: tuple[int, int] | None = None
        """Of a sequence, how many units it has."""
        self._finding_sequence = False

        self._peer: Hello | None = None
        self._stream: int | None = None
        self._motion_in: MotionReceiver
        self._clocks: Clocks
        self._newest_report_ms: int
        self._peer_status = Status(False, False)
        self._wants_fresh = False
        self._asked_s = -FRESH_S
        self._wake = asyncio.Event()
        self._leads: deque[float] = deque(maxlen=30)
        self._lateness: deque[float] = deque(maxlen=30)
        self._playout_delay_s = 0.0
        """By how much pictures were seen later than they should, where the network does not keep up."""
        self._units: asyncio.Queue[tuple[SourceAssembler, SourcePacket, bool]] = asyncio.Queue(MAX_QUEUED_UNITS)
        self._ack_due = False
        self._latest: Shown | None = None
        self._fresh_picture = asyncio.Event()
        self._shown: deque[tuple[float, float]] = deque(maxlen=256)
        self._shown_since_report = 0
        self._receive_anew()

        self._attach(connection)
        feed.join(self)
        works = (self._ticks, self._render, self._decode_sources)
        self._tasks = [asyncio.create_task(self._keep(work)) for work in works]

    # What the owner uses

    async def frames(self) -> AsyncIterator[Shown]:
        """Each at its play-out time; the newest wins where the consumer is slow. Ends when the link is closed."""
        while True:
            await self._fresh_picture.wait()
            self._fresh_picture.clear()
            if self._closed:
                return
            if self._latest is not None:
                yield self._latest

    @property
    def state(self) -> LinkState:
        if self._closed:
            return LinkState.CLOSED
        if self._foreign:
            return LinkState.INCOMPATIBLE
        if not self._is_open() or self._peer is None:
            return LinkState.RECONNECTING if self._began else LinkState.CONNECTING
        if self._connection.connectionState in ("disconnected", "failed", "closed"):
            return LinkState.RECONNECTING
        if self._peer_status.camera_off:
            return LinkState.CAMERA_OFF
        if self._peer_status.face_lost:
            return LinkState.FACE_LOST
        if not len(self._library):
            return LinkState.WAITING_FOR_SOURCE
        arrived_s = self._motion_in.arrived_s
        frozen = arrived_s is None or self._loop.time() - arrived_s > FROZEN_S
        return LinkState.FROZEN if frozen else LinkState.LIVE

    def stats(self) -> LinkStats:
        now = self._loop.time()
        shown = [delay for at, delay in self._shown if at > now - STATS_S]
        began_s, sent, received = self._counts[0]
        lasted_s = max(TICK_S, now - began_s)
        now_sent, now_received = self._wire_counts()
        return LinkStats(
            _by_layer(now_sent, sent, lasted_s),
            _by_layer(now_received, received, lasted_s),
            len(shown) / STATS_S,
            1000 * sum(shown) / len(shown) if shown else 0.0,
            self._lost,
            len(self._library),
            dict(self._dropped + self._motion_in.dropped + self._assembler.dropped),
            {
                "frames_to_show": self._motion_in.playout.waiting,
                "units_to_decode": self._units.qsize(),
                "units_to_send": self._sources_out.backlog(),
                "bytes_to_send": sum(channel.bufferedAmount for channel in self._channels.values()),
            },
        )

    def replace_connection(self, connection: RTCPeerConnection) -> None:
        """Go on over another connection, after a network change: the library is kept on both sides. Creates its
        channels on it, so it must be called before the offer or the answer."""
        self._assembler.restart_unit()
        self._motion_in.playout.new_path()
        self._attach(connection)

    def playout_delay_s(self) -> float:
        """By how much sound has to be delayed, from its arrival on, to be in step with the picture."""
        playout = self._motion_in.playout
        late_s = sorted(self._lateness)[len(self._lateness) // 2] if self._lateness else 0.0
        if playout.fastest_s is not None:  # None on a new path, where nothing has come yet: as before
            self._playout_delay_s = max(0.0, playout.delay_s - playout.fastest_s + late_s)
        return self._playout_delay_s

    @property
    def congested(self) -> bool:
        """Whether what is sent queues on the way."""
        return self._rate.congested

    @property
    def first_picture_waits(self) -> bool:
        """Whether the peer, that has none, is still to be sent a picture, and there is one or will be soon."""
        is_near = self._sources_out.sequence is None and not (self._feed.paused or self._feed.face_lost)
        return self._picture_first() or (self._peer_is_blank and is_near)

    async def close(self) -> None:
        """Stops sending and showing. The connection is left to its owner."""
        self._closed = True
        self._feed.leave(self)
        self._fresh_picture.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What the feed uses

    @property
    def sequence(self) -> SourceSequence | None:
        return self._sources_out.sequence

    def take(self, frame: OutgoingFrame) -> None:
        if not self._is_open() or self._peer is None:
            return
        self._motion_out.sending = self._sending()
        slot = None if frame.reference_source is None else self.slot(frame.reference_source)
        is_full = self._motion_out.take(
            replace(frame, reference_source=slot, gram=None if slot is None else frame.gram)
        )
        if self._picture_first():
            self._motion_out.skip(kept=1)  # the delay is learnt from what comes first: nothing that has waited
        elif is_full:
            self._send_motion()

    def status_changed(self) -> None:
        if self._is_open():
            self._send_control(Status(self._feed.paused, self._feed.face_lost))

    def backlog(self) -> int:
        return self._sources_out.backlog() if self.is_reached else 0

    @property
    def is_reached(self) -> bool:
        return self._is_open() and self._loop.time() - self._heard_s < UNREACHED_S

    @property
    def has_picture(self) -> bool:
        return self._peer_has_picture

    def slot(self, number: int) -> int | None:
        sequence = self._sources_out.sequence
        if sequence is None or self._peer_has is None or self._peer_has[0] != sequence.number:
            return None
        index = sequence.numbers.get(number)
        return None if index is None or index >= self._peer_has[1] else slot_of(index)

    # Sending

    def _has_begun(self) -> bool:
        """Whether a sequence has been begun on this connection."""
        return self._begun_s >= 0 and self._sources_out.sequence is not None

    def _picture_first(self) -> bool:
        """Whether part of the first picture still waits: motion is of no use before it, and would only hold it up."""
        return self._peer_is_blank and self._sources_out.sequence is not None and self._sources_out.index == 0

    def _sending(self) -> Sending:
        start = not self.has_picture and self._rate.sending == LADDER[0]
        return START if start else self._rate.sending

    def _send_motion(self) -> None:
        channel = self._channels[MOTION_CHANNEL]
        if channel.bufferedAmount:  # the newest wins: what waits there would only become old
            self._blocked = True
            self._motion_out.skip()
            return
        self._send(MOTION_CHANNEL, self._motion_out.message(self._motion_in.acknowledged))
        self._send_along()

    def _send_along(self) -> None:
        """Whatever else is due, in the same turn of the loop and therefore the same packet."""
        now = self._along_s = self._loop.time()
        self._send_sources_in(BEHIND_S)
        if self._ack_due and self._assembler.sequence is not None:
            self._ack_due = False
            self._send_control(SourceAck(self._assembler.sequence, self._assembler.index))
        if self._picture_first():
            return
        if now - self._reported_s >= (BAD_REPORT_S if self._is_bad(now) else REPORT_S):
            self._send(MOTION_CHANNEL, control_to_bytes(self._report(now)))

    def _send_sources_in(self, seconds: float) -> None:
        if not self._sources_behind:
            self._sources_behind = True
            self._loop.call_later(seconds, self._send_sources)

    def _send_sources(self) -> None:
        self._sources_behind = False
        if self._closed or not self._is_open():
            return
        first = self._picture_first()
        self._sources_out.fill(self._loop.time(), self._sending().source_kbps)
        room = 0.0 if self._channels[SOURCE_CHANNEL].bufferedAmount else self._room()
        while room > 0 and (chunk := self._sources_out.chunk()) is not None:
            self._send(SOURCE_CHANNEL, chunk.to_bytes())
            room -= len(chunk.part)
        if self._picture_first():
            self._send_sources_in(FIRST_PACE_S)
        elif first and self._motion_out.waiting:
            self._send_motion()

    def _room(self) -> float:
        """Bytes that sources may send now."""
        transport = self._connection.sctp
        most = MAX_FLIGHT if self.has_picture else FIRST_FLIGHT
        if not isinstance(transport, BundlingSctpTransport):
            return most
        return min(transport.room - MOTION_ROOM, most - transport.flight)

    def _is_bad(self, now: float) -> bool:
        return self._motion_in.reception.lost > 0 or self._motion_in.playout.queued_s(now, BAD_REPORT_S) > QUEUED_S

    def _report(self, now: float) -> Report:
        self._reported_s = now
        reception, self._motion_in.reception = self._motion_in.reception, Reception()
        total = reception.messages + max(0, reception.lost)
        self._lost = max(0, reception.lost) / total if total else 0.0
        echo_ms, held_s = self._clocks.echo(now)
        report = Report(
            self._feed.stamp_ms(now),
            echo_ms,
            round(1000 * held_s),
            reception.messages,
            max(0, reception.lost),
            max(0, round(1000 * self._motion_in.playout.queued_s(now, BAD_REPORT_S))),
            self._motion_in.acknowledged,
            self._shown_since_report,
        )
        self._shown_since_report = 0
        return report

    def _send_control(self, control: Control) -> None:
        self._send(CONTROL_CHANNEL, control_to_bytes(control))

    def _send(self, channel_id: int, data: bytes) -> None:
        channel = self._channels[channel_id]
        if channel.readyState == "open":
            self._sent[channel_id] += len(data)
            channel.send(data)

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._loop.time()
            self._counts.append((now, *self._wire_counts()))
            while len(self._counts) > 1 and self._counts[0][0] < now - STATS_S:
                self._counts.popleft()
            if not self._is_open() or self._peer is None:
                continue
            self._rate.silence(now)
            if self._wants_fresh and now - self._asked_s >= FRESH_S:
                self._wants_fresh, self._asked_s = False, now
                self._say_hello()
            if now - self._along_s >= ALONE_S:
                if self._motion_out.waiting and not self._picture_first():
                    self._send_motion()
                else:
                    self._send_along()
            self._choose_size(now)
            self._find_sequence()

    def _choose_size(self, now: float) -> None:
        """Another sequence where the present one has pictures too large, or needlessly small, and some wait."""
        sequence = self._sources_out.sequence
        if sequence is None or sequence.small == self._rate.small or now - self._begun_s < SWITCH_S:
            return
        self._wants_sequence |= self._sources_out.backlog() > 0

    def _find_sequence(self) -> None:
        """Ask the feed for one where one is wanted; it has none before its first picture. Each costs pictures to be
        coded: a peer that asks all the time gets no more than one that asks when it may."""
        rested = self._loop.time() - self._begun_s >= FRESH_S / 2
        if self._wants_sequence and not self._finding_sequence and rested:
            self._finding_sequence = True
            self._spawn(self._start_sequence())

    async def _start_sequence(self) -> None:
        try:
            sequence = await self._feed.sequence_for_newcomer(self._rate.small)
        finally:
            self._finding_sequence = False
        if sequence is not None and self._wants_sequence and self._is_open():
            self._wants_sequence, self._begun_s = False, self._loop.time()
            self._sources_out.start(sequence, first=not self.has_picture)
            if self._peer is None:
                self._send_sources()
            else:
                self._send_along()

    # Channels

    def _attach(self, connection: RTCPeerConnection) -> None:
        self._connection = connection
        self._sent: Counter[int | str] = Counter()
        self._received: Counter[int | str] = Counter()
        self._counts = deque([(self._loop.time(), *self._wire_counts())])
        once: dict[str, Any] = {"ordered": False, "maxRetransmits": 0}
        self._channels: dict[int, RTCDataChannel] = {
            channel_id: connection.createDataChannel(
                name, negotiated=True, id=channel_id, **(once if channel_id == MOTION_CHANNEL else {})
            )
            for channel_id, name in _NAMES.items()
        }
        self._allowances = {channel_id: Allowance(*limits) for channel_id, limits in _ALLOWANCES.items()}
        self._peer = None
        self._begun_s = -FRESH_S
        """When the last sequence was begun on this connection."""
        self._early: list[bytes] = []
        for channel_id, channel in self._channels.items():
            channel.on("message", partial(self._receive, channel, channel_id))
        control = self._channels[CONTROL_CHANNEL]
        if control.readyState == "open":
            self._opened(control)
        else:
            control.on("open", partial(self._opened, control))

    def _opened(self, control: RTCDataChannel) -> None:
        if control is self._channels[CONTROL_CHANNEL] and not self._closed:
            self._say_hello()
            if not self._began:  # nobody can have anything of a stream that has only begun
                self._wants_sequence = True
                self._find_sequence()

    def _is_open(self) -> bool:
        return all(channel.readyState == "open" for channel in self._channels.values())

    def _say_hello(self) -> None:
        sequence, index = self._assembler.sequence, self._assembler.index
        digest = self._runtime.info.digest
        self._send_control(Hello(PROTOCOL, digest, self._tables, self._feed.stream, sequence, index))
        self.status_changed()  # in the same packet

    def _receive(self, channel: RTCDataChannel, channel_id: int, data: bytes | str) -> None:
        now = self._loop.time()
        if self._closed or channel is not self._channels[channel_id]:
            return
        self._received[channel_id] += len(data)
        if isinstance(data, str):
            self._dropped["malformed"] += 1
        elif len(data) > MAX_MESSAGE:
            self._dropped["too large"] += 1
        elif not self._allowances[channel_id].take(now):
            self._dropped["flood"] += 1
        elif channel_id == CONTROL_CHANNEL or (channel_id == MOTION_CHANNEL and is_control(data)):
            self._receive_control(data, channel_id, now)
        elif self._peer is None:
            self._receive_early(channel_id, data)
        elif channel_id == MOTION_CHANNEL:
            acknowledged = self._motion_in.take(data, now)
            if acknowledged is not None:
                self._motion_out.acknowledge_low(acknowledged)
            if self.recording is not None and self._motion_in.arrived_s == now:
                self.recording.motion(self._motion_in.taken, now)
            self._wake.set()
        else:
            self._receive_source(data)

    def _receive_early(self, channel_id: int, data: bytes) -> None:
        """The hello was overtaken. Sources wait for it, as they come once only."""
        if channel_id == SOURCE_CHANNEL and len(self._early) < MAX_EARLY:
            self._early.append(data)
        else:
            self._dropped["before hello"] += 1

    def _receive_control(self, data: bytes, channel_id: int, now: float) -> None:
        try:
            message = control_from_bytes(data)
        except FormatError:
            self._dropped["malformed"] += 1
            return
        if isinstance(message, Report) != (channel_id == MOTION_CHANNEL):
            self._dropped["wrong channel"] += 1
        elif isinstance(message, Hello):
            self._receive_hello(message)
        elif self._peer is None:
            self._dropped["before hello"] += 1
        elif isinstance(message, Report):
            self._receive_report(message, now)
        elif isinstance(message, Status):
            self._peer_status = message
        elif isinstance(message, SourceAck):
            sequence = self._sources_out.sequence
            if sequence is not None and message.sequence == sequence.number:
                had = self._peer_has[1] if self._peer_has is not None and self._peer_has[0] == sequence.number else 0
                self._peer_has = sequence.number, max(had, min(message.index, sequence.next))
                self._peer_has_picture |= message.index > 0
                self._peer_is_blank &= message.index == 0

    # What the peer says

    def _receive_hello(self, hello: Hello) -> None:
        if (hello.protocol, hello.model, hello.tables) != (PROTOCOL, self._runtime.info.digest, self._tables):
            self._dropped["another model"] += 1
            self._foreign = self._peer is None
            return
        self._foreign = False
        if self._stream is not None and self._stream != hello.stream:
            self._receive_anew()
            self._motion_out.forget_acknowledged()
            self._peer_is_blank = True
        self._stream = hello.stream
        first, self._peer = self._peer is None, hello
        self._began = True
        self._heard_s = self._loop.time()
        if first and hello.sequence is None and self._has_begun():
            pass  # the first picture is on its way
        elif self._sources_out.can_resume(hello.sequence, hello.index):
            self._sources_out.start(self._sources_out.sequence, hello.index, not self.has_picture)
            self._peer_has = None if hello.sequence is None else (hello.sequence, hello.index)
        else:
            self._sources_out.start(None)
            self._wants_sequence = True
            self._peer_has = None
            self._peer_has_picture = False
            self._find_sequence()
        early, self._early = self._early, []
        for data in early:
            self._receive_source(data)

    def _receive_report(self, report: Report, now: float) -> None:
        if report.sent_ms <= self._newest_report_ms:  # overtaken by a newer one, or replayed
            self._dropped["replayed"] += 1
            return
        self._newest_report_ms = report.sent_ms
        self._heard_s = now
        self._clocks.take(self._feed.stamp_ms(now), report.sent_ms, report.echo_ms, report.held_ms, now)
        if report.acknowledged is not None:
            self._motion_out.acknowledge(report.acknowledged)
        total = report.messages + report.lost
        self._rate.report(now, report.lost / total if total else 0.0, report.queued_ms / 1000, self._blocked)
        self._blocked = False
        if self._sources_out.is_lost():
            self._sources_out.start(None)
            self._wants_sequence = True

    def _receive_source(self, data: bytes) -> None:
        before = self._assembler.dropped.copy()
        unit = self._assembler.take(data)
        if self._assembler.dropped["out of sequence"] > before["out of sequence"]:
            self._ask_fresh()
        if self._assembler.dropped["replayed"] > before["replayed"]:
            self._ack_due = True  # a sender that begins again does not know that it has come
        if unit is None:
            return
        try:
            self._units.put_nowait((self._assembler, *unit))
        except asyncio.QueueFull:
            self._dropped["flood"] += 1
            self._ask_fresh()

    # Receiving

    def _receive_anew(self) -> None:
        """Nothing is known of the peer's stream."""
        self._stream = None
        self._library = Library(RECEIVED)
        self._source_decoder = SourceDecoder(self._runtime.info.size)
        self._assembler = SourceAssembler()
        self._motion_in = MotionReceiver(self._runtime.info.keypoints)
        self._clocks = Clocks()
        self._newest_report_ms = -1
        self._lost = 0.0

    def _ask_fresh(self) -> None:
        """The sequence cannot be followed any more."""
        self._assembler.forget()
        self._wants_fresh = True

    async def _decode_sources(self) -> None:
        while True:
            assembler, packet, still = await self._units.get()
            if assembler is not self._assembler:  # of a stream that has ended
                continue
            library, decoder = self._library, self._source_decoder
            try:
                picture, source = await self._run(partial(self._decode_source, decoder, packet, still))
            except FormatError:
                self._dropped["sources"] += 1
                self._ask_fresh()
                continue
            self._ack_due = True
            if self.recording is not None:
                self.recording.source(packet)
            if source is not None:
                first = not len(library)
                library.add(packet.slot, source)
                if first:
                    self._motion_in.playout.relearn()  # the motion so far had to share the link with this picture
                    self._send_along()  # the peer sends all of its motion from then on
                self._wake.set()
            elif self._peer_status.face_lost:
                now = self._loop.time()
                self._show(Shown(-1, picture, now, 0.0, LinkState.FACE_LOST))

    def _decode_source(
        self, decoder: SourceDecoder, packet: SourcePacket, still: bool
    ) -> tuple[Picture, Source | None]:
        picture = decoder.add(packet.payload)
        return picture, None if still else self._runtime.prepare(picture)

    async def _render(self) -> None:
        while True:
            now = self._loop.time()
            playout = self._motion_in.playout
            next_s = playout.next_s(now) if len(self._library) else None
            if next_s is None or next_s > now:
                alarm = None if next_s is None else self._loop.call_at(next_s, self._wake.set)
                await self._wake.wait()
                self._wake.clear()
                if alarm is not None:
                    alarm.cancel()
                continue
            due = playout.pop(now)
            if due is not None:
                await self._reconstruct(due, now)

    async def _reconstruct(self, due: DueFrame, began_s: float) -> None:
        sources = self._library.entering(due.frame.keypoints, due.frame.reference_source)
        picture = await self._run(partial(self._runtime.reconstruct, due.frame.keypoints, sources))
        now = self._loop.time()
        self._leads.append(now - began_s)
        self._motion_in.playout.lead_s = min(MAX_LEAD_S, sorted(self._leads)[len(self._leads) * 7 // 10])
        seen_s = max(now, due.due_s)
        self._lateness.append(seen_s - due.due_s)
        taken_s = self._clocks.local_s(due.frame.stamp_s)
        delay_s = (
            seen_s - due.frame.stamp_s - self._motion_in.playout.empty_s
            if taken_s is None
            else self._feed.stamp_ms(seen_s) / 1000 - taken_s
        )
        shown = Shown(due.frame.number, picture, seen_s, delay_s, self.state)
        self._loop.call_at(seen_s, self._show, shown)

    def _show(self, shown: Shown) -> None:
        self._latest = shown
        self._shown.append((shown.due_s, shown.delay_s))
        self._shown_since_report += 1
        self._fresh_picture.set()

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._executor, work)

    async def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """One picture that cannot be handled must not end the call."""
        while not self._closed:
            try:
                await work()
            except Exception:
                log.exception("A picture of the peer could not be handled.")
                await asyncio.sleep(TICK_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks = [task for task in self._tasks if not task.done()] + [asyncio.ensure_future(work)]

    def _wire_counts(self) -> tuple[Counter[int | str], Counter[int | str]]:
        """Bytes so far, both ways: on the wire where the transport counts, else of the messages alone."""
        transport = self._connection.sctp
        if isinstance(transport, BundlingSctpTransport):
            return transport.sent.copy(), transport.received.copy()
        return self._sent.copy(), self._received.copy()


def _by_layer(now: Counter[int | str], before: Counter[int | str], lasted_s: float) -> dict[str, float]:
    def kbps(*keys: int | str) -> float:
        return sum(now[key] - before[key] for key in keys) * 8 / 1000 / lasted_s

    layers = {name: kbps(channel_id) for channel_id, name in _NAMES.items()}
    layers["acknowledgements"] = kbps("acknowledgements")
    layers["overhead"] = kbps("sctp", "packets")
    return {**layers, "total": sum(layers.values())}
