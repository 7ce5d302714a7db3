"""Training: losses fall, a resumed run goes on where it stopped, two processes work together."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from typer.testing import CliRunner

from iwcodec.codec import cli
from iwcodec.codec.errors import CodecError
from iwcodec.models.network.config import TINY, ModelConfig
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.training import train as training
from iwcodec.models.training.data import SamplePlan
from iwcodec.models.training.losses import LossWeights
from iwcodec.models.training.train import Run, Stage, TrainConfig, learning_rate, load_config, same_square, train
from training_clips import write_clip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for n in range(3):
        write_clip(folder / "clips" / f"c{n}.mp4", 16, n)
    rows = "".join(f"c{n},{'val' if n == 2 else 'train'},p{n}\n" for n in range(3))
    (folder / "manifest.csv").write_text("id,split,identity\n" + rows)
    return folder


def stage(steps: int, **settings) -> Stage:
    return Stage("s", steps, SamplePlan(64, 2, 2, max_sources=2), validate_every=10**6, **settings)


def one_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    picture = torch.nn.functional.interpolate(
        torch.rand(4, 3, 6, 6, generator=generator), size=(64, 64), mode="bicubic"
    )
    picture = picture.clamp(0, 1)
    return {
        "driving": picture.unflatten(0, (2, 2)),
        "sources": picture.flip(0).unflatten(0, (2, 2)),
        "shift": torch.zeros(2, 2, 2, 32, 32, 2),
        "error": torch.full((2, 2, 2, 32, 32), 3.0),
        "driving_landmarks": torch.zeros(2, 2, 13, 3),
        "source_landmarks": torch.full((2, 2, 13, 3), torch.nan),
    }


def test_losses_fall_on_one_batch(tmp_path: Path):
    run = Run(TrainConfig(TINY, (stage(40),)), tmp_path / "run", "cpu")
    plan = stage(40, learning_rate=3e-3, warmup=1)
    totals = []
    for run.step in range(25):
        totals.append(run.train_step(run.objective, one_batch(), plan)["total"])
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])


def test_motion_only_stage_teaches_the_detector_alone(tmp_path: Path):
    plan = stage(5, learning_rate=3e-3, warmup=1, motion_only=True, weights=LossWeights(prior=1.0))
    run = Run(TrainConfig(TINY, (plan,)), tmp_path / "run", "cpu")
    before = {name: value.clone() for name, value in run.network.named_parameters()}
    losses = run.train_step(run.objective, one_batch(), plan)
    assert set(losses) == {"prior", "fit", "equivariance", "total"}
    moved = {name.split(".")[0] for name, value in run.network.named_parameters() if not value.equal(before[name])}
    assert "detector" in moved
    assert not moved & {"decoder", "query_net", "value_net"}


def twenty_steps(
    config: ModelConfig, plan: Stage, folder: Path
) -> tuple[Run, dict[str, torch.Tensor], list[dict[str, float]]]:
    """A run of them, the weights before it, and the losses."""
    run = Run(TrainConfig(config, (plan,)), folder / "run", "cpu")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.choose_learners(plan)
    return run, before, [run.train_step(run.objective, one_batch(), plan) for run.step in range(20)]


def test_motion_basis_learns_alone_to_carry_cells_where_they_went(tmp_path: Path):
    weights = LossWeights(fit=1.0, equivariance=0.0)
    plan = stage(30, learning_rate=3e-3, warmup=1, motion_only=True, only="basis_net", weights=weights)
    run, before, losses = twenty_steps(TINY, plan, tmp_path)
    assert set(losses[0]) == {"fit", "total"}
    assert losses[-1]["fit"] < losses[0]["fit"]
    moved = {name for name, value in run.network.state_dict().items() if not value.equal(before[name])}
    assert {name.split(".")[0] for name in moved} == {"basis_net"}


def test_norms_that_are_kept_do_not_change(tmp_path: Path):
    plan = stage(5, warmup=1, keep_norms=True)
    run = Run(TrainConfig(TINY, (plan,)), tmp_path / "run", "cpu")
    before = {name: value.clone() for name, value in run.network.named_buffers()}
    weights = {name: value.clone() for name, value in run.network.named_parameters()}
    run.train_step(run.objective, one_batch(), plan)
    assert before
    assert all(value.equal(before[name]) for name, value in run.network.named_buffers())
    assert any(not value.equal(weights[name]) for name, value in run.network.named_parameters())


GROWN = replace(TINY, size=128, up_blocks=1)
PARTS = {f"{layer}.{kind}" for layer in ("enter", "see", "out") for kind in ("weight", "bias")}


def test_an_up_block_learns_and_nothing_else_moves(tmp_path: Path):
    plan = stage(30, learning_rate=3e-3, warmup=1, only="decoder.up", fitted=0.5)
    run, before, losses = twenty_steps(GROWN, plan, tmp_path)
    assert set(losses[0]) == {"l1", "total"}
    assert losses[-1]["l1"] < losses[0]["l1"]
    for weights in (run.network.state_dict(), run.average.state_dict()):
        moved = {name for name, value in weights.items() if not value.equal(before[name])}
        assert moved == {f"decoder.up.0.{part}" for part in PARTS}


def test_an_up_block_starts_from_weights_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shipped = ImplicitWarp(TINY).state_dict()
    monkeypatch.setattr(training, "load_weights", lambda name, folder: (TINY, shipped))
    run = Run(TrainConfig(GROWN, (stage(1),), start="tiny-64"), tmp_path / "run", "cpu")
    weights = run.network.state_dict()
    assert all(weights[name].equal(value) for name, value in shipped.items())


def test_parts_of_another_shape_start_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shipped = ImplicitWarp(replace(TINY, basis_widths=(4, 8))).state_dict()
    monkeypatch.setattr(training, "load_weights", lambda name, folder: (TINY, shipped))
    weights = Run(TrainConfig(TINY, (stage(1),), start="tiny-64"), tmp_path / "run", "cpu").network.state_dict()
    same = {name for name, value in shipped.items() if weights[name].equal(value)}
    assert {name.split(".")[0] for name in shipped.keys() - same} == {"basis_net"}


def test_weights_of_parts_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "load_weights", lambda name, folder: (TINY, {"tail.weight": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"tail\.weight"):
        Run(TrainConfig(TINY, (stage(1),), start="tiny-64"), tmp_path / "run", "cpu")


def test_a_stage_in_which_nothing_learns_is_refused(tmp_path: Path):
    run = Run(TrainConfig(TINY, (stage(1),)), tmp_path / "run", "cpu")
    with pytest.raises(ValueError, match="begins with"):
        run.choose_learners(stage(1, only="decoder.up"))
    run.choose_learners(stage(1))
    assert all(parameter.requires_grad for parameter in run.network.parameters())


def test_the_same_square_of_all_pictures():
    pictures = torch.arange(64.0).view(1, 1, 8, 8)
    a, b = same_square(3, pictures, pictures + 100)
    assert a.shape == (1, 1, 3, 3)
    torch.testing.assert_close(a + 100, b)
    assert same_square(0, pictures)[0] is pictures


def test_adversarial_stage_trains_both_networks(tmp_path: Path):
    weights = LossWeights(adversarial=0.1, feature_matching=1.0)
    plan = stage(5, weights=weights)
    run = Run(TrainConfig(TINY, (plan,)), tmp_path / "run", "cpu")
    assert run.discriminator is not None
    before = [p.detach().clone() for p in run.discriminator.parameters()]
    found = run.train_step(run.objective, one_batch(), plan)
    assert {"adversarial", "feature_matching", "critic"} <= set(found)
    assert any(not torch.equal(a, b) for a, b in zip(before, run.discriminator.parameters(), strict=True))


ADVERSARIAL = LossWeights(adversarial=0.1, feature_matching=1.0)


def same(a: object, b: object) -> bool:
    """Equal to the last bit, all the way down."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("weights", [LossWeights(), ADVERSARIAL], ids=["plain", "adversarial"])
