"""Export of checkpoints and models."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from iwcodec.codec import cli
from iwcodec.codec.errors import CodecError
from iwcodec.models.export.compare import TOLERANCE
from iwcodec.models.export.export import export, load_checkpoint
from iwcodec.models.network.config import TINY
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.torch import load_network
from iwcodec.models.runtime.weights import read_info
from support.models.tiny_networks import block_pictures


def test_load_checkpoint_reads_the_averaged_weights(tmp_path: Path) -> None:
    network, average = ImplicitWarp(TINY), ImplicitWarp(TINY)
    torch.save(
        {"model": TINY.to_dict(), "network": network.state_dict(), "average": average.state_dict()}, tmp_path / "c.pt"
    )
    loaded = load_checkpoint(tmp_path / "c.pt", size=128)
    assert loaded.config.size == 128
    torch.testing.assert_close(loaded.extra_keys, average.extra_keys)


def test_model_with_a_base_stores_only_its_up_blocks(exported_models: Path) -> None:
    from safetensors import safe_open

    assert {file.name for file in exported_models.glob("tiny-128.*")} == {
        "tiny-128.safetensors",
        "tiny-128.refine.onnx",
        "tiny-128.sha256",
    }
    with safe_open(exported_models / "tiny-128.safetensors", framework="pt") as file:
        assert {name.rsplit(".", 1)[0] for name in file.keys()} == {  # noqa: SIM118
            f"decoder.up.0.{layer}" for layer in ("enter", "see", "out")
        }
    base, larger = (
        load_network("tiny-64", exported_models).state_dict(),
        load_network("tiny-128", exported_models).state_dict(),
    )
    assert all(larger[name].equal(value) for name, value in base.items())


def test_model_gives_the_same_pictures_with_and_without_a_base(exported_models: Path, tmp_path: Path) -> None:
    export(load_network("tiny-128", exported_models), "tiny-128", tmp_path)
    assert len(list(tmp_path.glob("tiny-128.*.onnx"))) == 5
    results = []
    for folder in (exported_models, tmp_path):
        runtime = OnnxRuntime("tiny-128", 1, folder)
        sources = [runtime.prepare(p) for p in block_pictures(2, 128)]
        results.append(runtime.reconstruct(sources[0].keypoints, sources).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


def test_export_refuses_a_base_that_differs_beyond_the_up_blocks(exported_models: Path) -> None:
    network = load_network("tiny-128", exported_models)
    before = (exported_models / "tiny-128.safetensors").read_bytes()
    torch.nn.init.constant_(network.log_focus, 0.1)
    with pytest.raises(ValueError, match="log_focus"):
        export(network, "tiny-128", exported_models, "tiny-64")
    other = ImplicitWarp(replace(network.config, top_k=2))
    with pytest.raises(ValueError, match="with up blocks"):
        export(other, "tiny-128", exported_models, "tiny-64")
    with pytest.raises(FileNotFoundError, match="tiny-9"):
        export(network, "tiny-128", exported_models, "tiny-9")
    assert (exported_models / "tiny-128.safetensors").read_bytes() == before


def test_failed_export_replaces_no_file(exported_models: Path) -> None:
    before = {file.name: file.read_bytes() for file in exported_models.iterdir()}
    network = load_network("tiny-64", exported_models)
    torch.nn.init.constant_(network.decoder.out.bias, torch.nan)
    with pytest.raises(ValueError, match="disagree"):
        export(network, "tiny-64", exported_models)
    assert {file.name: file.read_bytes() for file in exported_models.iterdir()} == before


def test_export_command_reports_what_it_wrote(tmp_path: Path) -> None:
    torch.manual_seed(6)
    weights = ImplicitWarp(TINY).state_dict()
    torch.save({"model": TINY.to_dict(), "average": weights}, tmp_path / "c.pt")
    command = ["export", str(tmp_path / "c.pt"), "tiny-64", "--folder", str(tmp_path / "weights")]
    result = CliRunner().invoke(cli.app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["bytes"] == {file.name: file.stat().st_size for file in (tmp_path / "weights").iterdir()}
    assert len(report["bytes"]) == 7
    assert (report["model"], report["digest"]) == ("tiny-64", read_info("tiny-64", tmp_path / "weights").digest.hex())
    assert report["largest_difference"] == max(report["differences"].values()) <= TOLERANCE
    again = CliRunner().invoke(cli.app, command)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "tiny-64 written" in again.stderr
    (tmp_path / "c.pt").write_bytes(b"no checkpoint")
    broken = CliRunner().invoke(cli.app, command)
    assert isinstance(broken.exception, CodecError), broken.exception
    assert "is damaged" in str(broken.exception)
