"""The call: everyone in the room, each with a connection of their own (a mesh of up to 6), from joining to leaving."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from aioice.ice import get_host_addresses
from aiortc import RTCPeerConnection

from iwcodec.client.audio.jitter_buffer import Playout, Speaker
from iwcodec.client.audio.track import Microphone, SoundCount, carry_sound, decline_video, reported_loss
from iwcodec.client.room.peer import Peer, all_closed
from iwcodec.client.room.signalling import (
    Candidate,
    Description,
    Disconnected,
    IceServers,
    Joined,
    PeerJoined,
    PeerLeft,
    Refused,
    Signalling,
)
from iwcodec.client.transport.ice import chosen, usable
from iwcodec.client.video.capture import Pictures
from iwcodec.client.video.link import Link, LinkState, LinkStats, Shown
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.errors import CodecError

logger = logging.getLogger(__name__)

ABANDON_S: Final = 12.0
"""Whoever the server has lost, and whose connection is silent for so long, has left."""
ICE_MARGIN_S: Final = 60.0
"""TURN credentials are renewed so long before they expire."""
TIDY_S: Final = 1.0
OFFER_S: Final = 1.0
"""How long the offer of somebody who came while the server was out of reach is waited for."""
HURRIES: Final = 5
"""Ticks after a change of the network for which connections that have fallen silent are replaced."""


def local_addresses() -> set[str]:
    """Of this machine, loopback left out."""
    return set(get_host_addresses(use_ipv4=True, use_ipv6=True))


class CallState(StrEnum):
    """Our own way to the room."""

    JOINING = "joining"
    WAITING = "waiting for others"
    TALKING = "in the call"
    OFFLINE = "server out of reach, reconnecting"
    LEFT = "left"


@dataclass
class Participant:
    """Somebody else in the room, as far as a window needs to know."""

    peer: Peer
    shown: Shown | None = None
    """The latest picture."""
    playout: Playout | None = None
    """The sound; None where there is none."""
    sound: SoundCount = field(default_factory=SoundCount)
    """What the sound takes on the wire."""
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

    def stats(self) -> LinkStats | None:
        return None if self.peer.link is None else self.peer.link.stats()


Watcher = Callable[[Participant, Shown], None]


class Call:
    """`run` until `leave`. Belongs to one event loop."""

    def __init__(
        self,
        signalling: Signalling,
        feed: VideoSender,
        make_link: Callable[[RTCPeerConnection], Link],
        connect: Callable[[list[dict[str, Any]]], RTCPeerConnection],
        microphone: Microphone | None = None,
        speaker: Speaker | None = None,
    ) -> None:
        """Without microphone and speaker the call has no sound."""
        self.signalling = signalling
        self.participants: dict[str, Participant] = {}
        self.watchers: list[Watcher] = []
        """Called with every picture at its play-out time."""
        self.linked: list[Callable[[Participant, Link], None]] = []
        """Called for everyone whose link has been made, before anything comes over it."""
        self.notices: list[str] = []
        """What happened, in sentences, newest last."""
        self.muted = self.camera_off = False
        self._feed, self.make_link, self._connect = feed, make_link, connect
        self.microphone, self._speaker = microphone, speaker
        self._id = ""
        self._online = False
        self._left = False
        self.unusable = 0
        """ICE servers that the server named and that cannot be used."""
        self._ice: list[dict[str, Any]] = []
        self._ice_expires = 0.0

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
        """Until `leave`, or cancelled. Raises SignallingError where the room cannot be joined or stayed in."""
        tidying = asyncio.create_task(self._tidy())
        try:
            async for event in self.signalling.events():
                self._handle(event)
        finally:
            tidying.cancel()
            self._left = True
            for id in list(self.participants):
                self._forget(id)
            await all_closed()

    async def leave(self) -> None:
        self._left = True
        await self.signalling.leave()

    def mute(self, on: bool) -> None:
        self.muted = on
        if self.microphone is not None:
            self.microphone.mute(on)

    def hide(self, on: bool) -> None:
        """Camera off."""
        self.camera_off = on
        self._feed.pause(on)

    async def film(self, pictures: Pictures) -> None:
        """Send what a camera gives, until it is closed. Where it fails the call goes on without."""
        try:
            async for taken in pictures:
                await self._feed.push(taken.picture, taken.captured_s)
        except CodecError as error:
            self.note(str(error))
            self.hide(True)

    def _handle(self, event: Any) -> None:
        match event:
            case Joined():
                self._joined(event)
            case PeerJoined(id, name):
                self._enter(id, name, offers=False)
            case PeerLeft(id, lost):
                self._leaves(id, lost)
            case Description() | Candidate():
                if event.sender in self.participants:
                    self.participants[event.sender].peer.signalled(event)
            case IceServers(servers, ttl_s):
                self._take_ice(servers, ttl_s)
            case Disconnected(why):
                self._online = False
                self.note(why)
            case Refused(code, text):
                logger.debug("server: %s %s", code, text)

    def _joined(self, joined: Joined) -> None:
        self._online = True
        self._take_ice(joined.ice_servers, joined.ice_ttl_s)
        if joined.id != self._id:
            # A new place in the room: to the others we are somebody else.
            for id in list(self.participants):
                self._forget(id)
            self._id = joined.id
        for id, participant in self.participants.items():
            participant.peer.gone = id not in joined.peers
            participant.peer.hurry()
        known = set(self.participants)
        for id, name in joined.peers.items():
            self._enter(id, name, offers=not joined.resumed)
        if joined.resumed:
            # Who came meanwhile has made an offer: it comes next, or was lost with the connection to the server.
            for id in self.participants.keys() - known:
                self.participants[id].peer.hurry(OFFER_S)

    def _enter(self, id: str, name: str, offers: bool) -> None:
        if id == self._id:
            return
        known = self.participants.get(id)
        if known is not None:
            known.peer.gone = False
            return
        playout = Playout() if self._speaker is not None else None
        carried = _Carried(self, playout)
        polite = self._id < id

        def connect() -> RTCPeerConnection:
            return self._connect(chosen(self._ice, peer.tries - 1))

        peer = Peer(id, name, polite, offers, self.signalling, connect, carried)
        carried.participant = participant = Participant(peer, playout=playout)
        if self._speaker is not None and playout is not None:
            self._speaker.add(playout)
        self.participants[id] = participant
        participant.tasks.append(asyncio.create_task(participant.peer.run()))
        self.note(f"{name} joined")

    def _leaves(self, id: str, lost: bool) -> None:
        participant = self.participants.get(id)
        if participant is None:
            return
        if lost and participant.peer.connected:
            participant.peer.gone = True
            return
        self._forget(id)

    def _forget(self, id: str) -> None:
        """At once: whoever comes under the same id next is somebody new."""
        participant = self.participants.pop(id, None)
        if participant is None:
            return
        self.note(f"{participant.name} left")
        task = asyncio.create_task(self._dismiss(participant))
        _dismissing.add(task)
        task.add_done_callback(_dismissing.discard)

    async def _dismiss(self, participant: Participant) -> None:
        if self._speaker is not None and participant.playout is not None:
            self._speaker.remove(participant.playout)
        for task in participant.tasks:
            task.cancel()
        await asyncio.gather(*participant.tasks, return_exceptions=True)
        await participant.peer.close()

    def _take_ice(self, servers: list[dict[str, Any]], ttl_s: float) -> None:
        self._ice, dropped = usable(servers)
        if dropped and not self.unusable:
            logger.warning("ICE servers that cannot be used are left out: %s", ", ".join(dropped))
        self.unusable += len(dropped)
        self._ice_expires = asyncio.get_running_loop().time() + ttl_s

    async def _tidy(self) -> None:
        """Forget those who are gone for good; notice that the network has changed; keep TURN credentials fresh for the
        connections to come."""
        addresses, hurries = local_addresses(), 0
        while True:
            await asyncio.sleep(TIDY_S)
            before, addresses = addresses, local_addresses()
            if before - addresses:
                self.note("the network has changed")
                self.signalling.renew()
                hurries = HURRIES
            if hurries:
                hurries -= 1
                for participant in self.participants.values():
                    participant.peer.hurry()
            for id, participant in list(self.participants.items()):
                if participant.peer.gone and participant.peer.silent_s > ABANDON_S:
                    self._forget(id)
            await self._listen_to_reports()
            if self._online and asyncio.get_running_loop().time() > self._ice_expires - ICE_MARGIN_S:
                self._ice_expires += ICE_MARGIN_S
                await self.signalling.ask_ice()

    async def _listen_to_reports(self) -> None:
        if self.microphone is None:
            return
        connections = [p.peer.connection for p in self.participants.values() if p.peer.connected]
        losses = [await reported_loss(connection) for connection in connections if connection is not None]
        links = [p.peer.link for p in self.participants.values()]
        self.microphone.report(max(losses, default=0.0), any(link is not None and link.congested for link in links))

    async def watch(self, participant: Participant, link: Link) -> None:
        """Take what the link shows, until it is closed."""
        async for shown in link.frames():
            participant.shown = shown
            if participant.playout is not None:
                participant.playout.follow(link.playout_delay_s())
            for watcher in self.watchers:
                watcher(participant, shown)

    def note(self, text: str) -> None:
        """Tell the user."""
        self.notices.append(text)
        del self.notices[:-20]


_dismissing: set[asyncio.Task[None]] = set()


class _Carried:
    """What goes over the connections to one participant: the link's data channels, and the sound."""

    participant: Participant

    def __init__(self, call: Call, playout: Playout | None) -> None:
        self._call, self._playout = call, playout

    def attach(self, connection: RTCPeerConnection, link: Link | None) -> Link:
        # Sound first: where data channels came before, aiortc stops the transport that both share.
        carry_sound(connection, self._call.microphone, self._playout, self.participant.sound, self._sound_waits)
        if link is None:
            link = self._call.make_link(connection)
            for tell in self._call.linked:
                tell(self.participant, link)
            self.participant.tasks.append(asyncio.create_task(self._call.watch(self.participant, link)))
        else:
            link.replace_connection(connection)
        return link

    def _sound_waits(self) -> bool:
        link = self.participant.peer.link
        return link is not None and link.first_picture_waits

    def accept(self, connection: RTCPeerConnection) -> None:
        decline_video(connection)
