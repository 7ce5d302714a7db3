import numpy as np
import pytest

from iwcodec.client.video.jitter_buffer import (
    MAX_BRIDGE_S,
    MAX_WAITING,
    SHRINK,
    DueFrame,
    Playout,
    TimedFrame,
    between,
)

INTERVAL = 0.04
CLOCKS = 500.0
"""Our clock is this far ahead of the sender's."""


def frame(number: int, stamp_s: float | None = None) -> TimedFrame:
    at = number * INTERVAL if stamp_s is None else stamp_s
    return TimedFrame(number, at, np.full((2, 3), number, np.float32))


def play(arrivals: list[tuple[float, list[TimedFrame]]], playout: Playout | None = None) -> list[DueFrame]:
    """Deliver messages (arrival on our clock, frames) and pop whatever falls due, every other millisecond."""
    playout = playout or Playout()
    shown = []
    queue = sorted(arrivals, key=lambda arrival: arrival[0])
    for now in np.arange(queue[0][0], queue[-1][0] + 1.0, 0.002):
        while queue and queue[0][0] <= now:
            at, frames = queue.pop(0)
            playout.push(frames, at)
        due = playout.pop(now)
        if due is not None:
            shown.append(due)
    return shown


def messages(count: int, size: int = 3, transit_s: float = 0.05) -> list[tuple[float, list[TimedFrame]]]:
    """`count` messages of `size` frames, each sent when its last frame is taken."""
    groups = [[frame(m * size + n) for n in range(size)] for m in range(count)]
    return [(CLOCKS + group[-1].stamp_s + transit_s, group) for group in groups]


def numbers(shown: list[DueFrame]) -> list[int]:
    return [item.frame.number for item in shown]


def test_steady():
    """Every frame once, evenly, and the delay is the packing and the way, not more."""
    playout = Playout()
    shown = play(messages(50), playout)
    assert numbers(shown) == list(range(150))
    assert not any(item.interpolated for item in shown)
    gaps = np.diff([item.due_s for item in shown[30:]])
    assert gaps == pytest.approx(INTERVAL, abs=0.005)
    assert playout.delay_s - CLOCKS == pytest.approx(2 * INTERVAL + 0.05 + 0.005, abs=0.001)
    assert playout.fastest_s == pytest.approx(CLOCKS + 0.05)


def test_a_frame_is_given_out_as_long_before_it_is_seen_as_its_reconstruction_takes():
    playout = Playout()
    playout.lead_s = 0.06
    playout.push([frame(0)], CLOCKS)
    assert playout.next_s(CLOCKS) == pytest.approx(CLOCKS + 0.005)
    due = playout.pop(CLOCKS + 0.006)
    assert due is not None
    assert due.due_s == pytest.approx(CLOCKS + 0.065)


def test_drifting_clocks():
    """A camera's clock 0.2 % fast over half a minute: 60 ms, and nothing is dropped or doubled."""
    arrivals = [
        (CLOCKS + at, [frame(f.number, f.stamp_s * 1.002) for f in group])
        for at, group in messages(250)
        for at in [at - CLOCKS]
    ]
    assert numbers(play(arrivals)) == list(range(750))


def test_jitter_deepens_and_calm_makes_shallow_again():
    rng = np.random.default_rng(1)
    playout = Playout()
    jittery = [(at + float(rng.uniform(0, 0.15)), group) for at, group in messages(100)]
    shown = play(jittery, playout)
    deep = playout.delay_s
    assert len(shown) > 0.95 * 300
    assert deep - CLOCKS > 2 * INTERVAL + 0.05 + 0.12
    calm = [(at, group) for at, group in messages(300)[104:]]
    play(calm, playout)
    assert playout.delay_s < deep - 0.1
    assert playout.delay_s > deep - SHRINK * 30


def test_a_lost_message_is_interpolated_where_the_next_is_there_in_time():
    arrivals = [(CLOCKS + n * INTERVAL + (0.17 if n % 4 == 1 else 0.05), [frame(n)]) for n in range(200)]
    shown = play([arrival for n, arrival in enumerate(arrivals) if n not in (150, 151)])
    assert [n for n in numbers(shown) if n > 20] == list(range(21, 200))
    bridged = [item.frame for item in shown if item.interpolated and item.frame.number > 20]
    assert [f.number for f in bridged] == [150, 151]
    assert bridged[0].keypoints == pytest.approx(150)
    assert bridged[1].stamp_s == pytest.approx(151 * INTERVAL)


def test_a_lost_message_is_held_where_nothing_comes_behind_it():
    arrivals = [(CLOCKS + n * INTERVAL, [frame(n)]) for n in range(30) if n not in (10, 11)]
    shown = play(arrivals)
    assert [n for n in range(30) if n not in numbers(shown)] == [10, 11]


def test_a_long_hole_is_not_bridged():
    count = int(MAX_BRIDGE_S / INTERVAL) + 5
    arrivals = [(CLOCKS, [frame(0)]), (CLOCKS + 0.001, [frame(count)])]
    assert numbers(play(arrivals)) == [0, count]


def test_late_frames_are_dropped_and_counted():
    playout = Playout()
    for n in (0, 1, 3):
        playout.push([frame(n)], CLOCKS + n * INTERVAL)
        assert playout.pop(CLOCKS + n * INTERVAL + 0.01) is not None
    assert playout.push([frame(2), frame(3), frame(4)], CLOCKS + 0.17) == 1


