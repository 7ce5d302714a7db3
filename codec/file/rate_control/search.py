"""Rate control: search for the source plan that reconstructs a clip best within a budget.

With few sources, the network reconstructs the frames between them; at higher rates more and more frames are sources,
which are shown unmodified, until the stream is an AV1 stream. A trial (trials.py) tells what a plan is worth.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from iwcodec.codec.file.motion_pass import USUAL_SCALE
from iwcodec.codec.file.options import Progress
from iwcodec.codec.file.rate_control.quick_trials import QuickTrials
from iwcodec.codec.file.rate_control.source_plan import (
    BUDGET_TOLERANCE,
    CRF,
    PRESETS,
    CodedSources,
    Pictures,
    Presets,
    encode_within_budget,
)
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.file.rate_control.trials import SCALES, Choice, PlanTrials, Trial, climb
from iwcodec.models.runtime.types import Runtime

START = 2
"""Index in NUMBERS of the plan tried first."""
TIE_DB = 0.005
"""Gain in dB that the next larger plan must bring, since few frames are evaluated."""
MAX_CANDIDATES, CANDIDATE_DB = 3, 0.5
"""Maximum number of plans that are coded completely, and how far below the best their predicted quality may be in
dB."""
MOTION_TOLERANCE = 0.1
"""Share of the motion's bytes that sources may take beyond what is left for them, or leave to it."""
GOOD_CRF = 40
"""Interleaved plans are tried if the best upfront plan has sources of a lower crf than this."""
USUAL_KBPS = 4.0
"""Bitrate at which USUAL_SCALE is the first motion scale tried; it is finer at higher rates."""
PRICING_SHARE = 0.4
"""Share of the time of choosing by estimates that has passed when the motion is priced (QuickTrials)."""
USUAL_TRIALS = 12
"""Plans tried in a search, roughly; for the progress report."""
MIN_KBPS, MAX_KBPS = 1.5, 120.0
"""Bitrates tried to reach a quality."""
MAX_RATES, EXCESS_DB = 6, 0.15
"""Maximum number of rates tried to reach a quality, and by how much in dB it may be exceeded."""
DOUBLING_DB, MIN_DOUBLING_DB = 2.5, 1.0
"""Gain in dB expected of twice the rate, before two rates have been tried, and at least: where the plan changes
between two rates, both may have the same quality."""


def choose(
    survey: Survey,
    pictures: Pictures,
    runtime: Runtime,
    budget: float,
    kbps: float,
    message_frames: int,
    progress: Progress,
    presets: Presets = PRESETS,
    quick: QuickTrials | None = None,
) -> list[Choice]:
    """Candidates for the best reconstruction within `budget` bytes for sources and motion, which are `kbps`.

    The best comes first; the others are close enough to be better in truth. If the budget is too small for any plan,
    the cheapest is returned. Sources are coded with what the motion is expected to leave. `quick`: estimates of this
    clip's plans, from which one is chosen; None: plans are tried.
    """
    if quick is not None:
        choices = [quick_search(quick, budget, kbps, progress).choice]
    else:
        trials = PlanTrials(survey, pictures, runtime, message_frames, presets)
        choices = [trials.with_best_active(trial) for trial in search(trials, budget, kbps, progress)]
    progress("coding sources", 0.0)
    return [replace(choice, coded=_coded(choice, pictures, runtime.info.size, budget, presets)) for choice in choices]


def _coded(choice: Choice, pictures: Pictures, size: int, budget: float, presets: Presets) -> CodedSources:
    """The sources of a choice, coded with what the motion is expected to leave of a budget."""
    left = max(1.0, budget - choice.motion_bytes)
    tolerance = min(BUDGET_TOLERANCE, MOTION_TOLERANCE * choice.motion_bytes / left)
    return encode_within_budget(choice.coded.plan, pictures, size, left, presets, tolerance)


def rate_for_quality(
    quality_db: float,
    trials: QuickTrials,
    budget: Callable[[float], float],
    progress: Progress,
    max_kbps: float = MAX_KBPS,
) -> float:
    """The lowest kbps at which the clip is estimated to have this mean quality with upfront sources, at most
    `max_kbps`. `budget`: kbps -> bytes for sources and motion."""
    report = _estimating(progress)
    for _ in range(MAX_RATES):
        rate = lowest_rate(quality_db, lambda kbps: trials.predicted(budget(kbps), first_scale(kbps), report), max_kbps)
        if not trials.code_promising(budget(rate), first_scale(rate)):
            break
    return rate


