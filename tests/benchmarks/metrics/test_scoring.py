"""Metrics by name: the scores of a clip, and a clear message for each metric that is unavailable."""

from pathlib import Path

import numpy as np
import pytest

from iwcodec.benchmarks.metrics import scoring
from iwcodec.benchmarks.metrics.fidelity import luma, ms_ssim, psnr_y, ssim
from iwcodec.benchmarks.metrics.scoring import METRICS, Clip, make_scorer, measure
from iwcodec.benchmarks.plots import AXES, LOWER_IS_BETTER
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import Picture
from support.metrics.pictures import noisy, shifted, texture
from support.metrics.small_backbones import use_small_backbones


def clip(seed: int, count: int = 2) -> list[Picture]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(count)]


def test_scorer_returns_the_requested_scores() -> None:
    scorer = make_scorer(["ssim", "psnr"])
    scores = scorer(Clip(clip(0), clip(1), 25))
    assert set(scores) == scorer.columns == {"psnr_rgb", "psnr_y", "ssim"}
    expected = measure(clip(0), clip(1), ("psnr", "ssim"))
    assert scores == {name: round(value or 0, 4) for name, value in expected.items()}


def test_metric_without_weights_is_reported_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IWCODEC_WEIGHTS", str(tmp_path))
    scorer = make_scorer(["psnr", "lpips"])
    assert scorer.available == ["psnr"]
    assert "alexnet" in scorer.missing["lpips"]
    with pytest.raises(CodecError, match="alexnet"):
        make_scorer(["lpips"])


def test_learned_metrics_give_their_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    use_small_backbones(tmp_path, monkeypatch)
    scorer = make_scorer(["lpips", "dists"])
    originals, decoded = [texture(64)] * 2, [noisy(texture(64), 9)] * 2
    same, other = (scorer(Clip(originals, pictures, 25)) for pictures in (originals, decoded))
    assert same == {"lpips_alex": 0, "lpips_vgg": 0, "dists": 0}
    assert other.keys() == scorer.columns == same.keys()
    assert all(value is not None and value > 0 for value in other.values())
    assert same.keys() <= AXES.keys() & set(LOWER_IS_BETTER)


def test_vmaf_is_averaged_over_the_clip() -> None:
    pytest.importorskip("imageio_ffmpeg")
    scorer = make_scorer(["psnr", "vmaf"])
    if scorer.missing:
        pytest.skip(scorer.missing["vmaf"])
    originals = [np.kron(p, np.ones((4, 4, 1), np.uint8)) for p in clip(0)]
    same, other = (scorer(Clip(originals, decoded, 25))["vmaf"] for decoded in (originals, originals[::-1]))
    assert same > 80 > other


def test_unknown_metric_is_rejected() -> None:
    with pytest.raises(CodecError, match=r"'pnsr'.*psnr"):
        make_scorer(["pnsr"])
    assert {"psnr", "vmaf", "lpips", "dists", "akd", "expression"} <= METRICS.keys()


def test_measure_is_the_mean_over_the_clip() -> None:
    originals = [shifted(texture(), dx) for dx in (0, 1, 2)]
    decoded = [noisy(p, 5, seed) for seed, p in enumerate(originals)]
    scores = measure(iter(originals), iter(decoded))
    pairs = [(luma(a), luma(b)) for a, b in zip(originals, decoded, strict=True)]
    assert scores["psnr_y"] == pytest.approx(np.mean([psnr_y(a, b) for a, b in pairs]))
    assert scores["ssim"] == pytest.approx(np.mean([ssim(a, b) for a, b in pairs]))
    assert scores["ms_ssim"] == pytest.approx(np.mean([ms_ssim(a, b) for a, b in pairs]))
    assert 0 < (scores["psnr_rgb"] or 0) < (scores["psnr_y"] or 0)
    assert scores["motion_error"] is not None
    small = measure([texture(64)], [texture(64)])
    assert [small[column] for column in ("ms_ssim", "flicker", "motion_error")] == [None, None, None]
    assert small["psnr_rgb"] == 60


def test_measure_returns_only_the_requested_metrics() -> None:
    pictures = [texture(64)] * 2
    assert measure(pictures, pictures, ("ssim",)) == {"ssim": pytest.approx(1)}
    assert set(measure(pictures, pictures, ("psnr", "motion"))) == {"psnr_rgb", "psnr_y", "motion_error"}


def test_motion_is_measured_on_every_fifth_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[int] = []

    def recorded(originals: tuple[Picture, Picture], decoded: tuple[Picture, Picture]) -> float:
        pairs.append(int(originals[0][0, 0, 0]))
        return float(originals[1][0, 0, 0])

    monkeypatch.setattr(scoring, "motion_error", recorded)
    levels = [np.full((16, 16, 3), level, np.uint8) for level in range(12)]
    assert measure(levels, levels, ("motion",)) == {"motion_error": 6}
    assert pairs == [0, 5, 10]


def test_measure_rejects_clips_of_different_length() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        measure([texture()] * 2, [texture()])
    with pytest.raises(ValueError, match="no pictures"):
        measure([], [])
