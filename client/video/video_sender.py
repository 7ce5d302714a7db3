"""One's own video, encoded once for all peers.

Keypoints are found and fitted, faces looked for and sources coded in the executor, one of each at a time; a frame that
comes meanwhile replaces the one that waits, and the fit is left out where frames come late. Links (link.py) join the
feed and are told of every frame and every source unit.

Sources are one AV1 sequence for all links that began together. A peer that joins later gets what matters of the library
as a short sequence of its own, which goes on from there: each picture is then coded once for every sequence in use.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_SLOT, SourcePacket
from iwcodec.codec.fit.keypoint_fit import Fitted, KeypointFit, live_fit
from iwcodec.codec.media.face_detector import FaceDetector
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.av1 import SourceEncoder, smaller_side
from iwcodec.codec.sources.library import by_pose
from iwcodec.codec.sources.source_policy import SourcePolicy, as_sent
from iwcodec.models.runtime.types import Runtime, Source

SOURCE_CRF, SOURCE_PRESET = 55, 6
"""A first picture of 1.7 KB: 0.6 s at 24 kbps. At 50, 35 % more bytes."""
SMALL_CRF = 58
"""Of small sequences, whose pictures have the smaller side, too: half the bytes, 2 dB worse."""
SHORT = 4
"""Units: a sequence that is no longer is short enough for a newcomer, and a fresh one has as many."""
KEPT_UNITS = 64
"""Of a sequence, for links that are behind."""
MAX_BACKLOG = 2
"""Units that may wait to be sent on a link that keeps up. While none does no picture becomes a source."""
LATE_S = 0.05
"""A frame whose keypoints are found so long after it was taken is not fitted."""
LOOK_S = 0.5
"""Between two looks for a face."""
LOOKS_LOST = 3
"""Looks without a face after which it is lost; one with a face brings it back."""
STILL_S = 2.0
"""Between two stills of the scene while the face is lost."""
STILL_CHANGE = 3.0
"""Mean grey levels by which the scene must have changed for another still."""

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutgoingFrame:
    stamp_ms: int
    keypoints: NDArray[np.float32]
    reference_source: int | None = None
    """Number of the source that leads, as the feed counts them; a link knows its slot."""
    gram: NDArray[np.float64] | None = None
    """What errors of the keypoints cost, where they are carried from that source (refinement.Fitted)."""


@dataclass(frozen=True)
class Unit:
    packet: bytes
    """A SourcePacket."""
    still: bool


class SourceSequence:
    """One AV1 sequence and its newest units, by index."""

    def __init__(self, size: int, small: bool = False) -> None:
        """`small`: for a narrow link. AV1's quality cannot change within a sequence."""
        self.small = small
        self.number = secrets.randbits(32)
        self.units: dict[int, Unit] = {}
        self.numbers: dict[int, int] = {}
        """Of the feed's sources: which unit each of them is."""
        self.next = 0
        crf, side = (SMALL_CRF, smaller_side(size)) if small else (SOURCE_CRF, size)
        self._encoder = SourceEncoder(size, crf, SOURCE_PRESET, side)

    def add(self, picture: Picture, number: int | None = None) -> Picture:
        """Code a picture as the next unit (slow); returns it as receivers have it. `number`: of the source that it is,
        None for a still of the scene."""
        packet = SourcePacket(slot_of(self.next), self._encoder.add(picture))
        self.units[self.next] = Unit(packet.to_bytes(), number is None)
        if number is not None:
            self.numbers[number] = self.next
        self.units.pop(self.next - KEPT_UNITS, None)
        self.next += 1
        return self._encoder.reconstructed


def slot_of(index: int) -> int:
    """Where a unit goes in the receiver's library."""
    return index % (MAX_SLOT + 1)


class Subscriber(Protocol):
    """What a link is to the feed."""

    @property
    def sequence(self) -> SourceSequence | None:
        """The sequence that it sends."""
        ...

    def take(self, frame: OutgoingFrame) -> None: ...

    def status_changed(self) -> None: ...

    def backlog(self) -> int:
        """Units that wait to be sent; 0 while the peer cannot be reached."""
        ...

    @property
    def has_picture(self) -> bool:
        """Whether the peer has a source."""
        ...

    @property
    def is_reached(self) -> bool:
        """Whether the peer has been heard of late: one that has not says nothing of what it has."""
        ...

    def slot(self, number: int) -> int | None:
        """Where the peer has a source; None while it does not."""
        ...


