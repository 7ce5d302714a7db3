"""Simulated calls: bytes by layer, quality, outages, planned sources and seeds."""

from typing import Any

import pytest

from iwcodec.benchmarks.call.participants import Camera
from iwcodec.benchmarks.call.simulated_call import scenario, steady
from support.codec.stub_runtime import StubRuntime, picture

pytestmark = pytest.mark.usefixtures("every_picture_has_a_face")


def camera() -> Camera:
    return Camera([picture(100 + 2 * n) for n in range(30)], StubRuntime())


@pytest.fixture(scope="module")
def undisturbed(every_picture_has_a_face: None) -> dict[str, Any]:
    """A call of 9 s without loss."""
    return scenario(StubRuntime(), camera(), 9.0, {"delay_s": 0.02})


def test_layers_add_up_to_the_packets() -> None:
    """The transport's counts by layer sum to the bytes that the path carried."""
    result = steady(StubRuntime(), camera(), 10.0)
    kbps = dict(result["kbps"])
    assert kbps.pop("total") == pytest.approx(sum(kbps.values()))
    assert set(kbps) == {"motion", "sources", "control", "acknowledgements", "sctp", "dtls", "udp_ip"}
    assert kbps["udp_ip"] == pytest.approx(28 * kbps["dtls"] / 29)
    assert 6 < sum(kbps.values()) < 12
    assert result["frames_shown_per_s"] == pytest.approx(25, abs=1)


def test_quality_is_that_of_the_displayed_pictures(undisturbed: dict[str, Any]) -> None:
    """The stub reconstructs brightness: close to the camera's until frames stop arriving."""
    lossy = scenario(StubRuntime(), camera(), 9.0, {"delay_s": 0.02}, (6.0, 9.0))
    assert undisturbed["psnr_db"] > lossy["psnr_db"] + 3
    assert undisturbed["longest_hold_s"] < 0.1


def test_call_recovers_after_an_outage() -> None:
    result = scenario(StubRuntime(), camera(), 10.0, {"delay_s": 0.02}, (6.0, 8.0))
    assert 0 < result["back_after_s"] < 1


def test_planned_sources_are_the_same_frames(undisturbed: dict[str, Any]) -> None:
    plan = undisturbed["sources_at_s"]
    lossy = scenario(StubRuntime(), camera(), 9.0, {"delay_s": 0.02, "loss": 0.3}, plan=plan)
    assert len(plan) > 1
    assert lossy["sources_at_s"] == pytest.approx(plan)
