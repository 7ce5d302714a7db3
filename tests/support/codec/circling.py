"""A test clip of a textured patch moving in a circle, and its survey by the stub network."""

import math

import numpy as np

from iwcodec.codec.file.rate_control.source_selection import Survey, thumbnail
from support.codec.stub_runtime import SIZE, StubRuntime

COUNT = 90


def clip() -> list[np.ndarray]:
    """COUNT pictures in which every frame differs slightly from the previous one."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.float32)
    for _ in range(6):
        texture = (texture + np.roll(texture, 1, 0) + np.roll(texture, 1, 1)) / 3
    texture = ((texture - texture.min()) / np.ptp(texture) * 255).astype(np.uint8)
    turns = [2 * math.pi * n / 45 for n in range(COUNT)]
    return [np.roll(texture, (round(9 * math.cos(t)), round(9 * math.sin(t))), (0, 1)) for t in turns]


PICTURES = clip()
SURVEY = Survey(np.stack([thumbnail(p) for p in PICTURES]), np.stack([StubRuntime().detect(p) for p in PICTURES]))
