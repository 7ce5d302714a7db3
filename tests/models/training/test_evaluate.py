"""Validation scores."""

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.network.config import TINY
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.training.evaluate import Score, evaluate, means, picture_grid, psnr, source_indices
from support.models.training_clips import moving_square


def test_psnr_of_known_errors() -> None:
    picture = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(picture, picture) == 60
    assert psnr(picture, picture + 5) == pytest.approx(20 * math.log10(255 / 5))


def test_sources_are_evenly_spaced() -> None:
    assert source_indices(9, 1) == [0]
    assert source_indices(9, 3) == [0, 4, 8]


def test_evaluate_scores_every_clip_and_number_of_sources(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = ImplicitWarp(TINY)
    clips = {"a": np.stack(moving_square(5, 1)), "b": np.stack(moving_square(5, 2))}
    scores = evaluate(network, clips, (1, 3), 64)
    assert [(score.clip, score.sources) for score in scores] == [("a", 1), ("a", 3), ("b", 1), ("b", 3)]
    assert all(math.isfinite(value) for score in scores for value in (score.model, score.fitted, score.misses))
    picture_grid(network, clips, 64, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").exists()


def test_means_skip_what_was_not_measured() -> None:
    scores = [Score("a", 1, 20.0, 19.0, 18.0, 21.0, math.nan), Score("b", 1, 22.0, 19.0, 18.0, 21.0, math.nan)]
    assert means(scores) == {"1": {"model": 21.0, "fitted": 21.0, "base": 19.0, "copy": 18.0, "misses": None}}
