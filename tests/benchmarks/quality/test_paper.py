"""The paper's comparison: equal trainings, and scores by number of sources."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.metrics.scoring import make_scorer
from iwcodec.benchmarks.quality import paper
from iwcodec.benchmarks.quality.paper import Plan
from iwcodec.models.baselines.networks import BASELINES
from iwcodec.models.network.config import TINY
from support.models.training_clips import write_data


def test_trainings_differ_in_the_network_alone() -> None:
    names = (*BASELINES, *paper.ABLATIONS)
    configs = dict(zip(names, (paper.config(name, Plan(10)) for name in names), strict=True))
    assert [config.baseline for config in configs.values()] == [*BASELINES, *[None] * len(paper.ABLATIONS)]
    assert len({(config.stages, config.seed) for config in configs.values()}) == 1
    assert configs["fomm"].stages[0].plan.max_sources == 2
    full = asdict(configs["lite"].model)
    for name, config in configs.items():
        changed = {key for key, value in asdict(config.model).items() if value != full[key]}
        assert changed == set(paper.ABLATIONS.get(name, ()))


class NoPerceptualLoss(torch.nn.Module):
    source = "nothing"

    def forward(self, picture: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return picture.new_zeros(())


def test_networks_are_trained_evaluated_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", ("train", "val"), 12)
    monkeypatch.setattr("iwcodec.models.network.config.LITE", TINY)
    monkeypatch.setattr("iwcodec.models.training.run.PerceptualLoss", NoPerceptualLoss)
    monkeypatch.setattr(paper, "METRICS", ("psnr",))
    trained = ("fomm", "implicit-warping", "lite-neither")
    first = paper.run(data, Plan(2, 1), 8, tmp_path / "cache", tmp_path / "runs", trained)
    names = ["copy of the nearest source", *trained]
    assert [(row["network"], row["sources"]) for row in first["results"]] == [(n, c) for n in names for c in (1, 2, 3)]
    assert all(row["scores"]["psnr_rgb"] > 5 and row["scores"]["l1"] > 0 for row in first["results"])
    assert (first["samples"], first["clips"]) == (2, 1)
    assert set(first["networks"]) == set(trained)
    again = paper.run(data, Plan(2, 1), 8, tmp_path / "cache", tmp_path / "runs", trained)
    assert again["results"] == first["results"]
    assert paper.table(first).row_count == 12


def test_more_sources_are_copied_at_least_as_well() -> None:
    pictures = [np.full((8, 8, 3), value, np.uint8) for value in (10, 100, 200)]
    originals = [np.full((8, 8, 3), value, np.uint8) for value in (110, 20)]
    assert [int(copy[0, 0, 0]) for copy in paper.copies(originals, pictures)] == [100, 10]
    scores = paper.score(originals, paper.copies(originals, pictures), make_scorer(["psnr"]))
    assert scores["l1"] == 10


def test_scores_that_a_clip_lacks_are_left_out_of_the_mean() -> None:
    assert paper.means([{"akd": None, "l1": 1.0}, {"akd": 2.0, "l1": 2.0}]) == {"akd": 2.0, "l1": 1.5}
    assert paper.means([{"akd": None}]) == {"akd": None}


def test_interrupted_training_is_not_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.models.training.train.train", lambda *_, **__: SimpleNamespace(finished=False))
    with pytest.raises(KeyboardInterrupt):
        paper.run(tmp_path, Plan(2), 8, tmp_path / "cache", tmp_path / "runs", ["fomm"])
    with pytest.raises(ValueError, match="'formm'"):
        paper.run(tmp_path, Plan(2), 8, tmp_path / "cache", tmp_path / "runs", ["formm"])
