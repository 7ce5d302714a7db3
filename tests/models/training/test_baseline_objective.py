"""Training of the baselines by the same code as the network."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.baselines.networks import BASELINES
from iwcodec.models.network.config import TINY
from iwcodec.models.training.config import TrainConfig
from iwcodec.models.training.losses import LossWeights
from iwcodec.models.training.run import Run
from support.models.training_stages import one_batch, stage


@pytest.mark.parametrize("name", BASELINES)
def test_losses_fall_on_one_batch(name: str, tmp_path: Path) -> None:
    plan = stage(6, learning_rate=3e-3, warmup=1, weights=LossWeights(equivariance=1.0))
    run = Run(TrainConfig(TINY, (plan,), baseline=name), tmp_path / "run", "cpu")
    losses = []
    for run.step in range(6):
        losses.append(run.train_step(run.objective, one_batch(), plan))
    assert set(losses[0]) == {"l1", "decibels", "equivariance", "total"}
    assert losses[-1]["l1"] < 0.98 * losses[0]["l1"]


def test_a_checkpoint_is_resumed_by_its_own_network_only(tmp_path: Path) -> None:
    plan = stage(1)
    run = Run(TrainConfig(TINY, (plan,), baseline="fomm"), tmp_path / "run", "cpu")
    run.step = 1
    run.save()
    assert Run(TrainConfig(TINY, (plan,), baseline="fomm"), tmp_path / "run", "cpu").step == 1
    for other in ("aa-pca", None):
        with pytest.raises(ValueError, match="another network"):
            Run(TrainConfig(TINY, (plan,), baseline=other), tmp_path / "run", "cpu")
