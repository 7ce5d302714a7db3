"""Progress of a whole encode, from that of its passes."""

from collections.abc import Mapping

from iwcodec.codec.file.options import EncodeOptions, Progress

COSTS: Mapping[str, tuple[float, float]] = {
    "looking for the speaker": (0.1, 0.0015),
    "finding keypoints": (0.1, 0.006),
    "choosing sources": (2.7, 0.001),
    "coding sources": (1.1, 0.0),
    "fitting the motion": (0.2, 0.0075),
    "comparing": (0.0, 0.0),
    "choosing eyes and mouths": (0.6, 0.002),
    "verifying": (0.0, 0.02),
}
"""Passes in their order: seconds that each takes, and seconds for each frame (two cores; only the ratios count)."""
EFFORT_FACTORS: Mapping[str, tuple[float, ...]] = {
    "finding keypoints": (0.6, 1, 1, 1),
    "choosing sources": (0.4, 0.9, 1, 1),
    "coding sources": (0.4, 0.3, 1, 2.7),
    "fitting the motion": (0.4, 0.7, 1, 11),
    "choosing eyes and mouths": (0.4, 0.9, 1, 1),
}
"""For each effort, how many times as long a pass takes."""
TRIALS_FACTOR = 8
"""How many times as long sources are chosen if their plans are tried instead of estimated."""


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
    elif options.tune == "psnr" and options.kbps is not None and options.effort:
        costs["choosing sources"] *= TRIALS_FACTOR
    for name, factors in EFFORT_FACTORS.items():
        if name in costs:
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
