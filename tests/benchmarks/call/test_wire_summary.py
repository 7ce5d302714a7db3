"""Averages over clips and seeds."""

from copy import deepcopy

import pytest

pytest.importorskip("aiortc")

from iwcodec.benchmarks.call.participants import Camera
from iwcodec.benchmarks.call.simulated_call import scenario, seeded
from iwcodec.benchmarks.call.wire_summary import averages
from support.codec.stub_runtime import StubRuntime, picture

pytestmark = pytest.mark.usefixtures("every_picture_has_a_face")


def camera() -> Camera:
    return Camera([picture(100 + 2 * n) for n in range(30)], StubRuntime())


def test_seeds_differ_and_are_averaged_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.benchmarks.call.simulated_call.SETTLED_S", 1.0)
    call = {"clip": "0", "no loss": scenario(StubRuntime(), camera(), 3.0, {})}
    call["10 % loss"] = seeded(StubRuntime(), camera(), 3.0, {"loss": 0.1}, 2, call)
    calls = [call, {**deepcopy(call), "clip": "1"}]
    calls[1]["no loss"]["psnr_db"] += 1.0
    first, second = calls[0]["10 % loss"]["runs"]
    assert first != second
    assert {"psnr_db", "psnr_db_at_equal_sources"} <= set(first)
    means = averages(calls)
    of = means["10 % loss"]
    assert of["psnr_db"]["mean"] == pytest.approx((first["psnr_db"] + second["psnr_db"]) / 2)
    base = calls[0]["no loss"]["psnr_db"] + 0.5
    assert of["psnr_db_to_no_loss"]["mean"] == pytest.approx(of["psnr_db"]["mean"] - base)
    assert of["psnr_db_to_no_loss"]["standard_error"] == pytest.approx(0.5)
