"""Rate-distortion optimised quantisation of messages: bits are spent where they reduce the error."""

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import Run
from iwcodec.codec.motion import transform_rdo
from iwcodec.codec.motion.transform_coder import TransformCoder, dct_matrix, inverse_transform, step_of
from iwcodec.codec.motion.transform_rdo import RateDistortionQuantiser, interpolated_targets
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Fit, Quadratic

N = 60
CODER = TransformCoder(load_transform_tables())
NO_ERROR = Quadratic(np.zeros(N), np.zeros((N, N)))


def form(seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(300, N)) * np.geomspace(1, 0.3, N) / 17
    return rows.T @ rows


def oscillating(count: int, noise: float = 0.05, seed: int = 0) -> list[Fit]:
    """Coordinates that oscillate slowly, the first ones most, plus noise."""
    rng = np.random.default_rng(seed)
    amplitude = rng.normal(size=N) * np.geomspace(5, 0.05, N)
    turns = np.sin(np.arange(count) / 8)
    gram = form(seed)
    return [Fit(Quadratic(turn * amplitude + rng.normal(size=N) * noise, gram), 3) for turn in turns]


def mean_error(frames: list[Fit], scale: int) -> float:
    message = RateDistortionQuantiser(CODER, scale).message(frames)
    rows = np.concatenate([inverse_transform(levels, scale) for levels in message.levels])
    return float(np.mean([frame.of(row) for (frame, *_), row in zip(frames, rows, strict=True)]))


def size(frames: list[Fit], scale: int) -> int:
    """Bytes of the payload."""
    return len(RateDistortionQuantiser(CODER, scale).message(frames).payload)


def test_the_payload_decodes_to_the_levels_of_the_message() -> None:
    frames = [*oscillating(20), *(Fit(frame, 5) for frame, *_ in oscillating(11, seed=1))]
    message = RateDistortionQuantiser(CODER, 70).message(frames)
    assert message.runs == (Run(3, 20), Run(5, 11))
    found = CODER.decode(message.payload, [20, 11], N)
    for chosen, decoded in zip(message.levels, found, strict=True):
        np.testing.assert_array_equal(chosen, decoded)
        assert decoded.any()


def test_skip_mode_frames_form_runs_of_zero_levels() -> None:
    moving = oscillating(20)
    skipped = [Fit(NO_ERROR, 3, True)] * 5
    message = RateDistortionQuantiser(CODER, 70).message([*moving[:10], *skipped, *moving[10:]])
    assert message.runs == (Run(3, 10), Run(3, 5), Run(3, 10))
    assert [bool(levels.any()) for levels in message.levels] == [True, False, True]
    separate = size(moving[:10], 70) + size(moving[10:], 70)
    assert len(message.payload) <= separate + 2


def test_coarser_steps_take_fewer_bytes_and_lose_more() -> None:
    frames = oscillating(40)
    sizes = [size(frames, scale) for scale in (60, 76, 92, 255)]
    errors = [mean_error(frames, scale) for scale in (60, 76, 92, 255)]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[-1] <= 2


def test_the_total_cost_is_lower_than_that_of_rounding() -> None:
    frames, scale = oscillating(40), 90
    step = step_of(scale)
    rounded = np.rint(dct_matrix(40) @ np.array([frame.target for frame, *_ in frames]) / step).astype(np.int32)
    price = 0.01 * step**2 * 8
    error = sum(frame.of(row) for (frame, *_), row in zip(frames, inverse_transform(rounded, scale), strict=True))
    ours = mean_error(frames, scale) * 40 + price * size(frames, scale)
    assert ours < error + price * len(CODER.encode([rounded]))


def test_coordinate_descent_lowers_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quadratic form differs between frames, which the first pass ignores."""
    frames = [
        Fit(Quadratic(frame.target, form(n % 4) * (1 + n % 3)), lead)
        for n, (frame, lead, _) in enumerate(oscillating(40))
    ]
    price = transform_rdo.DESCENT_PRICE * transform_rdo.ERROR_PER_BIT * step_of(74) ** 2 * 8

    def cost() -> float:
        return mean_error(frames, 74) * 40 + price * size(frames, 74)

    descended = cost()
    monkeypatch.setattr(transform_rdo, "DESCENT_PASSES", 0)
    assert descended < cost() * 0.97


def test_frames_of_little_visible_error_cost_few_bits() -> None:
    frames = oscillating(30)
    blind = [Fit(Quadratic(frame.target, frame.gram * 1e-4), lead) for frame, lead, _ in frames]
    sizes = [size(each, 80) for each in (frames, blind)]
    assert sizes[1] < sizes[0] / 3


def test_frames_without_error_cost_next_to_nothing() -> None:
    assert size([Fit(NO_ERROR, 0)] * 50, 80) <= 2
    frames = oscillating(30, noise=0.0)
    between = [fit if n % 3 else Fit(NO_ERROR, 3) for n, fit in enumerate(frames)]
    sizes = [size(each, 80) for each in (frames, between)]
    assert sizes[1] <= sizes[0] * 1.1


def test_targets_of_frames_without_error_are_interpolated() -> None:
    form_ = np.eye(N)
    rows = interpolated_targets(
        [Quadratic(np.full(N, 2.0), form_), NO_ERROR, NO_ERROR, Quadratic(np.full(N, 5.0), form_), NO_ERROR]
    )
    assert rows[:, 0] == pytest.approx([2, 3, 4, 5, 5])


def test_messages_are_independent() -> None:
    quantiser = RateDistortionQuantiser(CODER, 78)
    first, again = (quantiser.message(oscillating(6, seed=1)) for _ in range(2))
    assert first.payload == again.payload
