"""Rate control for files: how many frames become sources, which, and at what AV1 quality.

Few sources leave the frames between to the network; at high rates more and more frames are sources and shown as they
came, until the stream is an AV1 stream. For a bound on the bitrate both ways are tried, at the quality that spends it,
and the one that rebuilds the clip best is taken: by the error of pictures, not of a model of them.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .decoder import Decoder, Motion
from .encoder import MotionEncoder
from .library import ACTIVE
from .media import Picture
from .models.runtime import Runtime
from .motion import Quantiser
from .packets import SourcePacket
from .quality import psnr
from .refinement import KeypointFit
from .selection import Survey, choose_sources, coding_order
from .sources import SourceEncoder

CRF = 57
"""AV1 quality of the sources where no bitrate is asked for."""
BEST_CRF, POOR_CRF, WORST_CRF = 18, 60, 63
CRF_STEP = 0.055
"""One step of crf changes the bytes by about this share (measured on sources of talking heads)."""
NUMBERS = (1, 2, 3, 5, 8, 12, 16, 24, 32)
"""Sources that are sent before everything else."""
STRIDES = (16, 8, 4, 3, 2, 1)
"""Or every so many frames one, each before the motion that uses it."""
DENSE_PRESET = 8
"""SVT-AV1's effort where sources are many: 10 ms each."""
MOTION_KBPS = 2.0
"""Lively motion is quantised more coarsely where it would take more."""
COARSER = (0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8)
USUAL_KBPS = 4.0
"""Where more is asked for, the motion is quantised more finely than usual too."""
MOTION_SHARE = 0.5
"""Of a bitrate that is asked for, the motion may take so much."""
FITTED_MOTION = 0.8
"""Keypoints fitted to the motion, and quantised for it, take about so many times the bytes of those detected."""
WINDOW = 200
"""Frames of the stretch that dense plans are tried on."""
JUDGES = 12
"""Frames rebuilt to compare plans."""
CLOSE = 0.04
"""Share of the budget that may be missed."""
TOO_DEAR = 1.3
"""Times the budget: what a plan may cost at its first try, for `fitted` will still bring it down."""
ATTEMPTS = 5
RECORD_BYTES = 9
"""Container and packet header of a source."""

Pictures = Callable[[], Iterable[Picture]]
"""Starts over the clip's pictures from the first."""


@dataclass(frozen=True)
class Plan:
    """Frames that become sources, in coding order."""

    frames: tuple[int, ...]
    crf: int
    upfront: bool
    """All before the first motion; otherwise each just before the motion that uses it, in order of time."""


@dataclass(frozen=True)
class Coded:
    plan: Plan
    packets: tuple[SourcePacket, ...]

    @property
    def size(self) -> int:
        return sum(len(packet.to_bytes()) + RECORD_BYTES for packet in self.packets)


def code(plan: Plan, found: Iterable[tuple[int, Picture]], size: int) -> Coded:
    """Encode the sources of a plan: frames and their pictures in the plan's order (`wanted` finds them)."""
    encoder = SourceEncoder(size, plan.crf) if plan.upfront else SourceEncoder(size, plan.crf, DENSE_PRESET)
    packets = tuple(SourcePacket(slot, encoder.add(picture), frame) for slot, (frame, picture) in enumerate(found))
    return Coded(plan, packets)


def wanted(frames: Sequence[int], pictures: Pictures, hold: bool) -> Iterator[tuple[int, Picture]]:
    """The pictures of these frames, in that order; without `hold` the frames ascend and none is kept in memory."""
    asked = set(frames)
    found = ((number, picture) for number, picture in enumerate(pictures()) if number in asked)
    if not hold:
        yield from found
        return
    held: dict[int, Picture] = {}
    for number, picture in found:
        held[number] = picture
        if len(held) == len(asked):
            break
    yield from ((number, held[number]) for number in frames if number in held)


def sparse_plan(survey: Survey, number: int, crf: int = CRF, least_gain_db: float = 0.0) -> Plan:
    return Plan(tuple(coding_order(survey, choose_sources(survey, number, least_gain_db))), crf, True)


def dense_plan(count: int, stride: int, crf: int = CRF) -> Plan:
    return Plan(tuple(range(0, count, stride)), crf, False)


def motion_bytes(keypoints: NDArray[np.float32], message_frames: int, quantiser: Quantiser) -> int:
    """What the motion (n, K, 3) of a whole clip takes, coded as files do."""
    encoder, total = MotionEncoder(quantiser), 0
    for first in range(0, len(keypoints), message_frames):
        rows = keypoints[first : first + message_frames]
        for row in rows:
            encoder.push(row)
        total += len(encoder.pack(first, len(rows)).to_bytes()) + RECORD_BYTES
    return total


def coarsened(times: float) -> Quantiser:
    return Quantiser(Quantiser.step_xy * times, Quantiser.step_strength * times)


