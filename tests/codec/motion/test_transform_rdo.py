"""Levels of the transform coder: bits are spent where errors show, and messages are what their payloads say."""

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import Run
from iwcodec.codec.motion import transform_rdo
from iwcodec.codec.motion.transform_coder import TransformCoder, cosines, over_time, step_of
from iwcodec.codec.motion.transform_rdo import Chooser, bridged
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Fit, Quadratic

N = 60
CODER = TransformCoder(load_transform_tables())
NOTHING = Quadratic(np.zeros(N), np.zeros((N, N)))


def form(seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(300, N)) * np.geomspace(1, 0.3, N) / 17
    return rows.T @ rows


def swaying(count: int, shaken: float = 0.05, seed: int = 0) -> list[Fit]:
    """Coordinates that go up and down slowly, the first the farthest, and shake."""
    rng = np.random.default_rng(seed)
    reach = rng.normal(size=N) * np.geomspace(5, 0.05, N)
    turns = np.sin(np.arange(count) / 8)
    gram = form(seed)
    return [Fit(Quadratic(turn * reach + rng.normal(size=N) * shaken, gram), 3) for turn in turns]


def missed(frames: list[Fit], scale: int) -> float:
    message = Chooser(CODER, scale).message(frames)
    rows = np.concatenate([over_time(levels, scale) for levels in message.levels])
    return float(np.mean([frame.of(row) for (frame, *_), row in zip(frames, rows, strict=True)]))


def test_a_message_is_what_its_payload_says():
    frames = [*swaying(20), *(Fit(frame, 5) for frame, *_ in swaying(11, seed=1))]
    message = Chooser(CODER, 70).message(frames)
    assert message.runs == (Run(3, 20), Run(5, 11))
    found = CODER.decode(message.payload, [20, 11], N)
    for chosen, decoded in zip(message.levels, found, strict=True):
        np.testing.assert_array_equal(chosen, decoded)
        assert decoded.any()


def test_still_frames_are_runs_in_which_nothing_moves():
    moving = swaying(20)
    still = [Fit(NOTHING, 3, True)] * 5
    message = Chooser(CODER, 70).message([*moving[:10], *still, *moving[10:]])
    assert message.runs == (Run(3, 10), Run(3, 5), Run(3, 10))
    assert [bool(levels.any()) for levels in message.levels] == [True, False, True]
    there = len(Chooser(CODER, 70).message(moving[:10]).payload) + len(Chooser(CODER, 70).message(moving[10:]).payload)
    assert len(message.payload) <= there + 2


def test_coarser_steps_take_fewer_bytes_and_lose_more():
    frames = swaying(40)
    sizes = [len(Chooser(CODER, scale).message(frames).payload) for scale in (60, 76, 92, 255)]
    errors = [missed(frames, scale) for scale in (60, 76, 92, 255)]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[-1] <= 2


def test_it_costs_less_than_rounding():
    frames, scale = swaying(40), 90
    step = step_of(scale)
    rounded = np.rint(cosines(40) @ np.array([frame.target for frame, *_ in frames]) / step).astype(np.int32)
    price = 0.01 * step**2 * 8
    error = sum(frame.of(row) for (frame, *_), row in zip(frames, over_time(rounded, scale), strict=True))
    ours = missed(frames, scale) * 40 + price * len(Chooser(CODER, scale).message(frames).payload)
    assert ours < error + price * len(CODER.encode([rounded]))


def test_looking_again_at_all_frames_together_pays(monkeypatch: pytest.MonkeyPatch):
    """What errors cost differs from frame to frame, which the first look does not know."""
    frames = [
        Fit(Quadratic(frame.target, form(n % 4) * (1 + n % 3)), lead) for n, (frame, lead, _) in enumerate(swaying(40))
    ]
    price = transform_rdo.DEARER * transform_rdo.ERROR_PER_BIT * step_of(74) ** 2 * 8

    def cost() -> float:
        return missed(frames, 74) * 40 + price * len(Chooser(CODER, 74).message(frames).payload)

    looked = cost()
    monkeypatch.setattr(transform_rdo, "LOOKS", 0)
    assert looked < cost() * 0.97


def test_errors_that_do_not_show_cost_no_bits():
    frames = swaying(30)
    blind = [Fit(Quadratic(frame.target, frame.gram * 1e-4), lead) for frame, lead, _ in frames]
    sizes = [len(Chooser(CODER, 80).message(each).payload) for each in (frames, blind)]
    assert sizes[1] < sizes[0] / 3


def test_frames_that_are_shown_as_they_came_cost_nothing():
    assert len(Chooser(CODER, 80).message([Fit(NOTHING, 0)] * 50).payload) <= 2
    frames = swaying(30, shaken=0.0)
    between = [fit if n % 3 else Fit(NOTHING, 3) for n, fit in enumerate(frames)]
    sizes = [len(Chooser(CODER, 80).message(each).payload) for each in (frames, between)]
    assert sizes[1] <= sizes[0] * 1.1


def test_gaps_are_bridged():
    form_ = np.eye(N)
    rows = bridged([Quadratic(np.full(N, 2.0), form_), NOTHING, NOTHING, Quadratic(np.full(N, 5.0), form_), NOTHING])
    assert rows[:, 0] == pytest.approx([2, 3, 4, 5, 5])


def test_messages_stand_alone():
    chooser = Chooser(CODER, 78)
    first, again = (chooser.message(swaying(6, seed=1)) for _ in range(2))
    assert first.payload == again.payload
