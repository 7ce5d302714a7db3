"""The receiving half of a link: decoding of sources, rendering of frames, reports to the peer.

Networks run in the executor; everything else runs in the event loop, whose clock is time.monotonic().
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Protocol, TypeVar

from iwcodec.client.link.channels import STATS_S
from iwcodec.client.link.clocks import Clocks
from iwcodec.client.link.conduct import Conduct
from iwcodec.client.link.link_state import SNAPSHOT_NUMBER, LinkState, RenderedFrame
from iwcodec.client.link.messages import MotionMessage, Report, SourceAck, Status
from iwcodec.client.link.receive import (
    FRAME_BURST,
    FRAMES_PER_S,
    NEW_FRAME_BURST,
    NEW_FRAMES_PER_S,
    MotionReceiver,
    ReceptionCounts,
    SourceAssembler,
)
from iwcodec.client.video.jitter_buffer import DueFrame, TimedFrame
from iwcodec.client.video.video_sender import KEPT_SOURCES
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.space import MotionSpaces
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceDecoder
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.regions import Compositor
from iwcodec.codec.token_bucket import TokenBucket
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

T = TypeVar("T")

REPORT_S, BAD_REPORT_S = 1.0, 0.5
"""Interval between reports, and while there is loss or a queue to report. A queue is measured over the latter."""
QUEUED_S = 0.05
"""Queueing delay from which on reports are sent at the shorter interval."""
MAX_RENDER_S = 0.3
"""Upper bound of the rendering time that the jitter buffer allows for."""
RENDER_TIMES = 30
"""Number of frames over which rendering time and lateness are estimated."""
MAX_QUEUED_UNITS = 64
"""Source units that wait for decoding; with more the sequence is abandoned."""
UNITS_PER_S, UNIT_BURST = 8.0, 32.0
"""Source units that are decoded per second, at 2 ms each, and at once; with more the sequence is abandoned. At the
usual rates a unit takes a second to arrive, and a sequence begins with at most four."""
SOURCES_PER_S, SOURCE_BURST = 2.0, 16.0
"""Units that the network prepares per second, at 30 ms each, and at once: all but variants and snapshots. A sender
makes at most one a second (source_policy.MIN_INTERVAL_S); the burst is twice what may have waited (send.MAX_BEHIND)."""
RENDERED_PER_S, RENDER_BURST = 36.0, 8.0
"""Frames that are rendered per second, interpolated ones included: the 30 of a fast camera, shown faster while the
delay shrinks (jitter_buffer.SHRINK). What a peer says of numbers and times must not cost the others their pictures."""
MAX_QUEUED_MESSAGES = 32
"""Motion messages that wait for decoding; more are dropped."""
MAX_SOURCES = 2 * KEPT_SOURCES
"""Sources of the peer that are kept. The peer keeps KEPT_SOURCES; which of them it uses is known here late or never."""


class Recording(Protocol):
    """Receives everything valid that comes from the peer."""

    def restart(self) -> None:
        """The peer's program was restarted: what follows is of another stream, with another clock."""
        ...

    def source(self, packet: SourcePacket) -> None:
        """The next unit of the peer's AV1 sequence, scene snapshots included; a key unit begins another sequence."""
        ...

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        """Frames of a message and its arrival time; messages may be repeated, late, or lost."""
        ...