def steps_for(kbps: float | None) -> tuple[float, ...]:
    """Times the usual steps, the finest that are worth their bits first."""
    finest = 1.0 if kbps is None else min(1.0, (USUAL_KBPS / kbps) ** 0.5)
    return tuple(coarser for coarser in COARSER if coarser >= 0.9 * finest)


def affordable_motion(keypoints: NDArray[np.float32], message_frames: int, fps: float) -> tuple[Quantiser, int]:
    """The finest steps from the usual ones on at which the motion of a clip stays under MOTION_KBPS, or the coarsest
    there are; and what it takes in bytes."""
    most = MOTION_KBPS * 125 * len(keypoints) / fps
    for coarser in steps_for(None):
        quantiser = coarsened(coarser)
        spent = motion_bytes(keypoints, message_frames, quantiser)
        if spent <= most:
            break
    return quantiser, spent


@dataclass(frozen=True)
class Budget:
    """Bytes that sources and motion together may take."""

    total: float
    motion: float = 0.0
    """What the motion should take where no frame is shown as it came."""

    def sources(self, shown: float) -> float:
        """What is left for the sources where this share of the frames is shown as it came, and needs no motion."""
        return max(1.0, self.total - self.motion * (1 - shown))


def plan_for(
    survey: Survey, pictures: Pictures, runtime: Runtime, budget: Budget, tell: Callable[[str, float], None]
) -> Coded:
    """The sources that rebuild the clip best within the budget, or the cheapest there are where it is too small.

    An option that turns out dearer than its trial said makes room for the next best."""
    trials = Trials(survey, pictures, runtime, budget, tell)
    for start in trials.starts():
        climb(trials.quality, len(trials.options), start)
    least: Coded | None = None
    for index in trials.best_first():
        plan = trials.plans[index]
        coded = fitted(plan, pictures, runtime.info.size, trials.left(plan))
        if coded.size <= trials.left(plan) * (1 + CLOSE):
            return coded
        least = coded if least is None else min(least, coded, key=lambda found: found.size)
    if least is None or len(least.plan.frames) > 1:
        least = fitted(trials.options[0], pictures, runtime.info.size, trials.left(trials.options[0]))
    return least


