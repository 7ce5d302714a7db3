"""Rate control for files: how many frames become sources, which, at what AV1 quality, and how finely motion is coded.

Few sources leave the frames between to the network; at high rates more and more frames are sources and shown as they
came, until the stream is an AV1 stream. What sources and motion are worth beside each other differs from clip to clip.
So everything is tried on a stretch of the clip, with the bytes that it takes, and what rebuilds it best is taken: by
the error of pictures, not of a model of them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.clip import Progress
from iwcodec.codec.file.motion_pass import (
    FINEST_SCALE,
    USUAL_SCALE,
    fitted_motion,
    from_sources,
    motion_size,
    packed_motion,
    received,
    together,
)
from iwcodec.codec.file.source_plan import (
    BEST_CRF,
    CLOSE,
    CRF,
    PRESETS,
    TOGETHER_BYTES,
    WORST_CRF,
    Coded,
    Pictures,
    Plan,
    Presets,
    code,
    dense_plan,
    finer_crf,
    fitted,
    sparse_plan,
    wanted,
    worst_crf,
)
from iwcodec.codec.file.source_selection import Survey, choose_sources
from iwcodec.codec.fit.keypoint_fit import quick_fit
from iwcodec.codec.media.quality import judging_order, psnr
from iwcodec.codec.motion.types import Fit
from iwcodec.codec.sources.library import ACTIVE, CAPACITY
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

NUMBERS, BETWEEN = (1, 2, 4, 8, 16, 32), (3, 6, 12, 23)
"""Sources that are sent before everything else; the latter are tried beside the best of the others."""
STRIDES = (16, 8, 4, 3, 2, 1)
"""Or every so many frames one, each before the motion that uses it."""
QUICK_PRESETS, QUICK_MORE, QUICK_DENSE_MORE = (4, 8), 1.09, 1.2
"""SVT-AV1's effort where plans are only compared, and how many times the bytes its sources take for the same quality:
where they are few, and where they are many."""
PIECES = 4
"""Of the clip, that plans are tried on."""
MIN_PIECE = 3 * STRIDES[0]
"""Frames: whatever the frame rate, a piece shows what the sources of a stream cost one after the other."""
JUDGES = 48
"""Frames rebuilt to compare plans."""
GLANCES = {12: 0.8, 24: 0.5}
"""A plan that is worse by so much over the first so many of them is not judged by the rest."""
LOOKS_EVERY = 4
"""Frames, to find out whether a source is nearer as it lies: that asks for a rebuilt picture."""
TIE_DB = 0.005
"""What more sources have to bring: a few frames judge, and the next fewer may be better still."""
HOPELESS_DB = 0.3
"""Plans that are worse by so much, at the steps of motion that suit their neighbours, are tried at no others: those
bring 0.1 dB."""
FINALISTS, DOUBT_DB = 3, 0.5
"""The most plans that are coded to the end, and how much less than of the best may be expected of them."""
NO_WORSE_DB = 0.02
"""Of fewer sources in attention: they are quicker."""
USUAL_KBPS = 4.0
"""Motion is tried first at the usual scale here, and more finely where more may be spent."""
OVERSPENT = 1000.0
"""Counted against what cannot be had, for each time of the budget that it takes."""
USUAL_MOTION, MIN_MOTION = 0.35, 0.1
"""Share of a budget that motion takes, until it is known; and at least, where not every frame is a source."""
MIN_KBPS, MAX_KBPS = 1.5, 120.0
"""Tried where a quality is asked for."""
RATES_TRIED, ENOUGH_DB = 6, 0.15
"""The most rates that are tried, and how much too good the quality may be."""
DOUBLED_DB = 2.5
"""What twice the rate brings, until two have been tried."""
START = 2
"""Index in NUMBERS of what is tried first."""
KNOWN = 0.7
"""Share of the budget: what takes no less, and no more than that too much, tells which quality it buys."""
CRF_A_DOUBLING = 5
"""By so much coarser twice as many sources are coded for the same bytes, roughly."""
SCALES = tuple(range(FINEST_SCALE, 111, 8))
"""Of the motion's levels, that are tried."""


@dataclass(frozen=True)
class Choice:
    coded: Coded
    active: int
    """Sources that enter attention for a frame: fewer are sharper where each is near enough by itself."""
    scale: int = USUAL_SCALE
    """Of the motion's levels."""
    moving: float = 0.0
    """Bytes that the motion should take then, where a budget has to be divided."""