class IncomingVideo:
    """Turns one peer's messages into rendered frames."""

    def __init__(
        self,
        runtime: Runtime,
        executor: Executor,
        motion_executor: Executor,
        stamp_ms: Callable[[float], int],
        state: Callable[[], LinkState],
        on_first_source: Callable[[], None],
        dropped: Counter[str],
    ) -> None:
        """`executor` runs the networks, and `motion_executor` the motion decoder, which must not wait for them.
        `stamp_ms` converts time.monotonic() to the clock of our own messages; `state` gives the link's state;
        `on_first_source` is called when the peer's first source is decoded; `dropped` counts discarded messages."""
        self.recording: Recording | None = None
        self.peer_status = Status(camera_off=False, face_lost=False)
        self.wants_fresh_sequence = False
        """Whether the peer's sequence cannot be continued. The link asks for another one and resets this."""
        self.render_s: deque[float] = deque(maxlen=RENDER_TIMES)
        """Time from taking a frame out of the jitter buffer to its picture, of the newest frames."""
        self._runtime, self._executor, self._motion_executor = runtime, executor, motion_executor
        self._stamp_ms, self._state, self._on_first_source = stamp_ms, state, on_first_source
        self._dropped = dropped
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._wake = asyncio.Event()
        self._lateness_s: deque[float] = deque(maxlen=RENDER_TIMES)
        """Time from when a frame was due to when it was shown, of the newest frames."""
        self._playout_delay_s = 0.0
        self._units: asyncio.Queue[tuple[SourceAssembler, SourcePacket, bool]] = asyncio.Queue(MAX_QUEUED_UNITS)
        self._decodable_frames = TokenBucket(FRAMES_PER_S, FRAME_BURST)
        self._showable_frames = TokenBucket(NEW_FRAMES_PER_S, NEW_FRAME_BURST)
        self._decodable_units = TokenBucket(UNITS_PER_S, UNIT_BURST)
        self._preparable_sources = TokenBucket(SOURCES_PER_S, SOURCE_BURST)
        self._renderable = TokenBucket(RENDERED_PER_S, RENDER_BURST)
        self.conduct = Conduct()
        self._messages: asyncio.Queue[tuple[MotionReceiver, MotionMessage, float]] = asyncio.Queue(MAX_QUEUED_MESSAGES)
        """Checked motion messages with their arrival times."""
        self._source_ack_due = False
        self._reported_s = self._loop.time()
        self._latest: RenderedFrame | None = None
        self._has_new_frame = asyncio.Event()
        self._shown: deque[tuple[float, float]] = deque(maxlen=256)
        """(time, delay) of the newest frames shown."""
        self._shown_since_report = 0
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=256)
        """(time, number of new frames) of the newest motion messages."""
        self.reset()

    def reset(self) -> None:
        """Begin another stream of the peer: forget everything about the one before."""
        info = self._runtime.info
        self.library = Library(MAX_SOURCES)
        self.assembler = SourceAssembler()
        spaces = MotionSpaces(self.library, load_transform_tables().directions)
        self.motion = MotionReceiver(info.keypoints, self._decodable_frames, spaces.at, self._showable_frames)
        self.loss = 0.0
        """Share of motion messages lost in the last report interval."""
        self._source_decoder = SourceDecoder(info.size)
        self._compositor = Compositor(self._runtime)
        self._clocks = Clocks()
        self._newest_report_ms = -1
        if self.recording is not None:
            self.recording.restart()

    def new_connection(self) -> None:
        """What is received from now on took another path."""
        self.assembler.restart_unit()
        self.motion.jitter_buffer.new_path()

    def judge(self, now_s: float) -> None:
        """Ignore a peer that goes on exceeding its budgets. Call it several times a second."""
        self.conduct.judge(self.dropped(), now_s)

    def dropped(self) -> Counter[str]:
        """Messages of the present stream that were dropped, by reason."""
        return self._dropped + self.motion.dropped + self.assembler.dropped

    def close(self) -> None:
        self._closed = True
        self._has_new_frame.set()

    async def frames(self) -> AsyncIterator[RenderedFrame]:
        """Each frame at its playout time. A slow consumer gets the newest one. Ends when closed."""
        while True:
            await self._has_new_frame.wait()
            self._has_new_frame.clear()
            if self._closed:
                return
            if self._latest is not None:
                yield self._latest

    def playout_delay_s(self) -> float:
        """Delay from a frame's arrival to its display."""
        jitter_buffer = self.motion.jitter_buffer
        late_s = sorted(self._lateness_s)[len(self._lateness_s) // 2] if self._lateness_s else 0.0
        if jitter_buffer.fastest_s is not None:  # None on a new path before the first arrival: keep the last value
            self._playout_delay_s = max(0.0, jitter_buffer.delay_s - jitter_buffer.fastest_s + late_s)
        return self._playout_delay_s

    def frame_stats(self, now_s: float) -> tuple[float, float]:
        """(frames shown per second, their mean glass-to-glass delay in ms), over the last STATS_S."""
        delays = [delay for at, delay in self._shown if at > now_s - STATS_S]
        return len(delays) / STATS_S, 1000 * sum(delays) / len(delays) if delays else 0.0

    def received_per_s(self, now_s: float) -> float:
        """Frames that arrived per second, over the last STATS_S; repeated ones count once."""
        return sum(count for at, count in self._arrivals if at > now_s - STATS_S) / STATS_S

    @property
    def round_trip_s(self) -> float | None:
        """The shortest round trip of reports in the last seconds; None before the first."""
        return self._clocks.round_trip_s

    def median_render_s(self) -> float:
        """Time from taking a frame out of the jitter buffer to its picture; 0 before the first."""
        return sorted(self.render_s)[len(self.render_s) // 2] if self.render_s else 0.0

    @property
    def units_to_decode(self) -> int:
        return self._units.qsize()

    # Messages

    def receive_motion(self, data: bytes, now_s: float) -> int | None:
        """Queue a motion message for decoding; returns the acknowledgement in it (modulo 256), if any."""
        if self.conduct.ignores(now_s):
            self._dropped["ignored"] += 1
            return None
        message = self.motion.check(data, now_s)
        if message is None:
            return None
        try:
            self._messages.put_nowait((self.motion, message, now_s))
        except asyncio.QueueFull:  # within its budget: it is this machine that is too slow
            self._dropped["behind"] += 1
        return message.acknowledged

    def receive_source(self, data: bytes) -> None:
        """Take a source chunk, and queue the unit that it completes for decoding."""
        if self.conduct.ignores(self._loop.time()):
            self._dropped["ignored"] += 1
            return
        before = self.assembler.dropped.copy()
        unit = self.assembler.take(data)
        if self.assembler.dropped["out of sequence"] > before["out of sequence"]:
            self.abandon_sequence()
        if self.assembler.dropped["replayed"] > before["replayed"]:
            self._source_ack_due = True  # a sender that restarted a unit does not know that it has arrived
        if unit is None:
            return
        packet, is_snapshot = unit
        is_costly = packet.base is None and not is_snapshot
        now = self._loop.time()
        if not self._decodable_units.take(now) or (is_costly and not self._preparable_sources.take(now)):
            self._dropped["flood"] += 1
            self.abandon_sequence()
            return
        try:
            self._units.put_nowait((self.assembler, *unit))
        except asyncio.QueueFull:
            self._dropped["behind"] += 1
            self.abandon_sequence()

    def receive_report(self, report: Report, now_s: float) -> bool:
        """Returns False for a report that is older than one before it, or repeated."""
        if report.sent_ms <= self._newest_report_ms:
            self._dropped["replayed"] += 1
            return False
        self._newest_report_ms = report.sent_ms
        self._clocks.take(self._stamp_ms(now_s), report.sent_ms, report.echo_ms, report.held_ms, now_s)
        return True

    def abandon_sequence(self) -> None:
        """The present sequence cannot be continued: wait for the start of another one."""
        self.assembler.forget()
        self.wants_fresh_sequence = True

    # Messages to the peer

    def take_source_ack(self) -> SourceAck | None:
        """The acknowledgement of sources, if one is due."""
        if not self._source_ack_due or self.assembler.sequence is None:
            return None
        self._source_ack_due = False
        return SourceAck(self.assembler.sequence, self.assembler.index)

    def take_report(self, now_s: float) -> Report | None:
        """The next report, if it is due."""
        queued_s = self.motion.jitter_buffer.queued_s(now_s, BAD_REPORT_S)
        counts = self.motion.reception
        is_bad = counts.lost > 0 or queued_s > QUEUED_S
        if now_s - self._reported_s < (BAD_REPORT_S if is_bad else REPORT_S):
            return None
        self._reported_s = now_s
        lost = max(0, counts.lost)
        total = counts.messages + lost
        self.loss = lost / total if total else 0.0
        self.motion.reception = ReceptionCounts()
        shown, self._shown_since_report = self._shown_since_report, 0
        echo_ms, held_s = self._clocks.echo(now_s)
        return Report(
            sent_ms=self._stamp_ms(now_s),
            echo_ms=echo_ms,
            held_ms=round(1000 * held_s),
            messages=counts.messages,
            lost=lost,
            queued_ms=max(0, round(1000 * queued_s)),
            acknowledged=self.motion.acknowledged,
            shown=shown,
        )

    # Tasks, run by the link

    async def decode_motion(self) -> None:
        """Decode queued motion messages. Never returns."""
        while True:
            motion, message, arrived_s = await self._messages.get()
            try:
                decoded = await self._loop.run_in_executor(self._motion_executor, motion.decode, message)
            except FormatError:
                motion.dropped["malformed"] += 1
                continue
            newest = -1 if motion.acknowledged is None else motion.acknowledged
            motion.add(message, decoded, arrived_s)
            self._arrivals.append((arrived_s, sum(frame.number > newest for frame in decoded)))
            if motion is not self.motion:  # of a stream that has ended
                continue
            if self.recording is not None:
                self.recording.motion(motion.newest_frames, arrived_s)
            self._wake.set()

    async def decode_sources(self) -> None:
        """Decode queued source units. Never returns."""
        while True:
            assembler, packet, is_snapshot = await self._units.get()
            if assembler is not self.assembler:  # of a stream that has ended
                continue
            library, decoder = self.library, self._source_decoder
            base = None if packet.base is None else library.at(packet.base)
            try:
                picture, source = await self._run(partial(self._decode_source, decoder, packet, base, is_snapshot))
            except FormatError:
                self._dropped["sources"] += 1
                self.abandon_sequence()
                continue
            self._source_ack_due = True
            if self.recording is not None:
                self.recording.source(packet)
            if source is not None:
                is_first = not len(library)
                library.add(packet.slot, source, variant=packet.base is not None)
                if is_first:
                    self.motion.jitter_buffer.relearn()  # the motion so far shared the link with this picture
                    self._on_first_source()
                self._wake.set()
            elif not is_snapshot:
                self._dropped["variants"] += 1
            elif self.peer_status.face_lost:
                self._show(RenderedFrame(SNAPSHOT_NUMBER, picture, self._loop.time(), 0.0, LinkState.FACE_LOST))

    def _decode_source(
        self, decoder: SourceDecoder, packet: SourcePacket, base: Source | None, is_snapshot: bool
    ) -> tuple[Picture, Source | None]:
        """Return a unit's picture, and the source that it is: none if it is a snapshot, or a variant without its base.
        Runs in the executor."""
        picture = decoder.add(packet.payload)
        if is_snapshot or (packet.base is not None and base is None):
            return picture, None
        return picture, self._runtime.prepare(picture) if base is None else self._runtime.with_picture(base, picture)

    async def render(self) -> None:
        """Render frames as they become due. Never returns."""
        while True:
            now = self._loop.time()
            jitter_buffer = self.motion.jitter_buffer
            next_s = jitter_buffer.next_s(now) if len(self.library) else None
            if next_s is None or next_s > now:
                alarm = None if next_s is None else self._loop.call_at(next_s, self._wake.set)
                await self._wake.wait()
                self._wake.clear()
                if alarm is not None:
                    alarm.cancel()
                continue
            due = jitter_buffer.pop(now)
            if due is None or self.conduct.is_ignored(now):
                continue
            if self._renderable.take(now):
                await self._render(due, now)
            else:
                self._dropped["too many frames"] += 1

    async def _render(self, due: DueFrame, began_s: float) -> None:
        frame = due.frame
        sources = self.library.attended(frame.keypoints, frame.reference_source, frame.regions)
        shown = [None if slot is None else self.library.at(slot) for slot in frame.regions]
        picture = await self._run(partial(self._reconstruct, frame.keypoints, sources, shown, self._compositor))
        now = self._loop.time()
        self.render_s.append(now - began_s)
        self.motion.jitter_buffer.render_s = min(MAX_RENDER_S, sorted(self.render_s)[len(self.render_s) * 7 // 10])
        shown_s = max(now, due.due_s)
        self._lateness_s.append(shown_s - due.due_s)
        captured_s = self._clocks.local_s(frame.stamp_s)
        if captured_s is None:  # the clocks' offset is unknown: assume that an empty path has no delay
            delay_s = shown_s - frame.stamp_s - self.motion.jitter_buffer.empty_s
        else:
            delay_s = self._stamp_ms(shown_s) / 1000 - captured_s
        rendered = RenderedFrame(frame.number, picture, shown_s, delay_s, self._state())
        self._loop.call_at(shown_s, self._show, rendered)

    def _reconstruct(
        self, keypoints: Keypoints, sources: list[Source], shown: list[Source | None], compositor: Compositor
    ) -> Picture:
        """Runs in the executor."""
        return self._runtime.reconstruct(keypoints, [compositor.composite(sources[0], shown), *sources[1:]])

    def _show(self, frame: RenderedFrame) -> None:
        self._latest = frame
        self._shown.append((frame.due_s, frame.delay_s))
        self._shown_since_report += 1
        self._has_new_frame.set()

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._executor, work)
