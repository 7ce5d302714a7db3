"""Encodes the camera's video once, for all peers of a call.

Keypoint detection and fit, face detection, and source coding run in the executor, at most one of each at a time. A
frame that arrives meanwhile replaces the one that waits, and frames that are late already are not fitted. Links
(link.py) subscribe, and receive every frame and every source unit.

Links that began together share one AV1 sequence of sources. A peer that joins later gets a short sequence of its own
that begins with the sources nearest to the present pose. From then on each new source is coded once for every sequence
in use. Variants of sources (codec/sources/variant_policy.py) are coded for the newest sequence, and for any other when
a frame shows them.
"""

import asyncio
import itertools
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

from iwcodec.client.video.source_sequence import SourceSequence
from iwcodec.codec.fit.keypoint_fit import KeypointFit, live_fit
from iwcodec.codec.media.crop.face_detector import FaceDetector
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.space import MotionSpace, motion_space
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.library import by_pose
from iwcodec.codec.sources.regions import Compositor
from iwcodec.codec.sources.source_policy import SourcePolicy
from iwcodec.codec.sources.variant_policy import Slots, VariantPolicy
from iwcodec.models.runtime.types import Runtime, Source

MAX_SHARED_UNITS = 4
"""Length, in units, up to which a sequence is still sent to a peer that joins; also the length of a fresh one."""
KEPT_SOURCES = 32
"""Sources in the library, variants included; 3 MB each."""
VARIANT_INTERVAL_S = 0.2
"""Minimum interval between variants that a sequence lacks."""
MAX_BACKLOG = 2
"""Units that may wait on a link that counts as keeping up. Without such a link no frame becomes a source."""
LATE_S = 0.4
"""A frame whose keypoints are detected this long after its capture is not fitted. A slow machine rather sends fewer
frames: of those that come meanwhile only the newest is taken."""
JUDGED_SHARE = 0.15
"""Share of the time in which frames are judged, at most: on slow machines less often than SourcePolicy would."""
FACE_CHECK_S = 0.5
"""Interval between runs of the face detector."""
CHECKS_LOST = 3
"""Runs without a face after which it counts as lost; one run with a face ends that."""
SNAPSHOT_S = 2.0
"""Minimum interval between scene snapshots while the face is lost."""
SNAPSHOT_CHANGE = 3.0
"""Mean absolute difference, in grey levels, from which on the scene has changed enough for another snapshot."""

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutgoingFrame:
    """Keypoints of one camera frame."""

    stamp_ms: int
    """Capture time, on the clock of `VideoSender.stamp_ms`."""
    keypoints: NDArray[np.float32]
    """(keypoints, 3): x, y, strength."""
    reference_source: int | None = None
    """Number of the reference source, counted by the VideoSender; None: the nearest in pose."""
    gram: NDArray[np.float64] | None = None
    """Cost of keypoint errors when that source is warped (keypoint_fit.Fitted)."""
    regions: Slots = ()
    """For each region, the number of the source that it shows; None: the reference source."""


@dataclass(frozen=True)
class _Fit:
    """A fitted camera frame."""

    keypoints: NDArray[np.float32]
    source: Source | None
    """Reference source."""
    gram: NDArray[np.float64] | None = None
    regions: Slots = ()
    variant: Picture | None = None
    """The picture that is to become a variant of `home`."""
    home: Source | None = None


class Subscriber(Protocol):
    """A link, as the VideoSender uses it."""

    @property
    def sequence(self) -> SourceSequence | None:
        """The sequence that the link sends."""
        ...

    def take(self, frame: OutgoingFrame) -> None: ...

    def status_changed(self) -> None:
        """`paused` or `face_lost` changed."""
        ...

    def backlog(self) -> int:
        """Number of units that wait to be sent; 0 while the peer cannot be reached."""
        ...

    @property
    def has_picture(self) -> bool:
        """Whether the peer has a source of the present sequence."""
        ...

    @property
    def is_reached(self) -> bool:
        """Whether the peer sent something recently, so that what it has is known."""
        ...

    def slot(self, number: int) -> int | None:
        """Slot of a source in the peer's library; None if the peer does not have it."""
        ...


