"""The progress of passes becomes that of the whole encode."""

import pytest

from iwcodec.codec.file.encode_progress import COSTS, whole_progress
from iwcodec.codec.file.options import EncodeOptions


def shares(options: EncodeOptions, frames: int, reports: list[tuple[str, float]]) -> list[float]:
    found: list[float] = []
    update = whole_progress(lambda name, share: found.append(share), options, frames)
    for name, share in reports:
        update(name, share)
    return found


@pytest.mark.parametrize(
    "options", [EncodeOptions(), EncodeOptions(sources=3), EncodeOptions(verify=True, tune="psnr")]
)
@pytest.mark.parametrize("frames", [1, 200, 100_000])
def test_the_share_grows_to_the_whole(options: EncodeOptions, frames: int) -> None:
    found = shares(options, frames, [(name, share) for name in COSTS for share in (0.0, 0.5, 1.0)])
    assert found == sorted(found)
    assert 0 <= found[0] < found[-1]
    assert found[-1] == pytest.approx(1.0)


def test_the_share_never_falls() -> None:
    found = shares(
        EncodeOptions(), 200, [("choosing sources", 0.9), ("choosing sources", 0.0), ("finding keypoints", 1)]
    )
    assert len(set(found)) == 1


def test_long_clips_spend_their_time_on_motion() -> None:
    before, after = shares(EncodeOptions(), 100_000, [("choosing sources", 1.0), ("fitting the motion", 1.0)])
    assert before < 0.5 < after


def test_an_unknown_pass_keeps_the_share() -> None:
    assert shares(EncodeOptions(), 200, [("fitting the motion", 0.0), ("thinking", 1.0)])[1] < 1


def test_with_more_effort_the_motion_takes_a_larger_share() -> None:
    before = [shares(EncodeOptions(effort=effort), 200, [("fitting the motion", 0.0)])[0] for effort in (1, 2, 3)]
    assert before[0] > 0.5
    assert before == sorted(before, reverse=True)
    assert before[2] < 0.4
