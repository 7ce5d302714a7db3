"""A call: a mesh of peer connections to up to five other participants, from joining the room to leaving it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from aioice.ice import get_host_addresses
from aiortc import RTCPeerConnection

from iwcodec.client.audio.jitter_buffer import AudioJitterBuffer
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.audio.speaker import Speaker
from iwcodec.client.audio.transceiver import AudioTraffic, accept_offer, add_audio, reported_loss
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState, LinkStats, RenderedFrame
from iwcodec.client.quality import is_too_slow
from iwcodec.client.room.peer import Peer, all_closed
from iwcodec.client.room.protocol import (
    Disconnected,
    Event,
    IceServers,
    Joined,
    PeerJoined,
    PeerLeft,
    RemoteCandidate,
    RemoteDescription,
    RoomLocked,
    ServerError,
)
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.transport.ice import servers_for_attempt, usable_servers
from iwcodec.client.video.capture import Pictures
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.errors import CodecError

logger = logging.getLogger(__name__)

ABSENCE_TIMEOUT_S: Final = 12.0
"""Time without a packet from a participant whom the server has lost, after which the participant has left."""
ICE_RENEWAL_MARGIN_S: Final = 60.0
"""Time before the TURN credentials expire at which new ones are requested."""
MAINTENANCE_S: Final = 1.0
"""Interval of the periodic checks."""
OFFER_WAIT_S: Final = 1.0
"""After resuming, the wait for the offer of a participant who joined while the server was unreachable."""
NETWORK_CHANGE_CHECKS: Final = 5
"""Periodic checks after a network change during which silent connections are replaced."""
CLOSE_TIMEOUT_S: Final = 2.0
"""Maximum time that the end of the call waits for the links to stop."""
SLOW_CHECKS: Final = 5
"""Periodic checks after which a machine that does not keep up is reported."""
TOO_SLOW: Final = "this machine is too slow for the call: close other programs, or turn the camera off"
SOUND_KBPS: Final = 15.0
"""What continuous speech takes on the wire to one participant (sender.BITRATE)."""
MAX_NOTICES: Final = 20
"""Newest notices that are kept."""


def local_addresses() -> set[str]:
    """IP addresses of this machine, without loopback."""
    return set(get_host_addresses(use_ipv4=True, use_ipv6=True))


class CallState(StrEnum):
    """State of our own connection to the room, in words for the user."""

    JOINING = "joining"
    WAITING = "waiting for others"
    TALKING = "in the call"
    OFFLINE = "server out of reach, reconnecting"
    LEFT = "left"


@dataclass
class Participant:
    """Another participant in the room."""

    peer: Peer
    frame: RenderedFrame | None = None
    """The latest frame."""
    audio_buffer: AudioJitterBuffer | None = None
    """The received audio; None in a call without audio."""
    audio_traffic: AudioTraffic = field(default_factory=AudioTraffic)
    """Bytes of audio on the wire, over all connections to the participant."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.peer.id

    @property
    def name(self) -> str:
        return self.peer.name

    @property
    def state(self) -> LinkState:
        return self.peer.state

    @property
    def silent_s(self) -> float:
        """Seconds since anything came from the participant."""
        return self.peer.silent_s

    @property
    def words(self) -> str | None:
        """Three words that the participant sees, too, unless somebody sits in between (link/verification.py)."""
        return None if self.peer.link is None else self.peer.link.words

    def stats(self) -> LinkStats | None:
        return None if self.peer.link is None else self.peer.link.stats()


FrameListener = Callable[[Participant, RenderedFrame], None]


