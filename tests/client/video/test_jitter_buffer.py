import numpy as np
import pytest

from iwcodec.client.video.jitter_buffer import (
    MAX_BRIDGE_S,
    MAX_WAITING,
    SHRINK,
    DueFrame,
    TimedFrame,
    VideoJitterBuffer,
    interpolate,
)

INTERVAL = 0.04
CLOCKS = 500.0
"""By how much our clock is ahead of the sender's, seconds."""


def frame(number: int, stamp_s: float | None = None) -> TimedFrame:
    at = number * INTERVAL if stamp_s is None else stamp_s
    return TimedFrame(number, at, np.full((2, 3), number, np.float32))


def play(arrivals: list[tuple[float, list[TimedFrame]]], buffer: VideoJitterBuffer | None = None) -> list[DueFrame]:
    """Deliver messages (arrival on our clock, frames), and pop due frames every 2 ms."""
    buffer = buffer or VideoJitterBuffer()
    shown = []
    queue = sorted(arrivals, key=lambda arrival: arrival[0])
    for now in np.arange(queue[0][0], queue[-1][0] + 1.0, 0.002):
        while queue and queue[0][0] <= now:
            at, frames = queue.pop(0)
            buffer.push(frames, at)
        due = buffer.pop(now)
        if due is not None:
            shown.append(due)
    return shown


def messages(count: int, size: int = 3, transit_s: float = 0.05) -> list[tuple[float, list[TimedFrame]]]:
    """`count` messages of `size` frames, each sent when its last frame is taken."""
    groups = [[frame(m * size + n) for n in range(size)] for m in range(count)]
    return [(CLOCKS + group[-1].stamp_s + transit_s, group) for group in groups]


def numbers(shown: list[DueFrame]) -> list[int]:
    return [item.frame.number for item in shown]


def test_steady_arrivals() -> None:
    """Shows every frame once, at even intervals; the delay is packing time plus transit."""
    buffer = VideoJitterBuffer()
    shown = play(messages(50), buffer)
    assert numbers(shown) == list(range(150))
    assert not any(item.interpolated for item in shown)
    gaps = np.diff([item.due_s for item in shown[30:]])
    assert gaps == pytest.approx(INTERVAL, abs=0.005)
    assert buffer.delay_s - CLOCKS == pytest.approx(2 * INTERVAL + 0.05 + 0.005, abs=0.001)
    assert buffer.fastest_s == pytest.approx(CLOCKS + 0.05)


def test_frames_are_handed_out_early_by_the_rendering_time() -> None:
    buffer = VideoJitterBuffer()
    buffer.render_s = 0.06
    buffer.push([frame(0)], CLOCKS)
    assert buffer.next_s(CLOCKS) == pytest.approx(CLOCKS + 0.005)
    due = buffer.pop(CLOCKS + 0.006)
    assert due.due_s == pytest.approx(CLOCKS + 0.065)


def test_drifting_clocks() -> None:
    """The sender's clock is 0.2 % fast for half a minute, 60 ms in all: no frame is dropped or repeated."""
    arrivals = [
        (CLOCKS + at, [frame(f.number, f.stamp_s * 1.002) for f in group])
        for at, group in messages(250)
        for at in [at - CLOCKS]
    ]
    assert numbers(play(arrivals)) == list(range(750))


def test_delay_grows_with_jitter_and_shrinks_without() -> None:
    rng = np.random.default_rng(1)
    buffer = VideoJitterBuffer()
    jittery = [(at + float(rng.uniform(0, 0.15)), group) for at, group in messages(100)]
    shown = play(jittery, buffer)
    jittery_delay = buffer.delay_s
    assert len(shown) > 0.95 * 300
    assert jittery_delay - CLOCKS > 2 * INTERVAL + 0.05 + 0.12
    calm = [(at, group) for at, group in messages(300)[104:]]
    play(calm, buffer)
    assert buffer.delay_s < jittery_delay - 0.1
    assert buffer.delay_s > jittery_delay - SHRINK * 30


