"""Whatever is seen for a while has a source that looks like it."""

import numpy as np
import pytest

from iwcodec.codec.file.rate_control.shot_sources import required_sources
from iwcodec.codec.sources.library import CAPACITY

FPS = 24.0


def scene(seed: int, count: int, level: float = 1.0) -> np.ndarray:
    """Thumbnails of a speaker who moves a little: (count, 32, 32, 3)."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    noise = rng.normal(0, 5, (count, 32, 32, 3))
    return np.clip(blocks * level + noise, 0, 255).astype(np.uint8)


def black(count: int) -> np.ndarray:
    return np.zeros((count, 32, 32, 3), np.uint8)


def starts(*parts: np.ndarray) -> list[int]:
    return [0, *np.cumsum([len(part) for part in parts])[:-1].tolist()]


def required(*parts: np.ndarray, shots: list[int] | None = None) -> list[int]:
    """Required sources, as the numbers of the parts that they are from."""
    frames = required_sources(np.concatenate(parts), starts(*parts) if shots is None else shots, FPS)
    return [int(np.searchsorted(starts(*parts), frame, side="right")) - 1 for frame in frames]


def test_one_shot_needs_none() -> None:
    assert required(scene(1, 48)) == []


def test_every_shot_has_one_the_longest_first() -> None:
    assert required(black(24), scene(1, 48)) == [1, 0]
    assert required(black(48), scene(1, 24)) == [0, 1]
    assert required(black(12), scene(2, 12), scene(1, 96)) == [2, 0, 1]


def test_shots_that_look_alike_share_one() -> None:
    a, b = scene(1, 30), scene(2, 40)
    assert required(a, b, a, b, a) == [0, 1]
    assert required(a[:15], a[15:]) == []  # a jump cut


def test_flashes_need_none() -> None:
    assert required(scene(1, 24), black(3), scene(1, 24), shots=[0]) == []
    assert required(scene(1, 24), black(3), scene(1, 24)) == []


def test_a_fade_from_black_within_a_shot_needs_one_for_black() -> None:
    fading = np.concatenate([scene(1, 1, level) for level in np.linspace(0, 0.9, 24)])
    found = required(black(24), fading, scene(1, 48), shots=[0])
    assert found[0] == 2  # not a frame of the fade
    assert 0 in found
    assert 2 <= len(found) <= 5


def test_movement_within_a_shot_needs_none() -> None:
    """Even if nothing is where it was."""
    assert required(scene(1, 24), scene(2, 24), shots=[0]) == []


def test_no_more_than_a_library_holds() -> None:
    parts = [scene(seed, 6) for seed in range(CAPACITY + 8)]
    assert len(required(*parts)) == CAPACITY


@pytest.mark.parametrize("count", [1, 2, 5])
def test_very_short_clips_need_none(count: int) -> None:
    assert required(scene(1, count)) == []