class Call:
    """A call in a room: await `run`, which ends after `leave`. All methods belong to one event loop."""

    def __init__(
        self,
        signalling: Signalling,
        video_sender: VideoSender,
        make_link: Callable[[RTCPeerConnection], Link],
        connect: Callable[[list[dict[str, Any]]], RTCPeerConnection],
        audio_sender: AudioSender | None = None,
        speaker: Speaker | None = None,
    ) -> None:
        """`make_link` creates the video link over a connection; `connect` creates a connection with the given ICE
        servers. Without `audio_sender` and `speaker` the call has no audio."""
        self.signalling = signalling
        self.participants: dict[str, Participant] = {}
        self.frame_listeners: list[FrameListener] = []
        """Called with every frame at its playout time."""
        self.link_listeners: list[Callable[[Participant, Link], None]] = []
        """Called with every new link before anything arrives over it."""
        self.notices: list[str] = []
        """Recent events in words for the user, newest last."""
        self.notified = 0
        """Number of notices so far."""
        self.muted = self.camera_off = False
        self.has_camera = True
        """Whether there is a camera, or a file instead, that could be on."""
        self.is_host = self.locked = False
        """Whether we may remove participants and lock the room, and whether it is locked."""
        self._video_sender, self.make_link, self._connect = video_sender, make_link, connect
        self.audio_sender, self._speaker = audio_sender, speaker
        self.max_kbps: float | None = None
        """Limit of what is sent to all participants together, kbps; None: as much as the paths carry."""
        self._id = ""
        self._online = False
        self._left = False
        self.unusable_ice_servers = 0
        """Number of ICE servers named by the server that aiortc cannot use."""
        self._ice_servers: list[dict[str, Any]] = []
        self._ice_expires_s = 0.0
        self._slow_checks = 0
        """Periodic checks in a row in which this machine did not keep up."""

    @property
    def state(self) -> CallState:
        if self._left:
            return CallState.LEFT
        if not self._id:
            return CallState.JOINING
        if not self._online:
            return CallState.OFFLINE
        return CallState.TALKING if self.participants else CallState.WAITING

    async def run(self) -> None:
        """Join the room and stay until `leave` or cancellation.

        Raises SignallingError where the room cannot be joined or the connection to it cannot be restored.
        """
        maintenance = asyncio.create_task(self._maintain())
        try:
            async for event in self.signalling.events():
                self._handle(event)
        finally:
            maintenance.cancel()
            self._left = True
            for id in list(self.participants):
                self._remove(id)
            await self._video_sender.close()
            if _closing:
                await asyncio.wait(set(_closing), timeout=CLOSE_TIMEOUT_S)
            await all_closed()

    async def leave(self) -> None:
        self._left = True
        await self.signalling.leave()

    def mute(self, on: bool) -> None:
        self.muted = on
        if self.audio_sender is not None:
            self.audio_sender.mute(on)

    def set_camera_off(self, on: bool) -> None:
        if not self.has_camera and not on:
            self.notify("there is no camera in this call")
            return
        self.camera_off = on
        self._video_sender.pause(on)

    async def send_video(self, pictures: Pictures) -> None:
        """Send the camera's pictures until it is closed. If the camera fails, the call goes on without."""
        try:
            async for frame in pictures:
                await self._video_sender.push(frame.picture, frame.captured_s)
        except CodecError as error:
            self.notify(str(error))
            self.go_without_camera()

    def go_without_camera(self) -> None:
        """Send no picture from now on."""
        self.has_camera = False
        self.set_camera_off(True)

    async def lock(self, on: bool) -> None:
        """As the host: admit nobody else, or unlock the room."""
        await self.signalling.lock(on)

    async def expel(self, id: str) -> None:
        """As the host: remove a participant, and lock the room, which the invitation would open again."""
        if not self.locked:
            await self.signalling.lock(True)
        await self.signalling.remove(id)

    def notify(self, text: str) -> None:
        """Add a notice for the user."""
        self.notices.append(text)
        self.notified += 1
        del self.notices[:-MAX_NOTICES]

    async def receive_video(self, participant: Participant, link: Link) -> None:
        """Pass the link's frames to the listeners, and its playout delay to the audio, until the link is closed."""
        async for frame in link.frames():
            participant.frame = frame
            if participant.audio_buffer is not None:
                participant.audio_buffer.set_min_delay(link.playout_delay_s())
            for listener in self.frame_listeners:
                listener(participant, frame)

    def _handle(self, event: Event) -> None:
        match event:
            case Joined():
                self._handle_joined(event)
            case PeerJoined(id, name):
                self._add(id, name, offers=False)
            case PeerLeft(id, lost):
                self._handle_left(id, lost)
            case RemoteDescription() | RemoteCandidate():
                if event.sender in self.participants:
                    self.participants[event.sender].peer.receive(event)
            case IceServers(servers, ttl_s):
                self._set_ice_servers(servers, ttl_s)
            case RoomLocked(on):
                self.locked = on
                self.notify("the room is locked" if on else "the room is open")
            case Disconnected(why):
                self._online = False
                self.notify(why)
            case ServerError(code, text):
                logger.debug("server: %s %s", code, text)
                if code == "not-host":
                    self.notify(text)

    def _handle_joined(self, joined: Joined) -> None:
        self._online = True
        self.is_host, self.locked = joined.host, joined.locked
        self._set_ice_servers(joined.ice_servers, joined.ice_ttl_s)
        is_first = not self._id
        if joined.id != self._id:
            # With a new id we are a new participant to the others, who drop their connections to the old one.
            for id in list(self.participants):
                self._remove(id)
            self._id = joined.id
        for id, participant in self.participants.items():
            participant.peer.lost_by_server = id not in joined.peers
            participant.peer.retry()
        known = set(self.participants)
        for id, name in joined.peers.items():
            self._add(id, name, offers=is_first or not joined.resumed)
        if joined.resumed and not is_first:
            # Those who joined meanwhile have sent an offer, which arrives next unless it was lost.
            for id in self.participants.keys() - known:
                self.participants[id].peer.retry(OFFER_WAIT_S)

    def _add(self, id: str, name: str, offers: bool) -> None:
        """Start connecting to a participant. `offers`: whether we make the first offer."""
        if id == self._id:
            return
        known = self.participants.get(id)
        if known is not None:
            known.peer.lost_by_server = False
            return
        audio_buffer = AudioJitterBuffer() if self._speaker is not None else None
        media = _ParticipantMedia(self, audio_buffer)
        polite = self._id < id

        def connect() -> RTCPeerConnection:
            return self._connect(servers_for_attempt(self._ice_servers, peer.attempts - 1))

        peer = Peer(id, name, polite, offers, self.signalling, connect, media)
        media.participant = participant = Participant(peer, audio_buffer=audio_buffer)
        if self._speaker is not None and audio_buffer is not None:
            self._speaker.add(audio_buffer)
        self.participants[id] = participant
        participant.tasks.append(asyncio.create_task(participant.peer.run()))
        self.notify(f"{name} joined")

    def _handle_left(self, id: str, lost: bool) -> None:
        participant = self.participants.get(id)
        if participant is None:
            return
        if lost and participant.peer.connected:
            participant.peer.lost_by_server = True
            return
        self._remove(id)

    def _remove(self, id: str) -> None:
        """Remove a participant at once, so that the same id can join again, and close the connection later."""
        participant = self.participants.pop(id, None)
        if participant is None:
            return
        self.notify(f"{participant.name} left")
        task = asyncio.create_task(self._close(participant))
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def _close(self, participant: Participant) -> None:
        if self._speaker is not None and participant.audio_buffer is not None:
            self._speaker.remove(participant.audio_buffer)
        for task in participant.tasks:
            task.cancel()
        await asyncio.gather(*participant.tasks, return_exceptions=True)
        await participant.peer.close()

    def _set_ice_servers(self, servers: list[dict[str, Any]], ttl_s: float) -> None:
        self._ice_servers, unusable = usable_servers(servers)
        if unusable and not self.unusable_ice_servers:
            logger.warning("ICE servers that cannot be used are ignored: %s", ", ".join(unusable))
        self.unusable_ice_servers += len(unusable)
        self._ice_expires_s = asyncio.get_running_loop().time() + ttl_s

    async def _maintain(self) -> None:
        """Periodically remove participants who have vanished, react to network changes, adapt the audio to reported
        losses, and renew TURN credentials for future connections."""
        addresses, checks_left = local_addresses(), 0
        while True:
            await asyncio.sleep(MAINTENANCE_S)
            previous, addresses = addresses, local_addresses()
            if previous - addresses:
                self.notify("the network has changed")
                self.signalling.reconnect()
                checks_left = NETWORK_CHANGE_CHECKS
            if checks_left:
                checks_left -= 1
                for participant in self.participants.values():
                    participant.peer.retry()
            for id, participant in list(self.participants.items()):
                if participant.peer.lost_by_server and participant.peer.silent_s > ABSENCE_TIMEOUT_S:
                    self._remove(id)
            self._share_rate()
            self._judge_speed()
            await self._adapt_audio()
            if self._online and asyncio.get_running_loop().time() > self._ice_expires_s - ICE_RENEWAL_MARGIN_S:
                self._ice_expires_s += ICE_RENEWAL_MARGIN_S
                await self.signalling.request_ice_servers()

    def _judge_speed(self) -> None:
        """Tell the user, once, if this machine has not kept up for some time."""
        stats = [participant.stats() for participant in self.participants.values()]
        is_slow = any(s is not None and is_too_slow(s) for s in stats)
        self._slow_checks = self._slow_checks + 1 if is_slow else 0
        if self._slow_checks == SLOW_CHECKS:
            self.notify(TOO_SLOW)

    def _share_rate(self) -> None:
        """Divide what may be sent between the participants. Sound, which cannot do with less, comes first."""
        if self.max_kbps is None or not self.participants:
            return
        sound_kbps = 0.0 if self.audio_sender is None or self.muted else SOUND_KBPS
        share = max(0.0, self.max_kbps / len(self.participants) - sound_kbps)
        for participant in self.participants.values():
            if participant.peer.link is not None:
                participant.peer.link.limit(share)

    async def _adapt_audio(self) -> None:
        """Report the highest loss of any receiver, and any congestion, to the audio sender."""
        if self.audio_sender is None:
            return
        connections = [p.peer.connection for p in self.participants.values() if p.peer.connected]
        losses = [await reported_loss(connection) for connection in connections if connection is not None]
        links = [p.peer.link for p in self.participants.values()]
        self.audio_sender.report(max(losses, default=0.0), any(link is not None and link.congested for link in links))


_closing: set[asyncio.Task[None]] = set()


class _ParticipantMedia:
    """What the connections to one participant carry: the link's data channels and the audio."""

    participant: Participant

    def __init__(self, call: Call, audio_buffer: AudioJitterBuffer | None) -> None:
        self._call, self._audio_buffer = call, audio_buffer

    def attach(self, connection: RTCPeerConnection, link: Link | None) -> Link:
        # Audio first: if data channels exist already, aiortc stops the transport that both share.
        traffic = self.participant.audio_traffic
        add_audio(connection, self._call.audio_sender, self._audio_buffer, traffic, self._first_picture_waits)
        if link is None:
            link = self._call.make_link(connection)
            for listener in self._call.link_listeners:
                listener(self.participant, link)
            self.participant.tasks.append(asyncio.create_task(self._call.receive_video(self.participant, link)))
        else:
            link.replace_connection(connection)
        return link

    def _first_picture_waits(self) -> bool:
        link = self.participant.peer.link
        return link is not None and link.first_picture_waits

    def accept(self, connection: RTCPeerConnection) -> None:
        accept_offer(connection)