def test_delay_shrinks_by_8_percent_of_the_time_that_passes() -> None:
    """Frames follow each other 8 % faster: soon enough after a burst of jitter, and not visible."""
    buffer = VideoJitterBuffer()
    slow, usual = messages(20, size=1, transit_s=0.45), messages(340, size=1)[20:]
    shown = play(slow + usual, buffer)
    while_shrinking = [item for item in shown if 8.0 < item.due_s - CLOCKS < 11.0]  # the burst has left the window
    gaps = np.diff([item.due_s for item in while_shrinking])
    assert gaps.mean() == pytest.approx(INTERVAL / 1.08, rel=0.005)
    delays = [item.due_s - CLOCKS - item.frame.stamp_s for item in while_shrinking]
    assert delays[0] - delays[-1] == pytest.approx(0.08 * 3.0, abs=0.01)
    assert buffer.delay_s - CLOCKS == pytest.approx(0.055, abs=0.005)


def test_lost_frames_are_interpolated_if_the_next_arrives_in_time() -> None:
    arrivals = [(CLOCKS + n * INTERVAL + (0.17 if n % 4 == 1 else 0.05), [frame(n)]) for n in range(200)]
    shown = play([arrival for n, arrival in enumerate(arrivals) if n not in (150, 151)])
    assert [n for n in numbers(shown) if n > 20] == list(range(21, 200))
    bridged = [item.frame for item in shown if item.interpolated and item.frame.number > 20]
    assert [f.number for f in bridged] == [150, 151]
    assert bridged[0].keypoints == pytest.approx(150)
    assert bridged[1].stamp_s == pytest.approx(151 * INTERVAL)


def test_last_picture_is_held_if_no_later_frame_arrives_in_time() -> None:
    arrivals = [(CLOCKS + n * INTERVAL, [frame(n)]) for n in range(30) if n not in (10, 11)]
    shown = play(arrivals)
    assert [n for n in range(30) if n not in numbers(shown)] == [10, 11]


def test_long_gap_is_not_interpolated() -> None:
    count = int(MAX_BRIDGE_S / INTERVAL) + 5
    arrivals = [(CLOCKS, [frame(0)]), (CLOCKS + 0.001, [frame(count)])]
    assert numbers(play(arrivals)) == [0, count]


def test_late_frames_are_dropped_and_counted() -> None:
    buffer = VideoJitterBuffer()
    for n in (0, 1, 3):
        buffer.push([frame(n)], CLOCKS + n * INTERVAL)
        assert buffer.pop(CLOCKS + n * INTERVAL + 0.01) is not None
    assert buffer.push([frame(2), frame(3), frame(4)], CLOCKS + 0.17) == 1


def test_reordering_and_duplicates_are_harmless() -> None:
    ordered = messages(40)
    rng = np.random.default_rng(2)
    start, rest = ordered[:10], ordered[10:]
    mixed = [(at + 0.12 * float(rng.random() < 0.3), group) for at, group in rest]
    twice = [(at + 0.06, group) for at, group in rest]
    shown = numbers(play(start + mixed + twice))
    assert shown == sorted(set(shown))
    assert shown[-1] == 119
    assert len(shown) > 114


def test_outage() -> None:
    """After 5 s without arrivals, queued frames arrive, then current ones, which are shown without a longer delay."""
    before = messages(50)
    after = [(at, group) for at, group in messages(250)[92:]]
    stale = [(after[0][0], group) for _, group in messages(60)[50:]]
    buffer = VideoJitterBuffer()
    shown = play(before + stale + after, buffer)
    first = next(item for item in shown if item.frame.number >= 92 * 3)
    assert first.due_s - (CLOCKS + first.frame.stamp_s) < 0.3
    assert buffer.delay_s - CLOCKS < 0.3


def test_relearn_forgets_transit_times() -> None:
    buffer = VideoJitterBuffer()
    buffer.push([frame(0)], CLOCKS + 2.0)
    buffer.relearn()
    assert buffer.fastest_s is None
    assert buffer.pop(CLOCKS + 2.0) is not None  # frames in the buffer are shown at once
    buffer.push([frame(60)], CLOCKS + 2.45)
    assert buffer.delay_s == pytest.approx(CLOCKS + 0.055)