@dataclass(frozen=True)
class Trial:
    """A plan at the quality that spends what the motion leaves."""

    quality: float
    """Mean PSNR that is expected of the clip."""
    choice: Choice
    motion: list[MotionPacket]
    """Of the stretch."""
    judged: "Judged"


@dataclass(frozen=True)
class Judged:
    """Frames of a stretch as a plan rebuilds them."""

    shown: float
    """Share of the clip's frames that are sources."""
    shown_db: float
    """PSNR of those, on average."""
    rebuilt_db: Mapping[int, float] = field(default_factory=dict)
    """PSNR of some that are not, by their number, in the order in which all plans are judged."""

    def mean(self, frames: Iterable[int]) -> float:
        """PSNR that these frames let expect of the clip."""
        rebuilt = [self.rebuilt_db[frame] for frame in frames]
        return float(self.shown * self.shown_db + (1 - self.shown) * np.mean(rebuilt)) if rebuilt else self.shown_db

    @property
    def quality(self) -> float:
        return self.mean(self.rebuilt_db)

    def lead(self, best: "Judged") -> float:
        """How many dB better than another this is, by the frames that both have rebuilt; 0 where those are few."""
        both = self.rebuilt_db.keys() & best.rebuilt_db.keys()
        return self.mean(both) - best.mean(both) if 2 * len(both) >= len(self.rebuilt_db) else 0.0

    def is_hopeless(self, best: "Judged | None") -> bool:
        """Whether the frames so far leave no hope to be better than another."""
        return best is not None and self.lead(best) < -GLANCES.get(len(self.rebuilt_db), math.inf)


class Stretch:
    """A few pieces of the clip, of whole motion messages, that plans are tried on. Frames are counted from the first
    piece's first on."""

    def __init__(self, survey: Survey, pictures: Pictures, runtime: Runtime, message_frames: int) -> None:
        self.count = len(survey.keypoints)
        self.frames = spread(self.count, message_frames)
        """Their numbers in the clip, ascending."""
        self.pictures = [picture for _, picture in wanted(self.frames, pictures, hold=False)]
        self.detected = survey.keypoints[self.frames[: len(self.pictures)]]
        self.message_frames = message_frames
        self.runtime = runtime
        self._here = {frame: number for number, frame in enumerate(self.frames)}
        self._judges = judging_order(len(self.pictures))

    @property
    def share(self) -> float:
        """Of the clip."""
        return len(self.pictures) / self.count

    def fits(self, coded: Coded) -> list[Fit]:
        """The motion, as it would be fitted to these sources, in their coordinates."""
        decoder = Decoder(self.runtime, capacity=CAPACITY)
        length = together(coded.plan, self.message_frames)
        found = fitted_motion(
            self.pictures, self.detected, self.here(coded), length, decoder, quick_fit(), looks_every=LOOKS_EVERY
        )
        return list(from_sources(found, decoder))

    def motion(self, plan: Plan, fits: Sequence[Fit], scale: int) -> list[MotionPacket]:
        length = together(plan, self.message_frames)
        return list(packed_motion((fits[first : first + length] for first in range(0, len(fits), length)), scale))

    def best_active(self, coded: Coded, motion: Sequence[MotionPacket]) -> int:
        """How many sources should enter attention for a frame: fewer are quicker, and mostly no worse."""
        quality = self.qualities(coded, motion, range(1, min(ACTIVE, len(coded.packets)) + 1))
        return min(count for count in quality if quality[count] > max(quality.values()) - NO_WORSE_DB)

    def qualities(self, coded: Coded, motion: Sequence[MotionPacket], tried: Sequence[int]) -> dict[int, float]:
        """Mean PSNR expected of the clip, by the number of sources in attention."""
        asked = self._asked(coded, motion, max(tried))
        return {count: self._judged(coded, asked, count).quality for count in tried}

    def judged(self, coded: Coded, motion: Sequence[MotionPacket], best: Judged | None = None) -> Judged:
        """With one source in attention; by few frames where those leave no hope to be better than the best."""
        return self._judged(coded, self._asked(coded, motion, 1), 1, best)

    def _judged(self, coded: Coded, asked: Iterable["_Asked"], count: int, best: Judged | None = None) -> Judged:
        rebuilt_db: dict[int, float] = {}
        found = Judged(len(coded.plan.frames) / self.count, coded.shown_db, rebuilt_db)
        for one in asked:
            if found.is_hopeless(best):
                break
            picture = one.near[0].picture if one.still else self.runtime.reconstruct(one.keypoints, one.near[:count])
            rebuilt_db[one.number] = psnr(picture, self.pictures[one.number])
        return found

    def _asked(self, coded: Coded, motion: Sequence[MotionPacket], most: int) -> list["_Asked"]:
        """Some frames that are not sources, as a decoder has them, in the order of the judges."""
        here = self.here(coded)
        shown = {packet.frame for packet in here.packets}
        judges = [number for number in self._judges if number not in shown][:JUDGES]
        decoder, found = Decoder(self.runtime, capacity=CAPACITY, active=most), {}
        for frame in received(here, motion, decoder):
            if frame.number in judges:
                near = decoder.nearest(frame.keypoints, frame.reference_source)
                found[frame.number] = _Asked(frame.number, frame.keypoints, near, frame.still)
        return [found[number] for number in judges if number in found]

    def here(self, coded: Coded) -> Coded:
        """The same sources, their frames counted as here."""
        packets = [
            SourcePacket(packet.slot, packet.payload, self._here.get(-1 if packet.frame is None else packet.frame))
            for packet in coded.packets
        ]
        return replace(coded, packets=tuple(packets))