def test_resumed_run_gives_the_same_loss(tmp_path: Path, weights: LossWeights):
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
        kept = [getattr(run, name) and getattr(run, name).state_dict() for run in (straight, resumed)]
        assert same(*kept), name
    assert (resumed.discriminator is not None) == bool(weights.adversarial)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C in the middle of the third step; samples, noise, both optimisers and both networks go on."""
    config = TrainConfig(TINY, (stage(6, weights=ADVERSARIAL, fitted=0.5, noise=0.01),), cache_size=64)
    taken: list[dict[str, float]] = []
    interrupted_at: list[int] = []
    step = Run.train_step

    def recorded(run: Run, *given):
        if run.step in interrupted_at:
            signal.raise_signal(signal.SIGINT)
        taken.append(step(run, *given))
        return taken[-1]

    monkeypatch.setattr(Run, "train_step", recorded)
    train(config, clips, tmp_path / "cache", tmp_path / "straight", workers=0)
    straight, taken = taken, []
    interrupted_at.append(2)
    stopped = train(config, clips, tmp_path / "cache", tmp_path / "stopped", workers=0)
    assert (stopped.finished, stopped.stage, stopped.steps) == (False, 1, 3)
    checkpoint = tmp_path / "stopped" / "checkpoint.pt"
    assert torch.load(checkpoint, weights_only=True)["step"] == len(taken) == 3
    interrupted_at.clear()
    train(config, clips, tmp_path / "cache", tmp_path / "stopped", workers=0)
    assert taken == straight
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("straight", "stopped")]
    assert states[0]["stage"] == 1
    assert same(*states)


def test_train_validates_checkpoints_and_resumes(clips: Path, tmp_path: Path):
    out = tmp_path / "run"
    short = TrainConfig(replace(TINY, size=64), (replace(stage(3), validate_every=3),), cache_size=64)
    report = train(short, clips, tmp_path / "cache", out, workers=0)
    assert (out / "checkpoint.pt").exists()
    assert (report.checkpoint, report.finished, report.stage, report.steps) == (str(out / "checkpoint.pt"), True, 1, 3)
    assert {"l1", "total"} <= set(report.losses)
    assert set(report.validation) == {"1", "3"}
    record = json.loads((out / "val.jsonl").read_text().splitlines()[0])
    assert {s["sources"] for s in record["scores"]} == {1, 3}
    assert list(out.glob("grid-*.png"))
    log = (out / "log.txt").read_text()
    again = train(short, clips, tmp_path / "cache", out, workers=0)  # nothing is left to do
    assert (out / "log.txt").read_text() == log
    assert (again.finished, again.stage, again.steps, again.losses) == (True, 1, 0, {})


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path):
    config = TrainConfig(TINY, (stage(1),))
    Run(config, tmp_path, "cpu").save()
    with pytest.raises(ValueError, match="another network"):
        Run(replace(config, model=replace(TINY, dim=4)), tmp_path, "cpu")
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        Run(config, tmp_path, "cpu")


def test_clips_without_a_manifest_are_validated_on(tmp_path: Path):
    for n in range(2):
        write_clip(tmp_path / f"c{n}.mp4", 12, n)
    found = training.load_validation(tmp_path, 64)
    assert [pictures.shape for pictures in found.values()] == [(9, 64, 64, 3)]
    (tmp_path / "c0.mp4").unlink()
    assert training.load_validation(tmp_path, 64) == {}


RANK = """
import os, signal, sys
from pathlib import Path
import torch
from iwcodec.codec import cli
from iwcodec.models.training import train as training
runs, writes, save = [], [], torch.save
class Kept(training.Run):
    def __init__(self, *given):
        super().__init__(*given)
        runs.append(self)
    def train_step(self, *given):
        if (self.rank, self.step) == STOPPED:
            signal.raise_signal(signal.SIGINT)
        return super().train_step(*given)
