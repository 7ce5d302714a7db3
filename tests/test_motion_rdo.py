"""Rate-distortion optimised quantisation: bits are spent where they move cells, and bounds are kept."""

import numpy as np
from iwcodec.motion import MotionCoder, Quantiser, coded_frames
from iwcodec.motion_prediction import Predictor
from iwcodec.motion_rdo import MotionQuantiser, Quadratic, Spool, choose_levels
from iwcodec.motion_tables import load_tables

K = 20
STEPS = Quantiser().steps
RNG = np.random.default_rng(0)
NOTHING = np.zeros((K, 3), np.int32)
FREE = Predictor.zero(K).inter


def gram(seed: int = 0) -> np.ndarray:
    """Unknowns that share their cells, some of them many and some few."""
    rows = np.random.default_rng(seed).normal(size=(400, 3 * K)) * np.geomspace(0.05, 1, 3 * K)
    return rows.T @ rows + 0.05 * np.eye(3 * K)


def error_of(levels: np.ndarray, frame: Quadratic) -> float:
    missed = (levels * STEPS).T.reshape(-1) - frame.target
    return float(missed @ frame.gram @ missed)


def frame(seed: int = 0) -> Quadratic:
    return Quadratic(np.random.default_rng(seed).normal(size=3 * K) * 0.05, gram(seed))


def test_free_bits_give_less_error_than_rounding():
    for seed in range(5):
        target = frame(seed)
        rounded = np.rint(target.target.reshape(3, -1).T / STEPS).astype(np.int32)
        chosen = choose_levels(target, STEPS, NOTHING, NOTHING, FREE, 0.0)
        assert error_of(chosen, target) < error_of(rounded, target)


def test_dearer_bits_give_fewer_changes_and_more_error():
    target = frame()
    found = [choose_levels(target, STEPS, NOTHING, NOTHING, FREE, trade) for trade in (0.0, 1e-4, 1e-2, 1e3)]
    changes = [np.count_nonzero(levels) for levels in found]
    errors = [error_of(levels, target) for levels in found]
    assert changes == sorted(changes, reverse=True)
    assert errors == sorted(errors)
    assert changes[-1] == 0


def test_the_predicted_level_is_free():
    weights = np.zeros((K, 3, 2 * K), np.int32)
    weights[:, :, K:] = (1 << 12) * np.eye(K, dtype=np.int32)[:, None, :]  # moves on as it moved
    moved = RNG.integers(-3, 4, (K, 3)).astype(np.int32)
    chosen = choose_levels(frame(), STEPS, NOTHING, moved, weights, 1e3)
    np.testing.assert_array_equal(chosen, moved)


def walking(count: int, step: float, seed: int = 0) -> list[Quadratic]:
    """Frames that move evenly from one pose to another, and shake by `step`."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 3 * K)) * 0.2 + 0.4
    form = gram(seed)
    shaken = rng.normal(size=(count, 3 * K)) * step
    return [Quadratic(a + (b - a) * n / count + shaken[n], form) for n in range(count)]


def quantiser() -> MotionQuantiser:
    return MotionQuantiser(MotionCoder(load_tables()), Quantiser())


def test_a_message_keeps_its_bytes_where_it_can_be_done():
    frames, leaders = walking(25, 0.05), [0] * 25
    free = quantiser().message(frames, leaders)
    bounded = quantiser().message(frames, leaders, len(free.payload) / 2)
    assert len(bounded.payload) <= len(free.payload) / 2
    assert bounded.leaders == free.leaders == (0,) * 25


def test_a_message_is_what_its_payload_says():
    message = quantiser().message(walking(25, 0.02), [3] * 25)
    coded = coded_frames(25, message.stride)
    decoded = MotionCoder(load_tables()).decode(message.payload, len(coded), K, None)
    np.testing.assert_array_equal(decoded, message.levels)


def test_frames_are_left_out_where_they_lie_between_others():
    even, shaken = (quantiser().message(walking(25, step), [0] * 25).stride for step in (0.0, 0.2))
    assert even > 2
    assert shaken == 1


def test_frames_that_another_source_leads_are_not_interpolated_across():
    calm = walking(12, 0.0)
    leaders = [0] * 5 + [1] * 7
    message = quantiser().message(calm, leaders)
    coded = coded_frames(12, message.stride)
    assert [message.leaders[n] for n in coded] == [leaders[n] for n in coded]
    assert set(message.leaders) == {0, 1}


def test_messages_stand_alone():
    chooser = quantiser()
    first, again = (chooser.message(walking(6, 0.02, seed=1), [0] * 6) for _ in range(2))
    assert first.payload == again.payload


def test_the_spool_gives_back_what_it_took():
    frames = [frame(seed) for seed in range(7)]
    with Spool(iter(frames)) as spool:
        for _ in range(2):
            messages = list(spool.messages(3))
            assert [len(message) for message in messages] == [3, 3, 1]
            for kept, given in zip([one for message in messages for one in message], frames, strict=True):
                np.testing.assert_allclose(kept.target, given.target, rtol=1e-6)
                np.testing.assert_allclose(kept.gram, given.gram, rtol=1e-5)