@dataclass(frozen=True)
class _Asked:
    """A frame that is to be rebuilt."""

    number: int
    keypoints: Keypoints
    near: Sequence[Source]
    still: bool


def spread(count: int, length: int) -> list[int]:
    """Numbers of the frames of PIECES pieces, spread evenly over so many frames; all where they are no more. A piece is
    as many messages of such a length as hold MIN_PIECE frames."""
    length *= math.ceil(MIN_PIECE / length)
    if count <= PIECES * length:
        return list(range(count))
    starts = [round((piece + 0.5) / PIECES * count - length / 2) for piece in range(PIECES)]
    return [frame for start in starts for frame in range(start, start + length)]


def best_active(coded: Coded, stretch: Stretch) -> int:
    """How many sources should enter attention for a frame, at the usual quantisation of motion."""
    return stretch.best_active(coded, stretch.motion(coded.plan, stretch.fits(coded), USUAL_SCALE))


def choose(
    survey: Survey,
    pictures: Pictures,
    runtime: Runtime,
    budget: float,
    kbps: float,
    message_frames: int,
    tell: Progress,
    presets: Presets = PRESETS,
) -> list[Choice]:
    """What should rebuild the clip best within the budget of bytes for sources and motion, which is so many kbps; the
    cheapest there is where the budget is too small. The best first, and after it what may yet turn out to be better."""
    trials = Trials(survey, pictures, runtime, message_frames)
    choices = [trials.active(trial) for trial in search(trials, budget, kbps, tell)]
    lefts = [max(1.0, budget - choice.moving) for choice in choices]  # motion has what sources leave, and no more
    return [
        replace(choice, coded=fitted(choice.coded.plan, pictures, runtime.info.size, left, presets))
        for choice, left in zip(choices, lefts, strict=True)
    ]


def rate_for(
    quality_db: float,
    survey: Survey,
    pictures: Pictures,
    runtime: Runtime,
    budget: Callable[[float], float],
    message_frames: int,
    tell: Progress,
) -> float:
    """The kbps at which the clip should have that mean PSNR. `budget` makes bytes for sources and motion of kbps."""
    trials = Trials(survey, pictures, runtime, message_frames)
    return least_rate(quality_db, lambda kbps: search(trials, budget(kbps), kbps, tell)[0].quality)


def least_rate(quality_db: float, expected: Callable[[float], float]) -> float:
    """The least kbps, of a few that are tried, at which so much is expected; where it is at none, the highest."""
    tried: dict[float, float] = {}
    kbps, doubled_db = USUAL_KBPS, DOUBLED_DB
    for _ in range(RATES_TRIED):
        last, tried[kbps] = max(tried, key=lambda rate: -abs(rate - kbps), default=None), expected(kbps)
        if last is not None:
            doubled_db = max(0.5, (tried[kbps] - tried[last]) / math.log2(kbps / last))
        more = quality_db - tried[kbps]
        least = max((rate * 1.05 for rate in tried if tried[rate] < quality_db), default=MIN_KBPS)
        most = min((rate / 1.05 for rate in tried if tried[rate] >= quality_db), default=MAX_KBPS)
        doublings = min(max(more / doubled_db, -2.0), 2.0)
        kbps = min(max(kbps * 2**doublings, least), most)
        if -ENOUGH_DB <= more <= 0 or least > most or kbps in tried:
            break
    return min((rate for rate in tried if tried[rate] >= quality_db), default=max(tried))


