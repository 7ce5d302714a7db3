"""The video of one peer, in both directions, on the data channels of a peer connection (messages.py).

A link outlives its connection: after a network change it goes on over another one. It runs in one event loop, on the
loop's clock, which is that of time.monotonic(); the networks run in the executor.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor

from aiortc import RTCPeerConnection

from iwcodec.client.link.channels import Channels
from iwcodec.client.link.incoming import IncomingVideo, Recording
from iwcodec.client.link.link_state import LinkState, LinkStats, RenderedFrame
from iwcodec.client.link.messages import (
    CONTROL_CHANNEL,
    MOTION_CHANNEL,
    PROTOCOL,
    SOURCE_CHANNEL,
    Commitment,
    Hello,
    Nonce,
    Report,
    SourceAck,
    Status,
    control_from_bytes,
    is_control,
    tables_id,
)
from iwcodec.client.link.outgoing import OutgoingVideo
from iwcodec.client.link.verification import Verification
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.errors import FormatError
from iwcodec.codec.token_bucket import TokenBucket
from iwcodec.models.runtime.types import Runtime

log = logging.getLogger(__name__)

TICK_S = 0.1
FROZEN_S = 1.5
"""Without a motion message for this long the peer counts as frozen."""
FRESH_S = 2.0
"""Minimum time between requests for a fresh sequence."""
STREAMS_PER_S, STREAM_BURST = 0.2, 5.0
"""New streams that a peer may begin per second, and at once. A peer begins one when its program is restarted; each
discards all that was received, and makes new decoders."""
MAX_EARLY = 64
"""Source chunks that are kept if they arrive before the hello."""


class Link:
    """Sends the pictures of a VideoSender to one peer and renders those of the peer."""

    def __init__(
        self,
        connection: RTCPeerConnection,
        video_sender: VideoSender,
        runtime: Runtime,
        executor: Executor,
        motion_executor: Executor | None = None,
    ) -> None:
        """Creates its data channels, so it must be made before the connection's offer or answer, in a running event
        loop. `executor` runs the networks, `motion_executor` (by default the same) decodes motion."""
        self._loop = asyncio.get_running_loop()
        self._video_sender = video_sender
        self._runtime = runtime
        self._tables = tables_id()
        self._dropped: Counter[str] = Counter()
        self._closed = False
        self._began = False
        """Whether there has been a compatible hello on any connection."""
        self._is_incompatible = False
        self._stream: int | None = None
        self._verification = Verification()
        self._streams = TokenBucket(STREAMS_PER_S, STREAM_BURST)
        self._asked_s = float("-inf")
        """When a fresh sequence was last asked for."""
        self.incoming = IncomingVideo(
            runtime,
            executor,
            motion_executor or executor,
            stamp_ms=video_sender.stamp_ms,
            state=lambda: self.state,
            on_first_source=lambda: self.outgoing.send_pending(),  # the ack makes the peer send all of its motion
            dropped=self._dropped,
        )
        self.outgoing = OutgoingVideo(video_sender, self.incoming)
        self._attach(connection)
        video_sender.join(self.outgoing)
        works = (self._tick, self.incoming.render, self.incoming.decode_motion, self.incoming.decode_sources)
        self._tasks = [asyncio.create_task(self._keep_running(work)) for work in works]

    def frames(self) -> AsyncIterator[RenderedFrame]:
        """Each frame at its playout time. A slow consumer gets the newest one. Ends when the link is closed."""
        return self.incoming.frames()

    @property
    def recording(self) -> Recording | None:
        """Receives everything valid that comes from the peer."""
        return self.incoming.recording

    @recording.setter
    def recording(self, recording: Recording | None) -> None:
        self.incoming.recording = recording

    @property
    def state(self) -> LinkState:
        if self._closed:
            return LinkState.CLOSED
        if self._is_incompatible:
            return LinkState.INCOMPATIBLE
        if not self._channels.are_open or self.outgoing.peer is None:
            return LinkState.RECONNECTING if self._began else LinkState.CONNECTING
        if self._channels.is_connection_lost:
            return LinkState.RECONNECTING
        if self.incoming.conduct.is_ignored(self._loop.time()):
            return LinkState.IGNORED
        if self.incoming.peer_status.camera_off:
            return LinkState.CAMERA_OFF
        if self.incoming.peer_status.face_lost:
            return LinkState.FACE_LOST
        if not len(self.incoming.library):
            return LinkState.WAITING_FOR_SOURCE
        arrived_s = self.incoming.motion.arrived_s
        is_frozen = arrived_s is None or self._loop.time() - arrived_s > FROZEN_S
        return LinkState.FROZEN if is_frozen else LinkState.LIVE

    @property
    def words(self) -> str | None:
        """Three words that the peer sees too if nobody sits between us; None while they are not known."""
        return self._verification.words

    def stats(self) -> LinkStats:
        now = self._loop.time()
        incoming, outgoing = self.incoming, self.outgoing
        sent_kbps, received_kbps = self._channels.rates(now)
        frames_per_s, delay_ms = incoming.frame_stats(now)
        return LinkStats(
            sent_kbps,
            received_kbps,
            frames_per_s,
            delay_ms,
            incoming.loss,
            len(incoming.library),
            dict(incoming.dropped()),
            {
                "frames_to_show": incoming.motion.jitter_buffer.waiting,
                "units_to_decode": incoming.units_to_decode,
                "units_to_send": outgoing.sources.backlog(),
                "bytes_to_send": sum(map(self._channels.queued_bytes, self._channels.by_id)),
            },
            incoming.received_per_s(now),
            self.congested,
            1000 * incoming.median_render_s(),
        )

    def replace_connection(self, connection: RTCPeerConnection) -> None:
        """Continue over another connection, after a network change: both sides keep their libraries. Creates the
        channels on it, so it must be called before the offer or the answer."""
        self.incoming.new_connection()
        self._channels.close()
        self._attach(connection)

    def playout_delay_s(self) -> float:
        """Delay that sound needs, from its arrival on, to be in step with the picture."""
        return self.incoming.playout_delay_s()

    def limit(self, max_kbps: float | None) -> None:
        """Send at most this much video; None: as much as the path carries."""
        self.outgoing.congestion_control.max_kbps = max_kbps

    @property
    def congested(self) -> bool:
        """Whether there is a queue on the path to the peer."""
        return self.outgoing.congestion_control.congested

    @property
    def first_picture_waits(self) -> bool:
        """Whether the peer has no picture yet, and one is still to be sent or will be soon."""
        return self.outgoing.first_picture_waits

    async def close(self) -> None:
        """Stop sending and rendering. The connection stays open; its owner closes it."""
        self._closed = True
        self._channels.close()
        self._video_sender.leave(self.outgoing)
        self.incoming.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, self.outgoing.close(), return_exceptions=True)

    # Connections

    def _attach(self, connection: RTCPeerConnection) -> None:
        self._channels = Channels(connection, self._dropped)
        self._early: list[bytes] = []
        self.outgoing.attach(self._channels)
        self._is_verifying = False
        self._channels.listen(self._receive, self._opened)

    def _opened(self) -> None:
        self._send_hello()
        self._verify()
        if not self._began:
            self.outgoing.channels_opened()

    def _verify(self) -> None:
        """Begin the exchange that leads to `words`, once on each connection."""
        certificates = self._channels.certificates
        if not self._is_verifying and certificates is not None:
            self._is_verifying = True
            for message in self._verification.connected(certificates):
                self._channels.send_control(message)

    def _send_hello(self) -> None:
        assembler, digest = self.incoming.assembler, self._runtime.info.digest
        hello = Hello(PROTOCOL, digest, self._tables, self._video_sender.stream, assembler.sequence, assembler.index)
        self._channels.send_control(hello)
        self.outgoing.status_changed()  # in the same packet

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._loop.time()
            self._channels.sample(now)
            self.incoming.judge(now)
            self._channels.ignore(self.incoming.conduct.is_ignored(now))
            if not self._channels.are_open or self.outgoing.peer is None:
                continue
            if self.incoming.wants_fresh_sequence and now - self._asked_s >= FRESH_S:
                self.incoming.wants_fresh_sequence, self._asked_s = False, now
                self._send_hello()
            self.outgoing.tick(now)

    async def _keep_running(self, work: Callable[[], Awaitable[None]]) -> None:
        """Restart `work` after an exception: one picture that cannot be handled must not end the call."""
        while not self._closed:
            try:
                await work()
            except Exception:
                log.exception("A picture of the peer could not be handled.")
                await asyncio.sleep(TICK_S)

    # Messages

    def _receive(self, channel_id: int, data: bytes) -> None:
        now = self._loop.time()
        if channel_id == CONTROL_CHANNEL or (channel_id == MOTION_CHANNEL and is_control(data)):
            self._receive_control(data, channel_id, now)
        elif self.outgoing.peer is None:
            self._receive_early(channel_id, data)
        elif channel_id == MOTION_CHANNEL:
            acknowledged = self.incoming.receive_motion(data, now)
            if acknowledged is not None:
                self.outgoing.motion.acknowledge_low(acknowledged)
        else:
            self.incoming.receive_source(data)

    def _receive_early(self, channel_id: int, data: bytes) -> None:
        """Keep sources that overtook the hello, because they are sent only once."""
        if channel_id == SOURCE_CHANNEL and len(self._early) < MAX_EARLY:
            self._early.append(data)
        else:
            self._dropped["before hello"] += 1

    def _receive_control(self, data: bytes, channel_id: int, now_s: float) -> None:
        try:
            message = control_from_bytes(data)
        except FormatError:
            self._dropped["malformed"] += 1
            return
        if isinstance(message, Report) != (channel_id == MOTION_CHANNEL):
            self._dropped["wrong channel"] += 1
        elif isinstance(message, Hello):
            self._receive_hello(message)
        elif isinstance(message, Commitment | Nonce):
            self._verify()  # the peer's channel may have opened first
            for answer in self._verification.receive(message, now_s):
                self._channels.send_control(answer)
        elif self.outgoing.peer is None:
            self._dropped["before hello"] += 1
        elif isinstance(message, Report):
            if self.incoming.receive_report(message, now_s):
                self.outgoing.receive_report(message, now_s)
        elif isinstance(message, Status):
            self.incoming.peer_status = message
        elif isinstance(message, SourceAck):
            self.outgoing.receive_source_ack(message)

    def _receive_hello(self, hello: Hello) -> None:
        if (hello.protocol, hello.model, hello.tables) != (PROTOCOL, self._runtime.info.digest, self._tables):
            self._dropped["another model"] += 1
            self._is_incompatible = self.outgoing.peer is None
            return
        is_new_stream = self._stream is not None and self._stream != hello.stream
        if is_new_stream and not self._streams.take(self._loop.time()):
            self._dropped["flood"] += 1
            return
        self._is_incompatible = False
        if is_new_stream:
            self.incoming.reset()
        self._stream = hello.stream
        self._began = True
        self.outgoing.receive_hello(hello, is_new_stream)
        early, self._early = self._early, []
        for data in early:
            self.incoming.receive_source(data)