def lowest_rate(
    quality_db: float,
    predicted: Callable[[float], float],
    max_kbps: float = MAX_KBPS,
    start: float = USUAL_KBPS,
    attempts: int = MAX_RATES,
) -> float:
    """The lowest of at most `attempts` rates tried, at most `max_kbps`, at which `predicted` (kbps -> dB) reaches a
    quality; the highest tried if none does. `start`: kbps tried first."""
    tried: dict[float, float] = {}
    kbps, doubling_db = min(start, max_kbps), DOUBLING_DB
    for _ in range(attempts):
        nearest, tried[kbps] = max(tried, key=lambda rate: -abs(rate - kbps), default=None), predicted(kbps)
        if nearest is not None:
            doubling_db = max(MIN_DOUBLING_DB, (tried[kbps] - tried[nearest]) / math.log2(kbps / nearest))
        missing_db = quality_db - tried[kbps]
        low = max((rate * 1.05 for rate in tried if tried[rate] < quality_db), default=MIN_KBPS)
        high = min((rate / 1.05 for rate in tried if tried[rate] >= quality_db), default=max_kbps)
        doublings = min(max((missing_db + EXCESS_DB / 2) / doubling_db, -2.0), 2.0)
        kbps = min(max(kbps * 2**doublings, low), high)
        if -EXCESS_DB <= missing_db <= 0 or low > high or kbps in tried:
            break
    return min((rate for rate in tried if tried[rate] >= quality_db), default=max(tried))


def quick_search(trials: QuickTrials, budget: float, kbps: float, progress: Progress) -> Trial:
    """The best trial found within `budget` bytes, which are `kbps`: of upfront plans by estimates, of interleaved ones,
    if upfront sources are good enough already, by trials."""
    found = trials.best_upfront(budget, first_scale(kbps), _estimating(progress))
    if found.choice.coded.plan.crf > GOOD_CRF:
        return found
    first, last = sum(plan.upfront for plan in trials.plans), trials.last_affordable(trials.worst_crf, budget)
    if first > last:
        return found
    tried: dict[int, Trial] = {}

    def value(plan: int) -> float:
        if plan not in tried:
            best = max([found, *tried.values()], key=lambda trial: trial.quality)
            tried[plan] = trials.best(plan, SCALES.index(found.choice.scale), budget, None, best)
        return tried[plan].quality

    climb(lambda n: value(first + n), last + 1 - first, 0)
    return max([found, *tried.values()], key=lambda trial: trial.quality)


def _estimating(progress: Progress) -> Callable[[float], None]:
    """Reports the share of the plans that are estimated."""
    return lambda share: progress("choosing sources", PRICING_SHARE + (1 - PRICING_SHARE) * share)


def search(trials: PlanTrials, budget: float, kbps: float, progress: Progress) -> list[Trial]:
    """The best trials found within `budget` bytes, which are `kbps`; at most MAX_CANDIDATES, the best first."""
    start = first_scale(kbps)
    last, last_usual = trials.last_affordable(trials.worst_crf, budget), trials.last_affordable(CRF, budget)
    tried: dict[int, Trial] = {}

    def value(plan: int) -> float:
        if plan not in tried:
            progress("choosing sources", min(1.0, len(tried) / USUAL_TRIALS))
            neighbour = tried.get(min(tried, key=lambda other: abs(other - plan), default=-1))
            scale = start if neighbour is None else SCALES.index(neighbour.choice.scale)
            best = max(tried.values(), key=lambda trial: trial.quality, default=None)
            tried[plan] = trials.best(plan, scale, budget, neighbour, best)
        return tried[plan].quality - plan * TIE_DB

    coarse = [plan for plan in trials.coarse if plan <= last]
    # Quality has two local maxima: a few good sources, and many cheaper ones. Search from both sides of the dip.
    usual = sum(plan <= last_usual for plan in coarse) - 1
    starts = [min(START, len(coarse) - 1)] + [usual] * (usual > START + 1)
    tops = (coarse[climb(lambda n: value(coarse[n]), len(coarse), begin, reach=2)] for begin in starts)
    top = climb(value, last + 1, max(tops, key=value))
    close = [plan for plan in tried if tried[plan].quality >= tried[top].quality - CANDIDATE_DB and plan != top]
    return [tried[plan] for plan in (top, *sorted(close, key=value, reverse=True)[: MAX_CANDIDATES - 1])]


def first_scale(kbps: float) -> int:
    """Index in SCALES of the motion scale to try first at a bitrate."""
    scale = USUAL_SCALE - 8 * math.log2(max(1.0, kbps / USUAL_KBPS))
    return min(range(len(SCALES)), key=lambda i: abs(SCALES[i] - scale))