def search(trials: "Trials", budget: float, kbps: float, tell: Progress) -> list[Trial]:
    """The best that were found within a budget of bytes, which is so many kbps: no more than FINALISTS, and the best
    first."""
    start = nearest_scale(USUAL_SCALE - 8 * math.log2(max(1.0, kbps / USUAL_KBPS)))
    richest, usual = trials.richest(trials.worst_crf, budget), trials.richest(CRF, budget)
    found: dict[int, Trial] = {}

    def value(option: int) -> float:
        if option not in found:
            tell("choosing sources", min(1.0, len(found) / 12))
            near = found.get(min(found, key=lambda other: abs(other - option), default=-1))
            begin = start if near is None else SCALES.index(near.choice.scale)
            best = max(found.values(), key=lambda trial: trial.quality, default=None)
            found[option] = trials.best(option, begin, budget, near, best)
        return found[option].quality - option * TIE_DB

    first = [option for option in trials.first if option <= richest]
    # Between a few good sources and a stream of them lies a valley.
    usually = sum(option <= usual for option in first) - 1
    starts = [min(START, len(first) - 1)] + [usually] * (usually > START + 1)
    tops = (first[climb(lambda n: value(first[n]), len(first), begin, reach=2)] for begin in starts)
    top = climb(value, richest + 1, max(tops, key=value))
    near = [option for option in found if found[option].quality >= found[top].quality - DOUBT_DB and option != top]
    return [found[option] for option in (top, *sorted(near, key=value, reverse=True)[: FINALISTS - 1])]


def nearest_scale(scale: float) -> int:
    """Its index in SCALES."""
    return min(range(len(SCALES)), key=lambda i: abs(SCALES[i] - scale))