def test_order_and_duplicates_do_not_matter():
    ordered = messages(40)
    rng = np.random.default_rng(2)
    start, rest = ordered[:10], ordered[10:]
    mixed = [(at + 0.12 * float(rng.random() < 0.3), group) for at, group in rest]
    twice = [(at + 0.06, group) for at, group in rest]
    shown = numbers(play(start + mixed + twice))
    assert shown == sorted(set(shown))
    assert shown[-1] == 119
    assert len(shown) > 114


def test_outage():
    """5 s of nothing, then what had waited on the way, then the present: which is shown within a moment."""
    before = messages(50)
    after = [(at, group) for at, group in messages(250)[92:]]
    stale = [(after[0][0], group) for _, group in messages(60)[50:]]
    playout = Playout()
    shown = play(before + stale + after, playout)
    behind = next(item for item in shown if item.frame.number >= 92 * 3)
    assert behind.due_s - (CLOCKS + behind.frame.stamp_s) < 0.3
    assert playout.delay_s - CLOCKS < 0.3


def test_learning_anew():
    """Frames that had waited for something else are of no account for those that come after it."""
    playout = Playout()
    playout.push([frame(0)], CLOCKS + 2.0)
    playout.relearn()
    assert playout.fastest_s is None
    assert playout.pop(CLOCKS + 2.0) is not None  # what is there is shown at once
    playout.push([frame(60)], CLOCKS + 2.45)
    assert playout.delay_s == pytest.approx(CLOCKS + 0.055)


def test_a_queue_on_the_way_is_seen():
    playout = Playout()
    for n, (at, group) in enumerate(messages(60)):
        playout.push(group, at + max(0, n - 30) * 0.02)
        playout.pop(at)
    assert playout.queued_s(CLOCKS + 7.8, 0.5) == pytest.approx(0.56, abs=0.1)


def test_a_queue_that_stands_is_not_forgotten():
    """Not for half a minute, nor because the first picture has come; but on another path everything is new."""
    playout = Playout()
    for at, group in messages(10):
        playout.push(group, at)
    playout.relearn()
    for at, group in messages(200)[10:]:
        playout.push(group, at + 0.5)
    now = CLOCKS + 200 * 3 * INTERVAL + 0.5
    assert playout.queued_s(now, 0.5) == pytest.approx(0.5, abs=0.01)
    playout.new_path()
    playout.push([frame(600)], now)
    assert playout.queued_s(now, 0.5) == 0


def test_memory_is_bounded():
    playout = Playout()
    for n in range(2000):
        playout.push([frame(n, 1e6)], CLOCKS)
    assert len(playout._waiting) <= MAX_WAITING
    assert len(playout._seen) <= 4 * MAX_WAITING


def test_frames_between_two_leading_sources_stay_with_the_nearer_one():
    a, b = (
        TimedFrame(n, n * INTERVAL, np.full((2, 3), n, np.float32), reference_source)
        for n, reference_source in ((0, 3), (4, 5))
    )
    assert [between(a, b, share)[1] for share in (0.2, 0.4, 0.6, 0.8)] == [3, 3, 5, 5]
    assert [float(between(a, b, share)[0][0, 0]) for share in (0.2, 0.8)] == [0, 4]
    same = TimedFrame(4, 4 * INTERVAL, b.keypoints, 3)
    assert between(a, same, 0.25)[0][0, 0] == 1


@pytest.mark.parametrize("rebuild_s", [1.5 * INTERVAL, 1.95 * INTERVAL])
def test_half_a_processor_shows_fewer_frames_evenly_and_never_lags(rebuild_s: float):
    """One picture at a time is rebuilt, each in more than a frame's interval; the lead follows, as in a call."""
    rng = np.random.default_rng(3)
    playout, now, shown = Playout(), CLOCKS, []
    arrivals = [(CLOCKS + n * INTERVAL + 0.05, frame(n)) for n in range(1500)]
    spent: list[float] = []
    while arrivals:
        while arrivals and arrivals[0][0] <= now:
            at, came = arrivals.pop(0)
            playout.push([came], at)
        due = playout.pop(now)
        if due is None:
            now += 0.001
            continue
        spent.append(rebuild_s * rng.uniform(0.98, 1.02))
        now += spent[-1]
        playout.lead_s = sorted(spent[-30:])[len(spent[-30:]) * 7 // 10]
        shown.append((max(now, due.due_s), due.frame))
    shown = shown[50:]
    seen = np.array([at for at, _ in shown])
    delays = seen - CLOCKS - np.array([taken.stamp_s for _, taken in shown])
    steps = np.diff([taken.number for _, taken in shown])
    assert set(steps) <= {1, 2, 3}
    assert steps.mean() == pytest.approx(rebuild_s / INTERVAL, rel=0.1)
    gaps = np.diff(seen)
    assert gaps.std() < 0.1 * gaps.mean()
    assert gaps.max() < 1.5 * gaps.mean()
    assert delays.max() < 0.05 + rebuild_s + INTERVAL + 0.01
    half = len(delays) // 2
    assert delays[half:].mean() < delays[:half].mean() + 0.002
