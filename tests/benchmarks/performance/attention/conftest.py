"""Fixtures of the tests of attention."""

from typing import TYPE_CHECKING

import pytest

from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from iwcodec.models.network.network import ImplicitWarp


@pytest.fixture(scope="session")
def network() -> "ImplicitWarp":
    """A small untrained network."""
    torch = pytest.importorskip("torch")
    from iwcodec.models.network.config import TINY
    from iwcodec.models.network.network import ImplicitWarp

    torch.manual_seed(2)
    return ImplicitWarp(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def pictures() -> list[Picture]:
    from iwcodec.benchmarks.performance.attention.cases import clip_pictures
    from iwcodec.models.network.config import TINY

    return clip_pictures(TINY.size, 2)