class Trials:
    """Plans tried on a stretch of the clip, within budgets of bytes. What was coded once is kept."""

    def __init__(self, survey: Survey, pictures: Pictures, runtime: Runtime, message_frames: int) -> None:
        self._size = runtime.info.size
        self.worst_crf = worst_crf(self._size)
        self._stretch = Stretch(survey, pictures, runtime, message_frames)
        count = len(survey.keypoints)
        most = min(NUMBERS[-1], max(1, count // 2))
        self._sources = dict(wanted(choose_sources(survey, most), pictures, hold=True))
        # From the cheapest to the dearest at equal quality. The choice is greedy: fewer sources are some of the more.
        numbers = [number for number in sorted(NUMBERS + BETWEEN) if number == 1 or number <= count // 2]
        self.options = [sparse_plan(survey, number) for number in numbers]
        self.options += [dense_plan(count, stride) for stride in STRIDES if count // stride > NUMBERS[-1]]
        self.first = [option for option, plan in enumerate(self.options) if len(plan.frames) not in BETWEEN]
        """Those that are tried first."""
        self._coded: dict[Plan, Coded] = {}

    def richest(self, crf: int, budget: float) -> int:
        """The last option whose sources the budget buys at this quality."""
        low, high = 0, len(self.options) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(replace(self.options[middle], crf=crf)) <= budget * (1 - MIN_MOTION):
                low = middle
            else:
                high = middle - 1
        return low

    def best(
        self, option: int, start: int, budget: float, near: Trial | None = None, so_far: Trial | None = None
    ) -> Trial:
        """The best of an option, with motion as coarse as pays; looked for from the start-th of SCALES on, but where
        what the budget buys there is hopeless beside the best so far. `near`: the best of an option that is like it."""
        plan = self.options[option]
        left = budget * (1 - USUAL_MOTION)
        if near is not None:
            left = max(left, budget - near.choice.moving)
            plan = replace(plan, crf=self._likely_crf(plan, near.choice.coded.plan))
        coded = self._code(self._affordable(plan, left))
        fits = self._stretch.fits(coded)
        found: dict[int, Trial] = {}

        def value(step: int) -> float:
            if step not in found:
                best = max([*found.values(), *([so_far] if so_far else [])], key=lambda one: one.quality, default=None)
                found[step] = self._tried(coded, fits, SCALES[step], budget, best)
            return found[step].quality

        first = value(start)
        # Starved sources, at the end of AV1's scale, may gain much by coarser motion.
        hopeless = -math.inf if so_far is None else so_far.quality - HOPELESS_DB
        done = 0 <= first < hopeless and found[start].choice.coded.plan.crf <= WORST_CRF
        moves = len(plan.frames) < self._stretch.count
        return found[climb(value, len(SCALES), start)] if moves and not done else found[start]

    def active(self, trial: Trial) -> Choice:
        """With the number of sources in attention that suits it best."""
        return replace(trial.choice, active=self._stretch.best_active(trial.choice.coded, trial.motion))

    def _tried(self, fitted_to: Coded, fits: Sequence[Fit], scale: int, budget: float, best: Trial | None) -> Trial:
        """Motion is coded in the coordinates of the sources (motion_space.py): those of the same sources, coded at
        another quality, differ little."""
        motion = self._stretch.motion(fitted_to.plan, fits, scale)
        moving = motion_size(motion) / self._stretch.share
        left = max(1.0, budget - moving)
        plan = self._affordable(fitted_to.plan, left)
        coded = self._code(plan)
        choice = Choice(coded, 1, scale, moving)
        if self._cost(plan) > left * (1 + CLOSE):
            nothing = Judged(0.0, -OVERSPENT * (self._cost(plan) + moving) / budget)
            return Trial(nothing.quality, choice, motion, nothing)
        judged = self._stretch.judged(coded, motion, None if best is None else best.judged)
        if best is not None and judged.is_hopeless(best.judged):
            # What few frames say of the clip is worth less than what they say of the difference.
            return Trial(best.quality + judged.lead(best.judged), choice, motion, judged)
        return Trial(judged.quality, choice, motion, judged)

    def _affordable(self, plan: Plan, left: float) -> Plan:
        """The plan at about the quality that spends what is left, and no more where that can be had."""
        costs = {known.crf: self._cost(known) for known in self._coded if known.frames == plan.frames}
        known = any(KNOWN < cost / left < 1 / KNOWN for cost in costs.values())
        crf = round(finer_crf(costs, left, self._size)) if known else plan.crf
        while True:
            costs[crf] = self._cost(replace(plan, crf=crf))
            if abs(costs[crf] / left - 1) <= CLOSE:
                return replace(plan, crf=crf)
            low = max((crf for crf, cost in costs.items() if cost > left), default=BEST_CRF - 1)
            high = min((crf for crf, cost in costs.items() if cost <= left), default=self.worst_crf + 1)
            if high - low <= 1:
                return replace(plan, crf=min(high, self.worst_crf))
            crf = min(max(round(finer_crf(costs, left, self._size)), low + 1), high - 1)

    def _likely_crf(self, plan: Plan, near: Plan) -> float:
        """About what buys as much as another plan takes."""
        likely = near.crf + CRF_A_DOUBLING * math.log2(len(plan.frames) / len(near.frames))
        return round(min(max(likely, BEST_CRF), self.worst_crf))

    def _cost(self, plan: Plan) -> float:
        """Bytes of the sources over the whole clip."""
        coded = self._code(plan)
        if plan.upfront:
            return coded.size / QUICK_MORE
        # Where a piece begins, a source is dearer than if those between were there.
        sizes = [len(packet.payload) + TOGETHER_BYTES for packet in coded.packets]
        frames = [packet.frame or 0 for packet in coded.packets]
        step = frames[1] - frames[0]
        further = [size for a, b, size in zip(frames, frames[1:], sizes[1:], strict=False) if b - a == step]
        return (sizes[0] + (len(plan.frames) - 1) * float(np.mean(further))) / QUICK_DENSE_MORE

    def _code(self, plan: Plan) -> Coded:
        """Dense plans: only what lies in the stretch."""
        if plan not in self._coded:
            if plan.upfront:
                found = ((frame, self._sources[frame]) for frame in plan.frames)
            else:
                asked = set(plan.frames)
                pairs = zip(self._stretch.frames, self._stretch.pictures, strict=False)
                found = ((frame, picture) for frame, picture in pairs if frame in asked)
            self._coded[plan] = code(plan, found, self._size, QUICK_PRESETS)
        return self._coded[plan]


def climb(value: Callable[[int], float], count: int, start: int, reach: int = 1) -> int:
    """Index of the (local) maximum of `value`, looked for from `start` on, past dips narrower than `reach`."""
    best = start
    for direction in (1, -1):
        at = best
        while 0 <= at + direction < count and abs(at + direction - best) <= reach:
            at += direction
            if value(at) > value(best):
                best = at
        if best != start:
            break
    return best