class Trials:
    """Plans tried on a stretch of the clip. What was coded once is kept."""

    def __init__(
        self,
        survey: Survey,
        pictures: Pictures,
        runtime: Runtime,
        budget: Budget,
        tell: Callable[[str, float], None],
    ) -> None:
        self._survey, self._runtime = survey, runtime
        self._budget, self._tell = budget, tell
        count = len(survey.keypoints)
        self._count = count
        self._first = max(0, (count - WINDOW) // 2)
        end = min(count, self._first + WINDOW)
        self._stretch = [picture for _, picture in wanted(range(self._first, end), pictures, hold=False)]
        most = min(NUMBERS[-1], max(1, count // 2))
        self._sources = dict(wanted(choose_sources(survey, most), pictures, hold=True))
        # From the cheapest to the dearest at equal quality. The choice is greedy: fewer sources are some of the more.
        self.options = [sparse_plan(survey, number) for number in NUMBERS if number == 1 or number <= count // 2]
        self.options += [dense_plan(count, stride) for stride in STRIDES if count // stride > NUMBERS[-1]]
        self.plans: dict[int, Plan] = {}
        """The options tried, at the quality that spends the budget."""
        self._coded: dict[Plan, Coded] = {}
        self._scores: dict[int, float] = {}

    def starts(self) -> set[int]:
        """Where to start climbing: the richest option that the budget buys at the usual quality, and at a poor one."""
        return {self._richest(1.0), self._richest(math.exp(CRF_STEP * (POOR_CRF - CRF)))}

    def left(self, plan: Plan) -> float:
        """Bytes for the sources of a plan."""
        return self._budget.sources(len(plan.frames) / self._count)

    def _richest(self, share: float) -> int:
        """The last option that costs no more than this share of what is left for it."""
        low, high = 0, len(self.options) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(self.options[middle]) <= share * self.left(self.options[middle]):
                low = middle
            else:
                high = middle - 1
        return low

    def quality(self, index: int) -> float:
        """Mean PSNR of an option when it spends the budget; -inf where it cannot be had for it."""
        if index not in self._scores:
            plan = self.options[index]
            plan = replace(plan, crf=crf_for(plan, self._cost(plan), self.left(plan)))
            self.plans[index] = plan
            affordable = self._cost(plan) <= self.left(plan) * TOO_DEAR
            self._scores[index] = self._rebuilt(self._code(plan)) if affordable else -math.inf
            self._tell("choosing sources", min(1.0, len(self._scores) / 6))
        return self._scores[index]

    def best_first(self) -> list[int]:
        """The options that were found affordable, by what they rebuild."""
        tried = [index for index, score in self._scores.items() if score > -math.inf]
        return sorted(tried, key=lambda index: -self._scores[index])

    def _cost(self, plan: Plan) -> float:
        """Bytes of the sources over the whole clip."""
        return self._code(plan).size * (1.0 if plan.upfront else self._count / len(self._stretch))

    def _code(self, plan: Plan) -> Coded:
        """Dense plans: only what lies in the stretch, its frames counted from the stretch's start."""
        if plan not in self._coded:
            if plan.upfront:
                found = ((frame, self._sources[frame]) for frame in plan.frames)
                self._coded[plan] = code(plan, found, self._runtime.info.size)
            else:
                local = tuple(f - self._first for f in plan.frames if 0 <= f - self._first < len(self._stretch))
                found = ((frame, self._stretch[frame]) for frame in local)
                self._coded[plan] = code(replace(plan, frames=local), found, self._runtime.info.size)
        return self._coded[plan]

    def _rebuilt(self, coded: Coded) -> float:
        """Mean PSNR of some frames of the stretch."""
        shift = self._first if coded.plan.upfront else 0
        judges = {n + shift: self._stretch[n] for n in drawn_frames(len(self._stretch))}
        local = replace(self._survey, keypoints=self._survey.keypoints[self._first - shift :])
        return judged(coded, local, judges, Decoder(self._runtime))


def best_active(coded: Coded, survey: Survey, judges: dict[int, Picture], runtime: Runtime) -> int:
    """How many sources should enter attention for a frame: fewer are sharper where each is near enough by itself.
    `judges` are some frames of the clip by number."""
    most = min(ACTIVE, len(coded.packets))
    scores = {active: judged(coded, survey, judges, Decoder(runtime, active=active)) for active in range(1, most + 1)}
    return max(scores, key=lambda active: scores[active])


def judged(coded: Coded, survey: Survey, judges: dict[int, Picture], decoder: Decoder) -> float:
    """Mean PSNR of frames of the clip as a decoder rebuilds them."""
    fit, sent, scores = KeypointFit(), 0, []
    for number in sorted(judges):
        due = before(coded.packets, coded.plan, number + 1)
        for packet in coded.packets[sent:due]:
            decoder.add_source(packet)
        sent = due
        fit.forget()  # the judges are far apart
        detected = survey.keypoints[number]
        decoder.prepare()
        found = fit.frame(judges[number], detected, decoder.library.candidates(detected))
        leader = decoder.library.slot(found.source)
        picture = decoder.picture(Motion(number, quantised(found.keypoints), leader))
        assert picture is not None
        scores.append(psnr(picture, judges[number]))
    return float(np.mean(scores))


def drawn_frames(count: int) -> list[int]:
    """JUDGES frames of a clip, or all. Evenly spaced ones would meet every source or none."""
    return sorted(int(n) for n in np.random.default_rng(1).choice(count, min(JUDGES, count), replace=False))


def climb(value: Callable[[int], float], count: int, start: int) -> int:
    """Index of the (local) maximum of `value`, looked for from `start` step by step."""
    best = start
    for step in (1, -1):
        while 0 <= best + step < count and value(best + step) > value(best):
            best += step
        if best != start:
            break
    return best


def crf_for(plan: Plan, spent: float, budget: float) -> int:
    """The quality at which the plan, that took `spent` bytes at its own, should take `budget`."""
    crf = plan.crf + math.log(spent / max(budget, 1.0)) / CRF_STEP
    return round(min(max(crf, BEST_CRF), WORST_CRF))


def quantised(keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keypoints as the receiver has them, but for the dead zone."""
    quantiser = Quantiser()
    return quantiser.dequantise(quantiser.quantise(keypoints))


def fitted(plan: Plan, pictures: Pictures, size: int, budget: float) -> Coded:
    """The plan coded at the quality that comes nearest to the budget from below, or within CLOSE of it."""
    tried: dict[int, Coded] = {}
    crf = plan.crf
    for _ in range(ATTEMPTS):
        if crf in tried:
            break
        tried[crf] = coded = code(replace(plan, crf=crf), wanted(plan.frames, pictures, plan.upfront), size)
        if abs(coded.size / budget - 1) <= CLOSE:
            return coded
        crf = crf_for(coded.plan, coded.size, budget)
    affordable = [coded for coded in tried.values() if coded.size <= budget * (1 + CLOSE)]
    if affordable:
        return max(affordable, key=lambda coded: coded.size)
    return min(tried.values(), key=lambda coded: coded.size)


def before(packets: Sequence[SourcePacket], plan: Plan, end: int) -> int:
    """How many of the packets have to precede the motion of frames below `end`: those, and the next source after."""
    if plan.upfront:
        return len(packets)
    due = bisect_left(packets, end, key=lambda packet: packet.frame or 0)
    return min(len(packets), due + 1)
