"""`iwcodec serve` and two `iwcodec call` in network namespaces, over shaped links.

The bounds hold on a busy machine; `iwcodec bench wire --only namespaces` gives the actual figures.
"""

import pytest

from iwcodec.benchmarks.call import namespaces
from iwcodec.codec.media.video import sample_clip

REASON = namespaces.unavailable_reason()
pytestmark = [pytest.mark.realtime, pytest.mark.patient, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


@pytest.mark.parametrize("name", [name for name in namespaces.CASES if name != "10 % loss"])  # 30 % is harder
def test_a_call_over_a_shaped_link(name: str) -> None:
    """Time to the first pictures, counted from the first packet to the server; then live, with new frames."""
    result = namespaces.measure(sample_clip(), 9.0 if "loss" in name else 12.0, name)
    first = result["first_picture_s"]
    assert max(first.values()) < (45.0 if name == "30 % loss" else 20.0), result
    assert set(result["state"].values()) == {"live"}, result
    assert min(result["frames_per_s"].values()) > 0, result
    if name == "30 kbps, 100 ms":
        assert max(result["sent_kbps"].values()) < 30, result
    if name == "5 s outage":
        assert max(result["live_again_s"].values()) < 5, result
