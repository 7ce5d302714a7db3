"""Ablation: variants are trained equally and differ only in the parts they omit."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from iwcodec.benchmarks.quality import ablation
from iwcodec.benchmarks.quality.ablation import VARIANTS, plan, run
from support.models.training_clips import write_data


def test_variants_differ_only_in_their_switches() -> None:
    plans = {name: plan("lite", 10, 64, switches) for name, switches in VARIANTS.items()}
    full = asdict(plans["all parts"].model)
    for name, settings in plans.items():
        assert settings.stages == plans["all parts"].stages
        assert settings.seed == plans["all parts"].seed
        changed = {key for key, value in asdict(settings.model).items() if value != full[key]}
        assert changed == set(VARIANTS[name])


@pytest.mark.parametrize(("config", "size"), [("light", 64), ("lite", 96)])
def test_invalid_arguments_raise(config: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"light|96"):
        plan(config, 10, size, {})


def test_variants_are_trained_evaluated_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", ("train", "val"), 12)
    monkeypatch.setattr(ablation, "VARIANTS", {"all parts": {}, "no residual": {"residual": False}})
    first = run(data, 2, 64, "tiny", tmp_path / "cache", tmp_path / "runs")
    assert [(row["variant"], row["sources"]) for row in first["results"]] == [
        (name, count) for name in ("all parts", "no residual") for count in (1, 3)
    ]
    assert all(5 < row["psnr_db"] < 60 and 5 < row["copy_db"] < 60 for row in first["results"])
    assert first["samples"] == 24
    again = run(data, 2, 64, "tiny", tmp_path / "cache", tmp_path / "runs")
    assert again["results"] == first["results"]


def test_interrupted_training_is_not_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.models.training.train.train", lambda *_, **__: SimpleNamespace(finished=False))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 2, 64, "tiny", tmp_path / "cache", tmp_path / "runs")
