"""Progress of a whole encode, from that of its passes."""

from collections.abc import Mapping

from iwcodec.codec.file.options import EncodeOptions, Progress

COSTS: Mapping[str, tuple[float, float]] = {
    "looking for the speaker": (0.4, 0.001),
    "finding keypoints": (0.2, 0.006),
    "choosing sources": (8.0, 0.001),
    "coding sources": (3.0, 0.001),
    "fitting the motion": (0.3, 0.010),
    "comparing": (0.0, 0.0),
    "suppressing small shifts": (0.7, 0.001),
    "choosing eyes and mouths": (0.5, 0.006),
    "verifying": (0.0, 0.03),
}
"""Passes in their order: seconds that each takes, and seconds for each frame (two cores; only the ratios count)."""
EFFORT_FACTORS: Mapping[str, tuple[float, ...]] = {
    "coding sources": (0.4, 1, 1, 2.7),
    "fitting the motion": (0.9, 1, 7, 25),
}
"""For each effort, how many times as long a pass takes."""


def whole_progress(progress: Progress, options: EncodeOptions, frames: int) -> Progress:
    """Return a function that takes the progress of passes and reports that of the whole, which never falls.

    `frames`: of the clip, roughly. A pass that COSTS does not name costs nothing.
    """
    left_out = set()
    if options.tune == "psnr":
        left_out.add("choosing eyes and mouths")
    if not options.verify:
        left_out.add("verifying")
    costs = {name: fixed + each * frames for name, (fixed, each) in COSTS.items() if name not in left_out}
    if options.sources is not None:
        costs["choosing sources"] = 2.0
    for name, factors in EFFORT_FACTORS.items():
        costs[name] *= factors[options.effort]
    total, reached = sum(costs.values()), 0.0

    def report(name: str, share: float) -> None:
        nonlocal reached
        names = list(costs)
        if name in costs:
            before = sum(costs[earlier] for earlier in names[: names.index(name)])
            reached = max(reached, (before + min(1.0, share) * costs[name]) / total)
        progress(name, reached)

    return report
