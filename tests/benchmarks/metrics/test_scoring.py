"""benchmarks/scoring.py: metrics by name, and a clear word where one cannot be had."""

from pathlib import Path

import numpy as np
import pytest

from iwcodec.benchmarks.metrics import metrics
from iwcodec.benchmarks.metrics.scoring import METRICS, make_scorer
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import Picture


def clip(seed: int, count: int = 2) -> list[Picture]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(count)]


def test_scores_are_those_asked_for() -> None:
    scorer = make_scorer(["ssim", "psnr"])
    scores = scorer(clip(0), clip(1), 25)
    assert set(scores) == scorer.columns == {"psnr_rgb", "psnr_y", "ssim"}
    expected = metrics.measure(clip(0), clip(1), ("psnr", "ssim"))
    assert scores == {name: round(value or 0, 4) for name, value in expected.items()}


def test_a_metric_without_its_weights_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IWCODEC_METRIC_WEIGHTS", str(tmp_path))
    scorer = make_scorer(["psnr", "lpips", "fid"])
    assert scorer.able == ["psnr"]
    assert "alexnet" in scorer.missing["lpips"]
    assert "inception" in scorer.missing["fid"]
    with pytest.raises(CodecError, match="inception"):
        make_scorer(["fid"])


def test_vmaf_is_one_figure() -> None:
    pytest.importorskip("imageio_ffmpeg")
    scorer = make_scorer(["psnr", "vmaf"])
    if scorer.missing:
        pytest.skip(scorer.missing["vmaf"])
    originals = [np.kron(p, np.ones((4, 4, 1), np.uint8)) for p in clip(0)]
    same, other = (scorer(originals, decoded, 25)["vmaf"] for decoded in (originals, originals[::-1]))
    assert same is not None
    assert other is not None
    assert same > 80 > other


def test_unknown_names() -> None:
    with pytest.raises(CodecError, match=r"'pnsr'.*psnr"):
        make_scorer(["pnsr"])
    assert {"psnr", "vmaf", "lpips", "fid", "akd", "cvvdp"} <= METRICS.keys()
