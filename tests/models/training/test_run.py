"""One training run: steps, frozen parts, start weights and checkpoints."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from iwcodec import models
from iwcodec.models.network.config import TINY, ModelConfig
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.training import run as run_module
from iwcodec.models.training.config import Stage, TrainConfig, load_config
from iwcodec.models.training.losses import LossWeights
from iwcodec.models.training.run import Run, learning_rate
from support.models.training_stages import ADVERSARIAL, identical, one_batch, stage


def test_losses_fall_on_one_batch(tmp_path: Path) -> None:
    run = Run(TrainConfig(TINY, (stage(40),)), tmp_path / "run", "cpu")
    plan = stage(40, learning_rate=3e-3, warmup=1)
    totals = []
    for run.step in range(25):
        totals.append(run.train_step(run.objective, one_batch(), plan)["total"])
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])


def test_motion_only_stage_trains_only_what_finds_motion(tmp_path: Path) -> None:
    plan = stage(5, learning_rate=3e-3, warmup=1, motion_only=True, weights=LossWeights(prior=1.0))
    run = Run(TrainConfig(TINY, (plan,)), tmp_path / "run", "cpu")
    before = {name: value.clone() for name, value in run.network.named_parameters()}
    losses = run.train_step(run.objective, one_batch(), plan)
    assert set(losses) == {"prior", "fit", "equivariance", "total"}
    changed = {name.split(".")[0] for name, value in run.network.named_parameters() if not value.equal(before[name])}
    assert "detector" in changed
    assert not changed & {"decoder", "query_net", "value_net"}


def twenty_steps(
    config: ModelConfig, plan: Stage, folder: Path
) -> tuple[Run, dict[str, torch.Tensor], list[dict[str, float]]]:
    """Train for 20 steps: return the run, the weights before it, and the losses."""
    run = Run(TrainConfig(config, (plan,)), folder / "run", "cpu")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.set_trainable(plan)
    return run, before, [run.train_step(run.objective, one_batch(), plan) for run.step in range(20)]


def test_motion_basis_can_be_trained_alone(tmp_path: Path) -> None:
    weights = LossWeights(fit=1.0, equivariance=0.0)
    plan = stage(30, learning_rate=3e-3, warmup=1, motion_only=True, only="basis_net", weights=weights)
    run, before, losses = twenty_steps(TINY, plan, tmp_path)
    assert set(losses[0]) == {"fit", "total"}
    assert losses[-1]["fit"] < losses[0]["fit"]
    changed = {name for name, value in run.network.state_dict().items() if not value.equal(before[name])}
    assert {name.split(".")[0] for name in changed} == {"basis_net"}


def test_frozen_batch_norms_do_not_change(tmp_path: Path) -> None:
    plan = stage(5, warmup=1, keep_norms=True)
    run = Run(TrainConfig(TINY, (plan,)), tmp_path / "run", "cpu")
    before = {name: value.clone() for name, value in run.network.named_buffers()}
    weights = {name: value.clone() for name, value in run.network.named_parameters()}
    run.train_step(run.objective, one_batch(), plan)
    assert before
    assert all(value.equal(before[name]) for name, value in run.network.named_buffers())
    assert any(not value.equal(weights[name]) for name, value in run.network.named_parameters())


WITH_UP_BLOCK = replace(TINY, size=128, up_blocks=1)


UP_BLOCK_PARAMETERS = {f"{layer}.{kind}" for layer in ("enter", "see", "out") for kind in ("weight", "bias")}


def test_up_block_can_be_trained_alone(tmp_path: Path) -> None:
    plan = stage(30, learning_rate=3e-3, warmup=1, only="decoder.up", fitted=0.5)
    run, before, losses = twenty_steps(WITH_UP_BLOCK, plan, tmp_path)
    assert set(losses[0]) == {"l1", "total"}
    assert losses[-1]["l1"] < losses[0]["l1"]
    for weights in (run.network.state_dict(), run.average.state_dict()):
        changed = {name for name, value in weights.items() if not value.equal(before[name])}
        assert changed == {f"decoder.up.0.{part}" for part in UP_BLOCK_PARAMETERS}


def test_start_weights_may_lack_the_up_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = ImplicitWarp(TINY).state_dict()
    monkeypatch.setattr(run_module, "load_weights", lambda name, folder: (TINY, shipped))
    run = Run(TrainConfig(WITH_UP_BLOCK, (stage(1),), start="tiny-64"), tmp_path / "run", "cpu")
    weights = run.network.state_dict()
    assert all(weights[name].equal(value) for name, value in shipped.items())


def test_parameters_of_another_shape_keep_their_initialisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = ImplicitWarp(replace(TINY, basis_widths=(4, 8))).state_dict()
    monkeypatch.setattr(run_module, "load_weights", lambda name, folder: (TINY, shipped))
    weights = Run(TrainConfig(TINY, (stage(1),), start="tiny-64"), tmp_path / "run", "cpu").network.state_dict()
    same = {name for name, value in shipped.items() if weights[name].equal(value)}
    assert {name.split(".")[0] for name in shipped.keys() - same} == {"basis_net"}


def test_start_weights_with_unknown_parameters_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "load_weights", lambda name, folder: (TINY, {"tail.weight": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"tail\.weight"):
        Run(TrainConfig(TINY, (stage(1),), start="tiny-64"), tmp_path / "run", "cpu")


def test_stage_that_trains_nothing_is_refused(tmp_path: Path) -> None:
    run = Run(TrainConfig(TINY, (stage(1),)), tmp_path / "run", "cpu")
    with pytest.raises(ValueError, match="begins with"):
        run.set_trainable(stage(1, only="decoder.up"))
    run.set_trainable(stage(1))
    assert all(parameter.requires_grad for parameter in run.network.parameters())


def test_adversarial_stage_trains_both_networks(tmp_path: Path) -> None:
    weights = LossWeights(adversarial=0.1, feature_matching=1.0)
    plan = stage(5, weights=weights)
    run = Run(TrainConfig(TINY, (plan,)), tmp_path / "run", "cpu")
    before = [p.detach().clone() for p in run.discriminator.parameters()]
    losses = run.train_step(run.objective, one_batch(), plan)
    assert {"adversarial", "feature_matching", "critic"} <= set(losses)
    assert any(not torch.equal(a, b) for a, b in zip(before, run.discriminator.parameters(), strict=True))


@pytest.mark.parametrize("weights", [LossWeights(), ADVERSARIAL], ids=["plain", "adversarial"])
def test_resumed_run_is_identical(tmp_path: Path, weights: LossWeights) -> None:
    plan = stage(50, weights=weights, fitted=0.5, noise=0.01)
    config = TrainConfig(TINY, (plan,))
    straight = Run(config, tmp_path / "run", "cpu")
    for straight.step in range(3):
        straight.train_step(straight.objective, one_batch(), plan)
    straight.step = 3
    straight.save()
    resumed = Run(config, tmp_path / "run", "cpu")
    assert (resumed.stage, resumed.step) == (0, 3)
    for step in range(3, 6):
        straight.step = resumed.step = step
        losses = [run.train_step(run.objective, one_batch(), plan) for run in (straight, resumed)]
        assert losses[0] == losses[1]
    for name in ("network", "average", "optimizer", "discriminator", "critic_optimizer"):
        states = [getattr(run, name) and getattr(run, name).state_dict() for run in (straight, resumed)]
        assert identical(*states), name
    assert (resumed.discriminator is not None) == bool(weights.adversarial)


def test_checkpoint_of_another_network_or_damaged_is_refused(tmp_path: Path) -> None:
    config = TrainConfig(TINY, (stage(1),))
    Run(config, tmp_path, "cpu").save()
    with pytest.raises(ValueError, match="another network"):
        Run(replace(config, model=replace(TINY, dim=4)), tmp_path, "cpu")
    intact = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(intact[: len(intact) // 2])
    with pytest.raises(ValueError, match="damaged"):
        Run(config, tmp_path, "cpu")


def test_learning_rate_warms_up_and_decays() -> None:
    plan = stage(100, learning_rate=1.0, warmup=10, final=0.1)
    rates = [learning_rate(plan, step) for step in (0, 9, 50, 100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert rates[1] > 0.95
    assert rates[3] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "file", sorted((Path(models.__file__ or "").parent / "configs").glob("*.toml")), ids=lambda file: file.stem
)
def test_every_stage_of_the_shipped_configs_takes_a_step(file: Path, tmp_path: Path) -> None:
    """With the full network, on small pictures."""
    config = load_config(file)
    if any(plan.weights.perceptual for plan in config.stages):
        pytest.importorskip("efficientnet_lite_pytorch")
    run = Run(config, tmp_path / "run", "cpu")
    for plan in config.stages:
        run.set_trainable(plan)
        before = [value.detach().clone() for value in run.network.parameters()]
        losses = run.train_step(
            run.objective, one_batch(), replace(plan, perceptual_side=min(32, plan.perceptual_side))
        )
        assert all(math.isfinite(value) for value in losses.values()), (plan.name, losses)
        assert any(not a.equal(b) for a, b in zip(before, run.network.parameters(), strict=True)), plan.name
        expected = {name for name in ("perceptual", "adversarial", "feature_matching") if getattr(plan.weights, name)}
        assert expected <= set(losses)
