"""Progress of a whole encode, from that of its passes and the time that they take."""

import time
from collections.abc import Callable, Mapping

from iwcodec.codec.file.options import EncodeOptions, Progress

COSTS: Mapping[str, tuple[float, float]] = {
    "looking for the speaker": (0.1, 0.0015),
    "finding keypoints": (0.1, 0.006),
    "choosing sources": (1.5, 0.01),
    "coding sources": (0.3, 0.003),
    "fitting the motion": (0.1, 0.008),
    "comparing": (0.0, 0.0),
    "choosing eyes and mouths": (0.6, 0.0065),
    "verifying": (0.0, 0.02),
}
"""Passes in their order: seconds that each takes, and seconds for each frame, on two cores."""
EFFORT_FACTORS: Mapping[str, tuple[float, ...]] = {
    "finding keypoints": (0.6, 1, 1, 1),
    "choosing sources": (0.4, 0.9, 1, 1),
    "coding sources": (0.4, 0.3, 1, 2.7),
    "fitting the motion": (0.4, 0.7, 1, 11),
    "choosing eyes and mouths": (0.25, 0.9, 1, 1),
}
"""For each effort, how many times as long a pass takes."""
TRIALS_FACTOR = 8
"""How many times as long sources are chosen if their plans are tried instead of estimated."""
TIMED, KNOWN_S = ("looking for the speaker", "finding keypoints"), 0.2
"""The first passes, by which the speed of the machine is judged, and the seconds of each during which that of the pass
before still counts."""
CODINGS, CODED_AGAIN = 2, ("coding sources", "fitting the motion", "choosing eyes and mouths")
"""How often a clip is coded to reach a quality, as expected, and the passes that this takes."""


def whole_progress(
    progress: Progress, options: EncodeOptions, frames: int, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Return a function that takes the progress of passes and reports that of the whole, which never falls.

    `frames`: of the clip, roughly. `clock`: seconds. The share is that of the time: what has passed, against what is
    expected of the rest. A pass that COSTS does not name costs nothing.
    """
    return _WholeProgress(progress, pass_costs(options, frames), 1 if options.quality_db is None else CODINGS, clock)


def pass_costs(options: EncodeOptions, frames: int) -> dict[str, float]:
    """Return the seconds that each pass should take, in their order."""
    left_out = set()
    if options.tune == "psnr":
        left_out.add("choosing eyes and mouths")
    if not options.verify:
        left_out.add("verifying")
    costs = {name: fixed + each * frames for name, (fixed, each) in COSTS.items() if name not in left_out}
    if options.sources is not None:
        costs["choosing sources"] = 2.0
    elif options.tune == "psnr" and options.kbps is not None and options.effort:
        costs["choosing sources"] *= TRIALS_FACTOR
    for name, factors in EFFORT_FACTORS.items():
        if name in costs:
            costs[name] *= factors[options.effort]
    return costs


class _WholeProgress:
    def __init__(self, progress: Progress, costs: dict[str, float], codings: int, clock: Callable[[], float]) -> None:
        """`codings`: how often CODED_AGAIN is passed, as expected."""
        self._progress, self._costs, self._codings, self._clock = progress, costs, codings, clock
        self._names = list(costs)
        self._began = self._entered = clock()
        self._name, self._reached = self._names[0], 0.0
        self._speed = self._speed_before = 1.0
        """Factor of the expected times, now and when the pass began."""

    def __call__(self, name: str, share: float) -> None:
        if name in self._costs:
            now, share = self._clock(), min(1.0, share)
            if name != self._name:
                again = name in CODED_AGAIN and self._names.index(name) < self._names.index(self._name)
                self._codings = max(1, self._codings - again)
                self._name, self._entered, self._speed_before = name, now, self._speed
            passed, left = now - self._began, self._left(share, now - self._entered)
            if passed + left > 0:
                self._reached = max(self._reached, passed / (passed + left))
        self._progress(name, self._reached)

    def _left(self, share: float, taken: float) -> float:
        """Seconds expected from here on, where `share` of the pass took `taken` seconds."""
        cost, later = self._costs[self._name], self._names[self._names.index(self._name) + 1 :]
        if self._name in TIMED:
            self._speed = (taken + KNOWN_S * self._speed_before) / (share * cost + KNOWN_S)
        # The whole pass takes `taken / share` by its own pace; the further it is, the more this counts.
        rest = (1 - share) * ((1 - share) * self._speed * cost + taken)
        again = (self._codings - 1) * sum(self._costs.get(name, 0.0) for name in CODED_AGAIN)
        return rest + self._speed * (sum(self._costs[name] for name in later) + again)