def test_queueing_delay_is_measured() -> None:
    buffer = VideoJitterBuffer()
    for n, (at, group) in enumerate(messages(60)):
        buffer.push(group, at + max(0, n - 30) * 0.02)
        buffer.pop(at)
    assert buffer.queued_s(CLOCKS + 7.8, 0.5) == pytest.approx(0.56, abs=0.1)


def test_persistent_queue_is_not_forgotten() -> None:
    """It is measured for EMPTY_S, and after `relearn`; `new_path` forgets it."""
    buffer = VideoJitterBuffer()
    for at, group in messages(10):
        buffer.push(group, at)
    buffer.relearn()
    for at, group in messages(200)[10:]:
        buffer.push(group, at + 0.5)
    now = CLOCKS + 200 * 3 * INTERVAL + 0.5
    assert buffer.queued_s(now, 0.5) == pytest.approx(0.5, abs=0.01)
    buffer.new_path()
    buffer.push([frame(600)], now)
    assert buffer.queued_s(now, 0.5) == 0


def test_memory_is_bounded() -> None:
    buffer = VideoJitterBuffer()
    for n in range(2000):
        buffer.push([frame(n, 1e6)], CLOCKS)
    assert len(buffer._waiting) <= MAX_WAITING
    assert len(buffer._known) <= 4 * MAX_WAITING


def test_interpolation_across_reference_sources_takes_the_nearer_frame() -> None:
    a, b = (
        TimedFrame(n, n * INTERVAL, np.full((2, 3), n, np.float32), reference_source)
        for n, reference_source in ((0, 3), (4, 5))
    )
    assert [interpolate(a, b, share).reference_source for share in (0.2, 0.4, 0.6, 0.8)] == [3, 3, 5, 5]
    assert [float(interpolate(a, b, share).keypoints[0, 0]) for share in (0.2, 0.8)] == [0, 4]
    same = TimedFrame(4, 4 * INTERVAL, b.keypoints, 3)
    assert interpolate(a, same, 0.25).keypoints[0, 0] == 1


def test_interpolated_frames_show_the_regions_of_the_nearer_one() -> None:
    a, b = (TimedFrame(n, n * INTERVAL, np.full((2, 3), n, np.float32), 3, (n, None)) for n in (0, 4))
    assert [interpolate(a, b, share).regions for share in (0.2, 0.8)] == [(0, None), (4, None)]


@pytest.mark.parametrize("render_s", [1.5 * INTERVAL, 1.95 * INTERVAL])
def test_slow_rendering_shows_fewer_frames_at_even_intervals(render_s: float) -> None:
    """Frames are rendered one at a time, each in more than a frame interval; `render_s` follows, as in a call."""
    rng = np.random.default_rng(3)
    buffer, now, shown = VideoJitterBuffer(), CLOCKS, []
    arrivals = [(CLOCKS + n * INTERVAL + 0.05, frame(n)) for n in range(1500)]
    spent: list[float] = []
    while arrivals:
        while arrivals and arrivals[0][0] <= now:
            at, arrived = arrivals.pop(0)
            buffer.push([arrived], at)
        due = buffer.pop(now)
        if due is None:
            now += 0.001
            continue
        spent.append(render_s * rng.uniform(0.98, 1.02))
        now += spent[-1]
        buffer.render_s = sorted(spent[-30:])[len(spent[-30:]) * 7 // 10]
        shown.append((max(now, due.due_s), due.frame))
    shown = shown[50:]
    shown_at = np.array([at for at, _ in shown])
    delays = shown_at - CLOCKS - np.array([each.stamp_s for _, each in shown])
    steps = np.diff([each.number for _, each in shown])
    assert set(steps) <= {1, 2, 3}
    assert steps.mean() == pytest.approx(render_s / INTERVAL, rel=0.1)
    gaps = np.diff(shown_at)
    assert gaps.std() < 0.1 * gaps.mean()
    assert gaps.max() < 1.5 * gaps.mean()
    assert delays.max() < 0.05 + render_s + INTERVAL + 0.01
    half = len(delays) // 2
    assert delays[half:].mean() < delays[:half].mean() + 0.002
