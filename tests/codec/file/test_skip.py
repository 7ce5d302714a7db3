"""Skip mode: which frames an unmodified source shows best."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwcodec.codec.file.skip import CHECK_EVERY, CLEARLY_DB, MAX_BLOCK_RATIO, SkipMode, max_block_error
from iwcodec.codec.fit.keypoint_fit import Fitted
from iwcodec.codec.media.types import Picture
from support.codec.stub_runtime import SIZE, StubRuntime, picture

RNG = np.random.default_rng(0)


def noisy(shown: Picture, sigma: float) -> Picture:
    return np.clip(shown + RNG.normal(size=shown.shape) * sigma, 0, 255).astype(np.uint8)


class FixedDecoder:
    """Reconstructs every frame as the same picture, and counts how often."""

    def __init__(self, rebuilt: Picture) -> None:
        self.rebuilt, self.count = rebuilt, 0

    def reconstruct_from(self, *_: object) -> Picture:
        self.count += 1
        return self.rebuilt


def skip_mode(rebuilt: Picture, every: int = 1) -> tuple[SkipMode, FixedDecoder]:
    decoder: Any = FixedDecoder(rebuilt)
    return SkipMode(decoder, every), decoder


SOURCE: Any = SimpleNamespace(picture=noisy(picture(100), 3))
OTHER: Any = SimpleNamespace(picture=picture(140))
FITTED = Fitted(StubRuntime().detect(picture(100)), SOURCE, 1.0, None)


def test_a_source_better_than_the_reconstruction_is_chosen() -> None:
    mode, _ = skip_mode(noisy(picture(100), 6))
    assert mode.choose(picture(100), FITTED, [OTHER, SOURCE]) is SOURCE
    assert mode.active


def test_no_source_is_chosen_if_the_reconstruction_is_better() -> None:
    mode, _ = skip_mode(picture(100))
    assert mode.choose(picture(100), FITTED, [OTHER, SOURCE]) is None
    assert not mode.active


def test_a_moving_mouth_is_not_frozen() -> None:
    """Although the source has lower error over the whole picture."""
    speaking = picture(100).copy()
    speaking[40:48, 28:36] = 150
    rebuilt = noisy(speaking, 9)
    mode, _ = skip_mode(rebuilt)
    assert np.square(SOURCE.picture - 1.0 * speaking).mean() < np.square(rebuilt - 1.0 * speaking).mean()
    assert max_block_error(SOURCE.picture, speaking) > MAX_BLOCK_RATIO * max_block_error(rebuilt, speaking)
    assert mode.choose(speaking, FITTED, [SOURCE]) is None


def test_a_source_unlike_the_frame_costs_no_reconstruction() -> None:
    mode, decoder = skip_mode(picture(100))
    assert mode.choose(picture(100), FITTED, [OTHER]) is None
    assert decoder.count == 0


@pytest.mark.parametrize("sigma", [3.3, 6.0])
def test_a_clearly_worse_source_is_compared_only_now_and_then(sigma: float) -> None:
    """A slightly worse one is compared in every frame."""
    source: Any = SimpleNamespace(picture=noisy(picture(100), sigma))
    mode, decoder = skip_mode(noisy(picture(100), 3))
    for _ in range(2 * CHECK_EVERY + 1):
        assert mode.choose(picture(100), FITTED, [source]) is None
    difference_db = 20 * np.log10(sigma / 3)
    assert decoder.count == (2 * CHECK_EVERY + 1 if difference_db < CLEARLY_DB else 3)


def test_the_largest_block_error_counts() -> None:
    shown = picture(100).copy()
    shown[: SIZE // 16, : SIZE // 16] += 10
    assert max_block_error(shown, picture(100)) == pytest.approx(300)
    assert max_block_error(picture(100), picture(100)) == 0


def test_frames_can_share_a_decision() -> None:
    mode, decoder = skip_mode(noisy(picture(100), 6), every=4)
    chosen = [mode.choose(picture(100), FITTED, [SOURCE]) for _ in range(9)]
    assert chosen == [SOURCE] * 9
    assert decoder.count == 3
    assert mode.choose(picture(100), FITTED, [OTHER]) is None  # a source far off is never chosen
