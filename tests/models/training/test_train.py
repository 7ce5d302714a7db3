"""Whole training runs: stages, validation, signals and several processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from typer.testing import CliRunner

from iwcodec.codec.cli import app as cli
from iwcodec.codec.errors import CodecError
from iwcodec.models.network.config import TINY
from iwcodec.models.training import train as training
from iwcodec.models.training.config import TrainConfig, load_config
from iwcodec.models.training.run import Run
from iwcodec.models.training.train import train
from support.models.training_clips import write_clip
from support.models.training_stages import ADVERSARIAL, identical, stage


def test_stopped_run_resumes_identically(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT during the third step; samples, noise, both optimisers and both networks continue."""
    config = TrainConfig(TINY, (stage(6, weights=ADVERSARIAL, fitted=0.5, noise=0.01),), cache_size=64)
    steps: list[dict[str, float]] = []
    interrupted_at: list[int] = []
    train_step = Run.train_step

    def recorded(run: Run, *arguments):
        if run.step in interrupted_at:
            signal.raise_signal(signal.SIGINT)
        steps.append(train_step(run, *arguments))
        return steps[-1]

    monkeypatch.setattr(Run, "train_step", recorded)
    train(config, clips, tmp_path / "cache", tmp_path / "straight", workers=0)
    straight, steps = steps, []
    interrupted_at.append(2)
    stopped = train(config, clips, tmp_path / "cache", tmp_path / "stopped", workers=0)
    assert (stopped.finished, stopped.stage, stopped.steps) == (False, 1, 3)
    checkpoint = tmp_path / "stopped" / "checkpoint.pt"
    assert torch.load(checkpoint, weights_only=True)["step"] == len(steps) == 3
    interrupted_at.clear()
    train(config, clips, tmp_path / "cache", tmp_path / "stopped", workers=0)
    assert steps == straight
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("straight", "stopped")]
    assert states[0]["stage"] == 1
    assert identical(*states)


def test_train_validates_checkpoints_and_resumes(clips: Path, tmp_path: Path) -> None:
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
    again = train(short, clips, tmp_path / "cache", out, workers=0)  # nothing left to do
    assert (out / "log.txt").read_text() == log
    assert (again.finished, again.stage, again.steps, again.losses) == (True, 1, 0, {})


def test_clips_without_a_manifest_are_split_for_validation(tmp_path: Path) -> None:
    for n in range(2):
        write_clip(tmp_path / f"c{n}.mp4", 12, n)
    clips = training.load_validation(tmp_path, 64)
    assert [pictures.shape for pictures in clips.values()] == [(9, 64, 64, 3)]
    (tmp_path / "c0.mp4").unlink()
    assert training.load_validation(tmp_path, 64) == {}


def test_clips_that_are_too_short_are_refused_in_one_sentence(tmp_path: Path) -> None:
    write_clip(tmp_path / "data" / "train" / "c.mp4", 5)
    command = ["train", "lite", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli.app, command)
    assert isinstance(result.exception, CodecError), result.exception
    assert "every clip is too short: at least 8 frames" in str(result.exception)


RANK = """
import os, signal, sys
from pathlib import Path
import torch
from iwcodec.codec.cli import app as cli
from iwcodec.models.training import train as training
runs, writes, save = [], [], torch.save
class RecordedRun(training.Run):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        runs.append(self)
    def train_step(self, *arguments):
        if (self.rank, self.step) == STOPPED:
            signal.raise_signal(signal.SIGINT)
        return super().train_step(*arguments)
training.Run = RecordedRun
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


def in_two_processes(clips: Path, folder: Path, stopped: tuple[int, int] | None) -> tuple[Path, str, str]:
    """Train with adversarial losses in two processes, started as torchrun does, which takes a third one; send SIGINT to
    one of them, given by rank and step.

    Returns the configuration file, stdout and stderr."""
    config, script = folder / "tiny.toml", folder / "rank.py"
    config.write_text(
        'model = "tiny"\ncache_size = 64\n[[stage]]\nname = "s"\nsteps = 3\nvalidate_every = 100\n'
        "plan = { size = 64, groups = 1, driving = 2, max_sources = 1 }\n"
        "weights = { adversarial = 0.1, feature_matching = 1.0 }\n"
    )
    script.write_text(f"STOPPED = {stopped}\n{RANK}")
    command = [script, folder, "train", config, "--data", clips, "--out", folder / "run", "--workers", "0", "--json"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs, errors = zip(*(process.communicate(timeout=240) for process in processes), strict=True)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    return config, "".join(outputs), "".join(errors)


def test_signal_to_one_process_stops_all_after_the_same_step(clips: Path, tmp_path: Path) -> None:
    _, stdout, _ = in_two_processes(clips, tmp_path, (1, 1))
    report = json.loads(stdout)
    assert (report["finished"], report["steps"]) == (False, 2)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert (state["stage"], state["step"]) == (0, 2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert identical(ranks[0]["weights"], ranks[1]["weights"])
    assert [len(rank["writes"]) for rank in ranks] == [1, 0]


def test_two_processes_train_one_network(clips: Path, tmp_path: Path) -> None:
    config, stdout, stderr = in_two_processes(clips, tmp_path, None)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["stage"] == 1
    report = json.loads(stdout)  # written by one process
    assert (report["finished"], report["steps"], report["stage"]) == (True, 3, 1)
    assert report["checkpoint"] == str(tmp_path / "run" / "checkpoint.pt")
    assert report["seconds"] > 0
    assert {"l1", "adversarial", "critic", "total"} <= set(report["losses"])
    assert report["validation"]["3"].keys() == {"model", "fitted", "base", "copy", "misses"}
    assert "val s 3 at 64" in stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert identical(ranks[0]["weights"], ranks[1]["weights"])
    for name in ("network", "discriminator"):
        assert all(torch.equal(value, state[name][key]) for key, value in ranks[1]["weights"][name].items())
    fresh = Run(load_config(config), tmp_path / "fresh", "cpu").network
    assert not identical(dict(fresh.named_parameters()), ranks[0]["weights"]["network"])
    assert ranks[0]["losses"] != ranks[1]["losses"]  # each trains on its own clips
    assert ranks[0]["writes"] == [str(tmp_path / "run" / "checkpoint.partial")]
    assert ranks[1]["writes"] == []
    assert len((tmp_path / "run" / "val.jsonl").read_text().splitlines()) == 1


def test_each_process_gets_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert (training.process_device("cuda"), training.process_device("cuda:1"), training.process_device("cpu")) == (
        "cuda",
        "cuda:1",
        "cpu",
    )
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (training.process_device("cuda"), training.process_device("cpu"), chosen) == ("cuda:1", "cpu", [1])
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="there are 2"):
        training.process_device("cuda")


def test_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        training.process_device("cuda")
    with pytest.raises(ValueError, match="no device 'gpu'"):
        training.process_device("gpu")


def test_command_reports_errors_in_one_sentence(tmp_path: Path) -> None:
    command = ["train", "lite", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    for options, message in ((["--device", "gpu"], "no device 'gpu'"), ([], "no clips found")):
        result = CliRunner().invoke(cli.app, command + options)
        assert isinstance(result.exception, CodecError), result.exception
        assert message in str(result.exception)
        assert result.stdout == ""
