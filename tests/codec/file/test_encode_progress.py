"""The progress of passes becomes that of the whole encode."""

import math

import pytest

from iwcodec.codec.file.encode_progress import CODED_AGAIN, COSTS, TIMED, pass_costs, whole_progress
from iwcodec.codec.file.options import EncodeOptions

STEPS = 20
"""Reports of a pass."""


def shares(
    options: EncodeOptions, frames: int, times: dict[str, float], order: tuple[str, ...] = tuple(COSTS)
) -> list[tuple[float, float]]:
    """(seconds, share) of an encode whose passes take these times, and report their share in even steps."""
    found, now = list[tuple[float, float]](), 0.0
    update = whole_progress(lambda name, share: found.append((now, share)), options, frames, lambda: now)
    for name in order:
        for step in range(STEPS + 1):
            update(name, step / STEPS)
            now += times.get(name, 0.0) / STEPS if step < STEPS else 0.0
    return found


def largest_error(found: list[tuple[float, float]]) -> float:
    """Of the whole time as it is foretold from a fifth of it on."""
    end = found[-1][0]
    return max(abs(now / share / end - 1) for now, share in found if now >= 0.2 * end)


@pytest.mark.parametrize(
    "options",
    [EncodeOptions(), EncodeOptions(sources=3), EncodeOptions(verify=True, tune="psnr"), EncodeOptions(effort=0)],
)
@pytest.mark.parametrize(("frames", "speed"), [(30, 1.0), (200, 0.7), (200, 3.0), (100_000, 0.5), (100_000, 3.0)])
def test_the_whole_time_is_foretold_on_any_machine(options: EncodeOptions, frames: int, speed: float) -> None:
    times = {name: speed * cost for name, cost in pass_costs(options, frames).items()}
    found = shares(options, frames, times)
    assert [share for _, share in found] == sorted(share for _, share in found)
    assert found[-1][1] == pytest.approx(1.0)
    assert largest_error(found) < 1 / 3


def test_one_frame_ends_at_the_whole() -> None:
    assert shares(EncodeOptions(), 1, pass_costs(EncodeOptions(), 1))[-1][1] == pytest.approx(1.0)


def test_a_slow_machine_is_not_taken_to_be_nearly_done() -> None:
    times = {name: 10 * cost for name, cost in pass_costs(EncodeOptions(), 200).items()}
    found = shares(EncodeOptions(), 200, times)
    end = found[-1][0]
    assert all(share < 2 * now / end for now, share in found if now > 0.05 * end)


@pytest.mark.parametrize("slow", [name for name, cost in COSTS.items() if name not in TIMED and sum(cost)])
def test_a_pass_that_takes_twice_its_time_hardly_changes_what_is_foretold(slow: str) -> None:
    options = EncodeOptions(verify=True)
    times = pass_costs(options, 200)
    times[slow] *= 2
    assert largest_error(shares(options, 200, times)) < 0.25


@pytest.mark.parametrize("codings", [1, 2, 3])
def test_the_share_never_falls_where_a_clip_is_coded_again(codings: int) -> None:
    options = EncodeOptions(quality_db=33.0)
    order = (*list(COSTS)[:3], *(CODED_AGAIN * codings))
    found = [share for _, share in shares(options, 200, pass_costs(options, 200), order)]
    assert found == sorted(found)
    assert all(math.isfinite(share) and 0 <= share <= 1 for share in found)
    assert found[-1] > 0.6


def test_an_unknown_pass_keeps_the_share() -> None:
    found = shares(EncodeOptions(), 200, {TIMED[1]: 1.0, "thinking": 9.0}, (TIMED[1], "thinking"))
    assert found[STEPS][1] == found[-1][1] < 1


def test_long_clips_spend_their_time_on_motion() -> None:
    costs = pass_costs(EncodeOptions(), 100_000)
    assert costs["fitting the motion"] == max(costs["fitting the motion"], costs["finding keypoints"])


def test_with_more_effort_the_motion_takes_a_larger_share() -> None:
    parts = []
    for effort in (1, 2, 3):
        costs = pass_costs(EncodeOptions(effort=effort), 200)
        parts.append(costs["fitting the motion"] / sum(costs.values()))
    assert parts == sorted(parts)
    assert parts[0] < 0.3 < 0.5 < parts[2]
