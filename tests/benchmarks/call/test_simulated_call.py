"""Simulated calls: bytes by layer, quality, outages, planned sources and seeds."""

import pytest

pytest.importorskip("aiortc")

from iwcodec.benchmarks.call.participants import Camera
from iwcodec.benchmarks.call.simulated_call import scenario, steady
from stub_runtime import StubRuntime, picture


@pytest.fixture(autouse=True)
def _every_picture_has_a_face(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("iwcodec.client.video.video_sender.FaceDetector.detect", lambda self, picture: [picture])


def camera() -> Camera:
    return Camera([picture(100 + 2 * n) for n in range(30)], StubRuntime())


def test_layers_add_up_to_the_packets():
    """The transport's counts by layer sum to the bytes that the path carried."""
    result = steady(StubRuntime(), camera(), 12.0)
    kbps = dict(result["kbps"])
    assert kbps.pop("total") == pytest.approx(sum(kbps.values()))
    assert set(kbps) == {"motion", "sources", "control", "acknowledgements", "sctp", "dtls", "udp_ip"}
    assert kbps["udp_ip"] == pytest.approx(28 * kbps["dtls"] / 29)
    assert 6 < sum(kbps.values()) < 12
    assert result["frames_shown_per_s"] == pytest.approx(25, abs=1)


def test_quality_is_that_of_the_displayed_pictures():
    """The stub reconstructs brightness: close to the camera's until frames stop arriving."""
    whole = scenario(StubRuntime(), camera(), 12.0, {"delay_s": 0.02})
    lossy = scenario(StubRuntime(), camera(), 12.0, {"delay_s": 0.02}, (7.0, 12.0))
    assert whole["psnr_db"] > lossy["psnr_db"] + 3
    assert whole["longest_hold_s"] < 0.1


def test_call_recovers_after_an_outage():
    result = scenario(StubRuntime(), camera(), 14.0, {"delay_s": 0.02}, (7.0, 9.0))
    assert 0 < result["back_after_s"] < 1


def test_planned_sources_are_the_same_frames():
    free = scenario(StubRuntime(), camera(), 12.0, {"delay_s": 0.02})
    lossy = scenario(StubRuntime(), camera(), 12.0, {"delay_s": 0.02, "loss": 0.3}, plan=free["sources_at_s"])
    assert len(free["sources_at_s"]) > 1
    assert lossy["sources_at_s"] == pytest.approx(free["sources_at_s"])