class VideoSender:
    """Camera frames in; every link takes from it what it needs. Belongs to one event loop."""

    def __init__(
        self,
        runtime: Runtime,
        executor: Executor,
        has_face: Callable[[Picture], bool] | None = None,
        fit: KeypointFit | None = None,
    ) -> None:
        """`has_face` says of a camera frame whether there is a face in it; CenterFace (framing.py) if not given. `fit`
        fits the keypoints of its frames; `live_fit()` if not given."""
        self.preview: Picture | None = None
        """Oneself as others see it, rebuilt by the sender's own decoder, at a low rate."""
        self.stream = secrets.randbits(32)
        self.paused = False
        self.face_lost = False
        self.dropped = 0
        """Frames that a newer one replaced."""
        self.unfitted = 0
        """Frames whose keypoints were sent as found: they were late already."""
        self._runtime = runtime
        self._executor = executor
        self._has_face = has_face
        self._links: list[Subscriber] = []
        self._sequence: SourceSequence | None = None
        self._small: SourceSequence | None = None
        self._live = SourcePolicy(runtime)
        self._library = self._live.library
        self._fit = fit or live_fit()
        self._added = 0
        self._coding = asyncio.Lock()
        self._clock = asyncio.get_running_loop().time
        self._epoch_s: float | None = None
        self._newest: tuple[Picture, float] | None = None
        self._keypoints: NDArray[np.float32] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._done_s: dict[str, float] = {}
        self._looks_without = 0
        self._still: Picture | None = None

    async def push(self, picture: Picture, captured_s: float) -> None:
        """One camera frame: square, uint8 RGB, of `runtime.info.size`; `captured_s` is time.monotonic(). Keypoints are
        found off the event loop; where they cannot keep up the newest frame wins. Raises ValueError for a picture of
        another shape."""
        size = self._runtime.info.size
        if picture.shape != (size, size, 3) or picture.dtype != np.uint8:
            raise ValueError(f"a frame must be uint8 ({size}, {size}, 3), not {picture.dtype} {picture.shape}")
        if self.paused:
            return
        self.dropped += self._newest is not None
        self._newest = picture, captured_s
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(_logged(self._work))

    def pause(self, on: bool) -> None:
        """Camera off; peers are told."""
        if on != self.paused:
            self.paused = on
            self._newest = None
            self._tell_status()

    def join(self, link: Subscriber) -> None:
        self._links.append(link)

    def leave(self, link: Subscriber) -> None:
        if link in self._links:
            self._links.remove(link)

    def stamp_ms(self, at_s: float) -> int:
        """Time of time.monotonic() on the clock that peers see: milliseconds since a little before the beginning."""
        if self._epoch_s is None:
            self._epoch_s = math.floor(at_s) - 1.0
        return max(0, round(1000 * (at_s - self._epoch_s)))

    async def sequence_for_newcomer(self, small: bool = False) -> SourceSequence | None:
        """The sequence in use where it is short still, else a fresh one with the sources nearest to the present pose;
        None while there is no source at all. `small`: for a narrow link; a fresh one begins with one source alone."""
        async with self._coding:
            if self._sequence is None or (not small and self._sequence.next <= SHORT):
                return self._sequence
            used = any(link.sequence is self._small for link in self._links)
            if small and used and self._small is not None and self._small.next <= SHORT:
                return self._small
            count = 1 if small else SHORT
            nearest = [] if self._keypoints is None else self._library.nearest(self._keypoints, count)
            pictures = [(source.picture, self._library.slot(source)) for source in nearest]
            if self._still is not None:
                pictures.append((self._still, None))
            fresh = await self._run(lambda: self._begin(pictures, small))
            if small:
                self._small = fresh
            else:
                self._sequence = fresh
            return fresh

    def _begin(self, pictures: list[tuple[Picture, int | None]], small: bool) -> SourceSequence:
        sequence = SourceSequence(self._runtime.info.size, small)
        for picture, number in pictures:
            sequence.add(picture, number)
        return sequence

    async def _work(self) -> None:
        while self._newest is not None:
            (picture, captured_s), self._newest = self._newest, None
            now = asyncio.get_running_loop().time()
            self._start("look", LOOK_S, now, lambda picture=picture: self._look(picture))  # type: ignore[misc]
            if self.face_lost:
                self._start("still", STILL_S, now, lambda picture=picture: self._take_still(picture))  # type: ignore[misc]
                continue
            found, gram = await self._run(partial(self._fitted, picture, captured_s, self._known_to_all()))
            if self.paused:
                return
            keypoints, reference_source = found.keypoints, self._library.slot(found.source)
            self._keypoints = keypoints
            frame = OutgoingFrame(self.stamp_ms(captured_s), keypoints, reference_source, gram)
            for link in list(self._links):
                link.take(frame)
            # For every frame, as the receiver does: what is used stays.
            entering = self._library.entering(keypoints, reference_source)
            if not self._is_busy("judge") and self._live.due(captured_s):
                self._start("judge", 0.0, now, partial(self._judge, picture, keypoints, entering, captured_s))

    def _known_to_all(self) -> list[Source]:
        """The sources that everyone has who has any and can be reached; all, while there is nobody. Narrow links do
        without some, and count only where there are no others."""
        pictured = [link for link in self._links if link.has_picture and link.is_reached]
        links = [link for link in pictured if link.sequence is None or not link.sequence.small] or pictured
        slots = [n for n in self._library.slots() if all(link.slot(n) is not None for link in links)]
        known = dict(zip(self._library.slots(), self._library.sources(), strict=True))
        return [known[n] for n in slots] or self._library.sources()

    def _fitted(
        self, picture: Picture, captured_s: float, sources: list[Source]
    ) -> tuple[Fitted, NDArray[np.float64] | None]:
        """In the executor. Keypoints found, and fitted to the motion from the nearest source where there is time; what
        errors of them cost."""
        detected = self._runtime.detect(picture)
        if self._newest is not None or self._clock() - captured_s > LATE_S:
            self.unfitted += 1
            return self._fit.skip(detected), None
        fitted = self._fit.frame(picture, detected, [sources[n] for n in by_pose(sources, detected)])
        return fitted, None if fitted.gram is None else fitted.gram()

    def _is_busy(self, name: str) -> bool:
        running = self._jobs.get(name)
        return running is not None and not running.done()

    def _start(self, name: str, rest_s: float, now_s: float, job: Callable[[], Awaitable[None]]) -> None:
        """Do something beside the frames, unless it is being done already or was within the last `rest_s`."""
        if not self._is_busy(name) and now_s - self._done_s.get(name, -math.inf) >= rest_s:
            self._done_s[name] = now_s
            self._jobs[name] = asyncio.create_task(_logged(job))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _judge(
        self, picture: Picture, keypoints: NDArray[np.float32], sources: list[Source], captured_s: float
    ) -> None:
        """Look at a frame as others will; the first one, and where it falls short and not all of them are behind,
        becomes a source."""
        if sources:
            judged = await self._run(partial(self._live.rebuild, picture, as_sent(keypoints, Quantiser()), sources))
            self.preview = judged.picture
            if not self._live.wants(judged, captured_s) or (self._links and all(map(_is_behind, self._links))):
                return
        await self._add_source(picture, captured_s)

    async def _add_source(self, picture: Picture, captured_s: float) -> None:
        coded = await self._code(picture, self._added)
        prepared = await self._run(partial(self._live.prepare, picture, coded))
        self._live.add(self._added, prepared, captured_s)
        self._added += 1

    async def _code(self, picture: Picture, number: int | None) -> Picture:
        """Add a picture, a source or a still, to every sequence in use; returns it as the newest one has it. A small
        sequence goes without the sources for which all its links are behind."""
        async with self._coding:
            if self._sequence is None:
                self._sequence = SourceSequence(self._runtime.info.size)
            used = {id(link.sequence): link.sequence for link in self._links if link.sequence is not None}
            used.pop(id(self._sequence), None)
            for sequence in used.values():
                links = [link for link in self._links if link.sequence is sequence]
                if sequence.small and number is not None and all(map(_is_behind, links)):
                    continue
                await self._run(lambda sequence=sequence: sequence.add(picture, number))  # type: ignore[misc]
            newest = self._sequence
            return await self._run(lambda: newest.add(picture, number))

    async def _look(self, picture: Picture) -> None:
        found = await self._run(lambda: self._find_face(picture))
        self._looks_without = 0 if found else self._looks_without + 1
        lost = self._looks_without >= LOOKS_LOST
        if lost != self.face_lost:
            self.face_lost = lost
            self._still = None
            self._tell_status()

    def _find_face(self, picture: Picture) -> bool:
        if self._has_face is None:
            detector = FaceDetector()
            self._has_face = lambda picture: bool(detector.detect(picture))
        return self._has_face(picture)

    async def _take_still(self, picture: Picture) -> None:
        if any(link.backlog() for link in self._links):
            return
        if self._still is not None and _difference(picture, self._still) < STILL_CHANGE:
            return
        self._still = picture
        self.preview = await self._code(picture, None)

    def _tell_status(self) -> None:
        for link in list(self._links):
            link.status_changed()


def _is_behind(link: Subscriber) -> bool:
    return link.backlog() > MAX_BACKLOG


async def _logged(job: Callable[[], Awaitable[None]]) -> None:
    """A picture that cannot be handled must not end the call."""
    try:
        await job()
    except Exception:
        log.exception("A picture of the feed could not be handled.")


def _difference(a: Picture, b: Picture) -> float:
    return float(np.abs(a[::4, ::4].astype(np.int16) - b[::4, ::4]).mean())
