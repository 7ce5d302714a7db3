"""Joining over a shaped link on the simulated clock."""

import numpy as np
import pytest

pytest.importorskip("aiortc")

from iwcodec.benchmarks.call.participants import Camera
from iwcodec.benchmarks.call.webrtc_call import join_simulated
from support.codec.stub_runtime import StubRuntime

pytestmark = pytest.mark.usefixtures("every_picture_has_a_face")


def noise() -> Camera:
    """A camera whose sources take 2.5 KB, like pictures of a face."""
    rng = np.random.default_rng(5)
    return Camera([rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)], StubRuntime())


def test_first_picture_after_joining() -> None:
    """Real ICE and DTLS over 30 kbps and 100 ms; the simulated time is the same in every run."""
    first, second = (join_simulated(StubRuntime(), noise(), 30.0, 0.05) for _ in range(2))
    assert first["first_picture_s"] < 2.0
    assert first["first_picture_s"] == pytest.approx(second["first_picture_s"], abs=0.02)
    wide = join_simulated(StubRuntime(), noise(), 1000.0, 0.05)
    assert 0.5 < wide["channels_open_s"] < wide["first_picture_s"] < first["first_picture_s"]
