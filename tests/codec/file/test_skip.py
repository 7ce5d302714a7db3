"""Which frames a source shows best as it lies."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwcodec.codec.file.skip import CLEARLY_DB, LOOK_EVERY, SkipMode, furthest
from iwcodec.codec.fit.keypoint_fit import Fitted
from iwcodec.codec.media.types import Picture
from stub_runtime import SIZE, StubRuntime, picture

RNG = np.random.default_rng(0)


def noisy(shown: Picture, amount: float) -> Picture:
    return np.clip(shown + RNG.normal(size=shown.shape) * amount, 0, 255).astype(np.uint8)


class Rebuilding:
    """A decoder that makes what it is told to, and counts how often."""

    def __init__(self, made: Picture) -> None:
        self.made, self.count = made, 0

    def rebuild(self, *_: object) -> Picture:
        self.count += 1
        return self.made


def stills(made: Picture, every: int = 1) -> tuple[SkipMode, Rebuilding]:
    decoder: Any = Rebuilding(made)
    return SkipMode(decoder, every), decoder


SOURCE: Any = SimpleNamespace(picture=noisy(picture(100), 3))
OTHER: Any = SimpleNamespace(picture=picture(140))
FOUND = Fitted(StubRuntime().detect(picture(100)), SOURCE, 1.0, None)


def test_the_source_that_is_nearer_than_what_is_rebuilt():
    found, _ = stills(noisy(picture(100), 6))
    assert found.nearer(picture(100), FOUND, [OTHER, SOURCE]) is SOURCE
    assert found.still


def test_what_is_rebuilt_where_that_is_nearer():
    found, _ = stills(picture(100))
    assert found.nearer(picture(100), FOUND, [OTHER, SOURCE]) is None
    assert not found.still


def test_a_mouth_that_moves_is_not_frozen():
    """Though over the whole picture the source is nearer."""
    speaking = picture(100).copy()
    speaking[40:48, 28:36] = 150
    made = noisy(speaking, 9)
    found, _ = stills(made)
    assert np.square(SOURCE.picture - 1.0 * speaking).mean() < np.square(made - 1.0 * speaking).mean()
    assert furthest(SOURCE.picture, speaking) > 1.25 * furthest(made, speaking)
    assert found.nearer(speaking, FOUND, [SOURCE]) is None


def test_sources_unlike_the_frame_cost_no_rebuilding():
    found, decoder = stills(picture(100))
    assert found.nearer(picture(100), FOUND, [OTHER]) is None
    assert decoder.count == 0


@pytest.mark.parametrize("amount", [3.3, 6.0])
def test_what_is_clearly_better_is_looked_at_now_and_then(amount: float):
    """And what is not is looked at in every frame."""
    source: Any = SimpleNamespace(picture=noisy(picture(100), amount))
    made = noisy(picture(100), 3)
    found, decoder = stills(made)
    for _ in range(2 * LOOK_EVERY + 1):
        assert found.nearer(picture(100), FOUND, [source]) is None
    away = 20 * np.log10(amount / 3)
    assert decoder.count == (2 * LOOK_EVERY + 1 if away < CLEARLY_DB else 3)


def test_the_part_that_is_furthest_off():
    shown = picture(100).copy()
    shown[: SIZE // 16, : SIZE // 16] += 10
    assert furthest(shown, picture(100)) == pytest.approx(300)
    assert furthest(picture(100), picture(100)) == 0


def test_frames_may_share_what_was_found():
    found, decoder = stills(noisy(picture(100), 6), every=4)
    shown = [found.nearer(picture(100), FOUND, [SOURCE]) for _ in range(9)]
    assert shown == [SOURCE] * 9
    assert decoder.count == 3
    assert found.nearer(picture(100), FOUND, [OTHER]) is None  # what is far off is none at any time