class VideoSender:
    """Encodes camera frames and passes them to its links. Belongs to one event loop."""

    def __init__(
        self,
        runtime: Runtime,
        executor: Executor,
        has_face: Callable[[Picture], bool] | None = None,
        fit: KeypointFit | None = None,
    ) -> None:
        """`has_face` tells whether a camera frame shows a face, by default with FaceDetector. `fit` fits the keypoints,
        by default `live_fit()`."""
        self.preview: Picture | None = None
        """A recent frame as the peers see it, reconstructed here, at a low rate."""
        self.stream = secrets.randbits(32)
        """Random number of our stream (messages.Hello)."""
        self.paused = False
        """Whether the camera is off."""
        self.face_lost = False
        self.dropped = 0
        """Number of frames that a newer one replaced."""
        self.unfitted = 0
        """Number of frames that were late, and whose keypoints were sent without a fit."""
        self._runtime = runtime
        self._executor = executor
        self._has_face = has_face
        self._links: list[Subscriber] = []
        self._sequence: SourceSequence | None = None
        self._small: SourceSequence | None = None
        self._policy = SourcePolicy(runtime, KEPT_SOURCES)
        self._library = self._policy.library
        self._fit = fit or live_fit()
        self._compositor = Compositor(runtime)
        self._variants = VariantPolicy(self._compositor, self._library)
        self._directions = load_transform_tables().directions
        self._added = 0
        """Number of the next source."""
        self._bases: dict[int, int] = {}
        """Number of each variant in the library -> that of its base."""
        self._coding = asyncio.Lock()
        self._clock = asyncio.get_running_loop().time
        self._epoch_s: float | None = None
        self._newest: tuple[Picture, float] | None = None
        self._keypoints: NDArray[np.float32] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._started_s: dict[str, float] = {}
        self._judged_from_s = -math.inf
        self._checks_without_face = 0
        self._snapshot: Picture | None = None

    async def push(self, picture: Picture, captured_s: float) -> None:
        """Encode one camera frame: uint8 RGB, (size, size, 3) with `runtime.info.size`, captured at `captured_s` on
        the clock of time.monotonic(). Returns at once; a frame that still waits is replaced. Raises ValueError for
        another shape or type."""
        size = self._runtime.info.size
        if picture.shape != (size, size, 3) or picture.dtype != np.uint8:
            raise ValueError(f"a frame must be uint8 ({size}, {size}, 3), not {picture.dtype} {picture.shape}")
        if self.paused:
            return
        self.dropped += self._newest is not None
        self._newest = picture, captured_s
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(_logged(self._process))

    def pause(self, on: bool) -> None:
        """Turn the camera off or on, and notify the peers."""
        if on != self.paused:
            self.paused = on
            self._newest = None
            self._notify_status()

    def join(self, link: Subscriber) -> None:
        """Pass all frames and sources to `link` from now on."""
        self._links.append(link)

    def leave(self, link: Subscriber) -> None:
        """Stop serving `link`; does nothing if it has not joined."""
        if link in self._links:
            self._links.remove(link)

    async def close(self) -> None:
        """Drop the frame in hand: nothing is run in the executor any more, which its owner may now shut down."""
        self.paused, self._newest = True, None
        tasks = [task for task in (self._worker, *self._jobs.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stamp_ms(self, at_s: float) -> int:
        """Convert time.monotonic() to the clock of our messages: milliseconds since 1 to 2 s before the first call."""
        if self._epoch_s is None:
            self._epoch_s = math.floor(at_s) - 1.0
        return max(0, round(1000 * (at_s - self._epoch_s)))

    async def sequence_for_newcomer(self, small: bool = False) -> SourceSequence | None:
        """The present sequence if it is still short, otherwise a fresh one with the sources nearest to the present
        pose; None while there is no source. `small`: for a narrow link; a fresh one then begins with one source."""
        async with self._coding:
            if self._sequence is None or (not small and self._sequence.next <= MAX_SHARED_UNITS):
                return self._sequence
            used = any(link.sequence is self._small for link in self._links)
            if small and used and self._small is not None and self._small.next <= MAX_SHARED_UNITS:
                return self._small
            count = 1 if small else MAX_SHARED_UNITS
            nearest = [] if self._keypoints is None else self._library.nearest(self._keypoints, count)
            home = self._variants.home
            if not small and home is not None and not any(source is home for source in nearest):
                nearest[count - 1 :] = [home]  # without it the peer can have no variants
            pictures = [(source.picture, self._library.slot(source)) for source in nearest]
            if self._snapshot is not None:
                pictures.append((self._snapshot, None))
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

    async def _process(self) -> None:
        while self._newest is not None:
            (picture, captured_s), self._newest = self._newest, None
            now = asyncio.get_running_loop().time()
            self._start("face", FACE_CHECK_S, now, lambda picture=picture: self._check_face(picture))  # type: ignore[misc]
            if self.face_lost:
                self._start("snapshot", SNAPSHOT_S, now, lambda picture=picture: self._take_snapshot(picture))  # type: ignore[misc]
                continue
            self._start("space", 0.0, now, self._add_space)
            keeps_up = not self._links or not all(map(_is_behind, self._links))
            takes_variant = keeps_up and not self._is_busy("variant")
            known, arrived = self._known_to_all(), self._arrived()
            fit = await self._run(partial(self._fit_keypoints, picture, captured_s, known, arrived, takes_variant))
            if self.paused:
                return
            keypoints, reference_source = fit.keypoints, self._library.slot(fit.source)
            self._keypoints = keypoints
            frame = OutgoingFrame(self.stamp_ms(captured_s), keypoints, reference_source, fit.gram, fit.regions)
            for link in list(self._links):
                link.take(frame)
            # Called for every frame, as the receiver does, because the library evicts what is used least recently.
            attended = self._library.attended(keypoints, reference_source, fit.regions)
            if fit.variant is not None and fit.home is not None:
                self._start("variant", 0.0, now, partial(self._add_variant, fit.variant, fit.home))
            elif any(number is not None for number in fit.regions):
                self._start("variant", VARIANT_INTERVAL_S, now, partial(self._send_lacking_variant, fit.regions))
            if not self._is_busy("judge") and captured_s >= self._judged_from_s and self._policy.due(captured_s):
                shown = [None if number is None else self._library.at(number) for number in fit.regions]
                if attended:
                    attended[0] = await self._run(partial(self._compositor.composite, attended[0], shown))
                self._start("judge", 0.0, now, partial(self._judge, picture, keypoints, attended, captured_s))

    def _known_to_all(self) -> list[Source]:
        """The sources that all peers have, of the peers that can be reached and have any; all sources if there is no
        such peer. Peers with a small sequence, which lacks some sources, count only if there are no others."""
        links = self._pictured()
        links = [link for link in links if link.sequence is None or not link.sequence.small] or links
        sources = self._library.sources()
        numbers = {id(self._library.at(n)): n for n in self._library.slots()}
        known = [s for s in sources if all(link.slot(numbers[id(s)]) is not None for link in links)]
        return known or sources

    def _arrived(self) -> set[int]:
        """The numbers of the sources that any peer has, variants included; all if no peer has any. A peer that lacks a
        variant gets it once frames show it."""
        links = self._pictured()
        return {n for n in self._library.slots() if not links or any(link.slot(n) is not None for link in links)}

    def _pictured(self) -> list[Subscriber]:
        return [link for link in self._links if link.has_picture and link.is_reached]

    def _fit_keypoints(
        self, picture: Picture, captured_s: float, sources: list[Source], arrived: set[int], takes_variant: bool
    ) -> _Fit:
        """Detect keypoints; fit them to one of `sources` and choose what the regions show, of the sources with the
        numbers `arrived`, if there is time. `takes_variant`: whether there may be a variant. Runs in the executor."""
        detected = self._runtime.detect(picture)
        if self._clock() - captured_s > LATE_S:
            self.unfitted += 1
            fitted = self._fit.predict(detected)
            return _Fit(fitted.keypoints, fitted.source, regions=self._variants.shown)
        nearest = [sources[n] for n in by_pose(sources, detected)]
        fitted = self._fit.frame(picture, detected, nearest)
        gram = None if fitted.gram is None else fitted.gram()
        if fitted.source is None or gram is None:  # keypoints as detected say too little of where the regions are
            return _Fit(fitted.keypoints, fitted.source, gram)
        regions = self._variants.choose(picture, fitted.keypoints, fitted.source, arrived)
        variant = self._variants.wanted(captured_s) if takes_variant else None
        return _Fit(fitted.keypoints, fitted.source, gram, regions, variant, self._variants.home)

    def _is_busy(self, name: str) -> bool:
        running = self._jobs.get(name)
        return running is not None and not running.done()

    def _start(self, name: str, rest_s: float, now_s: float, job: Callable[[], Awaitable[None]]) -> None:
        """Start a background job, unless one of that name is running or was started within the last `rest_s`."""
        if not self._is_busy(name) and now_s - self._started_s.get(name, -math.inf) >= rest_s:
            self._started_s[name] = now_s
            self._jobs[name] = asyncio.create_task(_logged(job))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _judge(
        self, picture: Picture, keypoints: NDArray[np.float32], sources: list[Source], captured_s: float
    ) -> None:
        """Reconstruct a frame as peers will. It becomes a source if it is the first one, or if the policy wants it and
        not all links are behind."""
        is_wanted = True
        if sources:
            begun_s = self._clock()
            judged = await self._run(partial(self._policy.rebuild, picture, Quantiser().round_trip(keypoints), sources))
            self._judged_from_s = captured_s + (self._clock() - begun_s) / JUDGED_SHARE
            self.preview = judged.picture
            is_behind = self._links and all(map(_is_behind, self._links))
            is_wanted = not is_behind and self._policy.wants(judged, captured_s)
        if is_wanted:
            await self._add_source(picture, captured_s)

    async def _add_source(self, picture: Picture, captured_s: float) -> None:
        number, self._added = self._added, self._added + 1
        coded, size = await self._code(picture, number)
        prepared = await self._run(partial(self._policy.prepare, picture, coded))
        self._policy.add(number, prepared, captured_s, size)

    async def _add_variant(self, picture: Picture, home: Source) -> None:
        """Code a new variant for the newest sequence."""
        async with self._coding:
            base, sequence = self._library.slot(home), self._sequence
            if base is None or sequence is None or base not in sequence.numbers:
                return
            number, self._added = self._added, self._added + 1
            coded = await self._run(partial(sequence.add, picture, number, base))
            self._library.add(number, self._runtime.with_picture(home, coded), variant=True)
            self._bases[number] = base
            self._bases = {n: of for n, of in self._bases.items() if self._library.at(n) is not None}

    async def _send_lacking_variant(self, shown: Slots) -> None:
        """Code one of the variants that a frame shows for a sequence that lacks it, if there is any."""
        async with self._coding:
            sequences = {id(link.sequence): link.sequence for link in self._links if not _is_behind(link)}
            for sequence, number in itertools.product(sequences.values(), shown):
                if sequence is None or number is None or number in sequence.numbers:
                    continue
                base, variant = self._bases.get(number), self._library.at(number)
                if base is not None and base in sequence.numbers and variant is not None:
                    await self._run(partial(sequence.add, variant.picture, number, base))
                    return

    async def _add_space(self) -> None:
        """Compute the coordinates of motion of one source that lacks them, in one of the sequences in use."""
        for sequence in {id(link.sequence): link.sequence for link in self._links}.values():
            if sequence is None:
                continue
            sequence.keep_spaces(set(self._library.slots()))
            for number, picture in sequence.pending.items():
                source = self._library.at(number)
                if source is not None:
                    sequence.spaces[number] = await self._run(partial(self._space, source, picture))
                    del sequence.pending[number]
                    return

    def _space(self, source: Source, picture: Picture) -> MotionSpace:
        """Return the coordinates of a source as receivers decode it, which may be coarser than it is here."""
        decoded = source if source.picture is picture else self._runtime.prepare(picture)
        return motion_space(decoded, self._directions)

    async def _code(self, picture: Picture, number: int | None) -> tuple[Picture, int]:
        """Add a source, or a scene snapshot (number None), to every sequence in use. Returns it as decoded from the
        newest sequence, and its bytes there. A small sequence omits a source if all of its links are behind."""
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
            coded = await self._run(lambda: newest.add(picture, number))
            return coded, len(newest.units[newest.next - 1].packet)

    async def _check_face(self, picture: Picture) -> None:
        found = await self._run(lambda: self._detect_face(picture))
        self._checks_without_face = 0 if found else self._checks_without_face + 1
        is_lost = self._checks_without_face >= CHECKS_LOST
        if is_lost != self.face_lost:
            self.face_lost = is_lost
            self._snapshot = None
            self._notify_status()

    def _detect_face(self, picture: Picture) -> bool:
        if self._has_face is None:
            detector = FaceDetector()
            self._has_face = lambda picture: bool(detector.detect(picture))
        return self._has_face(picture)

    async def _take_snapshot(self, picture: Picture) -> None:
        if any(link.backlog() for link in self._links):
            return
        if self._snapshot is not None and _difference(picture, self._snapshot) < SNAPSHOT_CHANGE:
            return
        self._snapshot = picture
        self.preview, _ = await self._code(picture, None)

    def _notify_status(self) -> None:
        for link in list(self._links):
            link.status_changed()


def _is_behind(link: Subscriber) -> bool:
    return link.backlog() > MAX_BACKLOG


async def _logged(job: Callable[[], Awaitable[None]]) -> None:
    """Log exceptions: a picture that cannot be handled must not end the call."""
    try:
        await job()
    except Exception:
        log.exception("A camera frame could not be handled.")


def _difference(a: Picture, b: Picture) -> float:
    return float(np.abs(a[::4, ::4].astype(np.int16) - b[::4, ::4]).mean())