training.Run = Kept
torch.save = lambda state, file: (writes.append(str(file)), save(state, file))
out = Path(sys.argv.pop(1))
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
run = runs[0]
weights = {name: dict(getattr(run, name).named_parameters()) for name in ("network", "average", "discriminator")}
save({"weights": weights, "losses": run.losses, "writes": writes}, out / f"rank{run.rank}.pt")
"""


def under_torchrun(clips: Path, folder: Path, stopped: tuple[int, int] | None) -> tuple[Path, str, str]:
    """Two processes of the command, adversarial losses and all; one of them, by rank and step, gets a Ctrl-C.
    -> config, stdout, stderr."""
    config, script = folder / "tiny.toml", folder / "rank.py"
    config.write_text(
        'model = "tiny"\ncache_size = 64\n[[stage]]\nname = "s"\nsteps = 3\nvalidate_every = 100\n'
        "plan = { size = 64, groups = 1, driving = 2, max_sources = 1 }\n"
        "weights = { adversarial = 0.1, feature_matching = 1.0 }\n"
    )
    script.write_text(f"STOPPED = {stopped}\n{RANK}")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, folder]
    command = ["train", config, "--data", clips, "--out", folder / "run", "--workers", "0", "--json"]
    done = subprocess.run(
        [sys.executable, *map(str, [*torchrun, *command])],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return config, done.stdout, done.stderr


def test_a_stop_of_one_process_stops_all_after_the_same_step(clips: Path, tmp_path: Path):
    _, stdout, _ = under_torchrun(clips, tmp_path, (1, 1))
    report = json.loads(stdout)
    assert (report["finished"], report["steps"]) == (False, 2)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert (state["stage"], state["step"]) == (0, 2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert same(ranks[0]["weights"], ranks[1]["weights"])
    assert [len(rank["writes"]) for rank in ranks] == [1, 0]


def test_two_gloo_processes(clips: Path, tmp_path: Path):
    config, stdout, stderr = under_torchrun(clips, tmp_path, None)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["stage"] == 1
    report = json.loads(stdout)  # of one process
    assert (report["finished"], report["steps"], report["stage"]) == (True, 3, 1)
    assert report["checkpoint"] == str(tmp_path / "run" / "checkpoint.pt")
    assert report["seconds"] > 0
    assert {"l1", "adversarial", "critic", "total"} <= set(report["losses"])
    assert report["validation"]["3"].keys() == {"model", "fitted", "base", "copy", "misses"}
    assert "val s 3 at 64" in stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert same(ranks[0]["weights"], ranks[1]["weights"])
    for name in ("network", "discriminator"):
        assert all(torch.equal(value, state[name][key]) for key, value in ranks[1]["weights"][name].items())
    fresh = Run(load_config(config), tmp_path / "fresh", "cpu").network
    assert not same(dict(fresh.named_parameters()), ranks[0]["weights"]["network"])
    assert ranks[0]["losses"] != ranks[1]["losses"]  # each has clips of its own
    assert ranks[0]["writes"] == [str(tmp_path / "run" / "checkpoint.partial")]
    assert ranks[1]["writes"] == []
    assert len((tmp_path / "run" / "val.jsonl").read_text().splitlines()) == 1


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch):
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert (training.own_device("cuda"), training.own_device("cuda:1"), training.own_device("cpu")) == (
        "cuda",
        "cuda:1",
        "cpu",
    )
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (training.own_device("cuda"), training.own_device("cpu"), chosen) == ("cuda:1", "cpu", [1])
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="there are 2"):
        training.own_device("cuda")


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        training.own_device("cuda")
    with pytest.raises(ValueError, match="no device 'gpu'"):
        training.own_device("gpu")


def test_the_command_says_what_is_wrong_in_a_sentence(tmp_path: Path):
    command = ["train", "lite", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    for more, said in ((["--device", "gpu"], "no device 'gpu'"), ([], "no clips found")):
        result = CliRunner().invoke(cli.app, command + more)
        assert isinstance(result.exception, CodecError), result.exception
        assert said in str(result.exception)
        assert result.stdout == ""


def test_learning_rate_warms_up_and_decays():
    plan = stage(100, learning_rate=1.0, warmup=10, final=0.1)
    rates = [learning_rate(plan, step) for step in (0, 9, 50, 100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert rates[1] > 0.95
    assert rates[3] == pytest.approx(0.1)


def test_a_wrong_config_names_the_fault(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text('model = "huge"\nstage = []\n')
    with pytest.raises(ValueError, match="huge"):
        load_config(file)


CONFIG_FILES = sorted((Path(training.__file__).parents[1] / "configs").glob("*.toml"))


@pytest.mark.parametrize(("name", "size"), [("lite", 256), ("lite512", 512), ("paper", 512)])
def test_shipped_config_is_valid(name: str, size: int):
    config = load_config(Path(training.__file__).parents[1] / "configs" / f"{name}.toml")
    assert config.model.name == name
    assert [s.plan.size for s in config.stages][-1] == config.model.size == config.cache_size == size


@pytest.mark.parametrize("file", CONFIG_FILES, ids=lambda file: file.stem)
def test_every_stage_of_every_shipped_config_takes_a_step(file: Path, tmp_path: Path):
    """At its full width, on small pictures."""
    config = load_config(file)
    if any(plan.weights.perceptual for plan in config.stages):
        pytest.importorskip("efficientnet_lite_pytorch")
    run = Run(config, tmp_path / "run", "cpu")
    for plan in config.stages:
        run.choose_learners(plan)
        before = [value.detach().clone() for value in run.network.parameters()]
        losses = run.train_step(
            run.objective, one_batch(), replace(plan, perceptual_side=min(32, plan.perceptual_side))
        )
        assert all(math.isfinite(value) for value in losses.values()), (plan.name, losses)
        assert any(not a.equal(b) for a, b in zip(before, run.network.parameters(), strict=True)), plan.name
        wanted = {name for name in ("perceptual", "adversarial", "feature_matching") if getattr(plan.weights, name)}
        assert wanted <= set(losses)


def test_the_papers_recipe_has_what_the_paper_has_and_no_teacher():
    config = load_config(next(file for file in CONFIG_FILES if file.stem == "paper"))
    for plan in config.stages:
        used = {name for name, weight in vars(plan.weights).items() if weight}
        assert used == {"l1", "perceptual", "adversarial", "feature_matching", "equivariance"}
        assert not plan.wants_motion
        assert not plan.only
        assert not plan.motion_only
    sizes = [plan.plan.size for plan in config.stages]
    assert sizes == sorted(set(sizes))
