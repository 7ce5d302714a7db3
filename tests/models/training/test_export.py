"""Exported graphs give what torch gives."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from typer.testing import CliRunner

from iwcodec.codec import cli
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.crop_tracking import Crop, crop_resize
from iwcodec.codec.media.video import read_video
from iwcodec.models.network.config import TINY
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.runtime.onnx import MAX_ACTIVE, OnnxRuntime
from iwcodec.models.runtime.torch import TorchRuntime, load_network
from iwcodec.models.runtime.weights import read_info
from iwcodec.models.training.export import TOLERANCE, compare, export, export_graphs, load_checkpoint, save_weights
from media_fixtures import CLIP_FRAMES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(6)
    network = ImplicitWarp(replace(TINY, top_k=6)).eval()
    torch.nn.init.normal_(network.decoder.out.weight, std=0.3)
    torch.nn.init.normal_(network.decoder.nudge.weight, std=0.3)
    folder = tmp_path_factory.mktemp("weights")
    differences = export(network, "tiny-64", folder).differences
    assert max(differences.values()) <= TOLERANCE
    differences = export(grown(network), "tiny-128", folder, "tiny-64").differences
    assert max(differences.values()) <= TOLERANCE
    return folder


def grown(network: ImplicitWarp) -> ImplicitWarp:
    """The same network with an up block that does something."""
    larger = ImplicitWarp(replace(network.config, name="grown", size=128, up_blocks=1)).eval()
    larger.load_state_dict(network.state_dict(), strict=False)
    torch.nn.init.normal_(larger.decoder.up[0].out.weight, std=0.1)
    return larger


def pictures(count: int, size: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    block = np.ones((size // 8, size // 8, 1), np.uint8)
    return [np.kron(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), block) for _ in range(count)]


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("count", range(1, MAX_ACTIVE + 1))
def test_one_graph_serves_any_number_of_sources(folder: Path, count: int, size: int):
    runtimes = (TorchRuntime(f"tiny-{size}", "cpu", folder), OnnxRuntime(f"tiny-{size}", 1, folder))
    rebuilt = []
    for runtime in runtimes:
        sources = [runtime.prepare(p) for p in pictures(count, size)]
        keypoints = runtime.detect(pictures(count, size)[-1])
        rebuilt.append([runtime.reconstruct(keypoints, sources, zone).astype(int) for zone in (0.0, 2.0)])
    assert rebuilt[0][0].shape == (size, size, 3)
    for plain, exported in zip(*rebuilt, strict=True):
        assert np.abs(plain - exported).mean() < 0.1
    assert np.abs(rebuilt[0][0] - rebuilt[0][1]).mean() > 0.5  # the dead zone does something here


@pytest.mark.parametrize(
    ("part", "parameter", "outputs"),
    [
        ("detector", "detector.strengths.bias", {"keypoints"}),
        ("source", "value_net.2.bias", {"rows"}),
        ("source", "key_net.parts.bias", {"membership"}),
        ("source", "basis_net.common", {"basis"}),
        ("attend", "decoder.nudge.bias", {"shifts"}),
        ("attend", "log_focus", {"weights"}),
        ("attend", "decoder.entry.bias", {"features"}),
        ("refine", "decoder.out.bias", {"refine"}),
    ],
)
def test_a_graph_of_other_weights_is_found_by_its_output(
    folder: Path, tmp_path: Path, part: str, parameter: str, outputs: set[str]
):
    for file in folder.glob("tiny-64.*"):
        shutil.copy(file, tmp_path)
    other = load_network("tiny-64", folder)
    with torch.no_grad():
        changed = other.get_parameter(parameter)
        changed += 0.05 * torch.randn(changed.shape, generator=torch.Generator().manual_seed(1))
    export_graphs(other, "tiny-64", tmp_path, (part,))
    differences = compare(TorchRuntime("tiny-64", "cpu", tmp_path), OnnxRuntime("tiny-64", 1, tmp_path))
    beyond = {name for name, value in differences.items() if value > TOLERANCE}
    assert outputs <= beyond, differences
    assert beyond - outputs <= {"picture"} | ({"shifts", "features"} if part == "attend" else set()), differences


@pytest.mark.parametrize("size", [256, 512])
def test_shipped_graphs_are_the_shipped_weights(face_clip: Path, size: int):
    shown = [crop_resize(frame.picture, Crop(140, 0, 360), size) for frame in read_video(face_clip)][:: CLIP_FRAMES - 1]
    differences = compare(TorchRuntime(f"lite-{size}", "cpu"), OnnxRuntime(f"lite-{size}", 1), shown)
    assert len(differences) == 12
    assert max(differences.values()) <= TOLERANCE, differences


def test_info_identifies_the_weights(folder: Path):
    info = read_info("tiny-64", folder)
    assert (info.keypoints, info.size, len(info.digest)) == (20, 64, 8)
    with pytest.raises(FileNotFoundError, match="tiny-64"):
        read_info("lite-9000", folder)


def test_too_many_sources_are_refused(folder: Path):
    runtime = OnnxRuntime("tiny-64", 1, folder)
    source = runtime.prepare(pictures(1)[0])
    with pytest.raises(ValueError, match="sources"):
        runtime.reconstruct(source.keypoints, [source] * (MAX_ACTIVE + 1))


def test_a_checkpoint_exports_its_averaged_weights(tmp_path: Path):
    network, average = ImplicitWarp(TINY), ImplicitWarp(TINY)
    torch.save(
        {"model": TINY.to_dict(), "network": network.state_dict(), "average": average.state_dict()},
        tmp_path / "c.pt",
    )
    loaded = load_checkpoint(tmp_path / "c.pt", size=128)
    assert loaded.config.size == 128
    torch.testing.assert_close(loaded.extra_keys, average.extra_keys)


def test_a_model_with_a_base_holds_its_up_blocks_alone(folder: Path):
    from safetensors import safe_open

    assert {file.name for file in folder.glob("tiny-128.*")} == {"tiny-128.safetensors", "tiny-128.refine.onnx"}
    with safe_open(folder / "tiny-128.safetensors", framework="pt") as file:
        assert {name.rsplit(".", 1)[0] for name in file.keys()} == {  # noqa: SIM118
            f"decoder.up.0.{layer}" for layer in ("enter", "see", "out")
        }
    base, larger = load_network("tiny-64", folder).state_dict(), load_network("tiny-128", folder).state_dict()
    assert all(larger[name].equal(value) for name, value in base.items())


def test_a_model_means_the_same_with_and_without_a_base(folder: Path, tmp_path: Path):
    export(load_network("tiny-128", folder), "tiny-128", tmp_path)
    assert len(list(tmp_path.glob("tiny-128.*.onnx"))) == 5
    rebuilt = []
    for place in (folder, tmp_path):
        runtime = OnnxRuntime("tiny-128", 1, place)
        sources = [runtime.prepare(p) for p in pictures(2, 128)]
        rebuilt.append(runtime.reconstruct(sources[0].keypoints, sources).astype(int))
    assert np.abs(rebuilt[0] - rebuilt[1]).max() <= 1


def test_the_digest_names_the_base_too(folder: Path, tmp_path: Path):
    network = load_network("tiny-128", folder)
    digests = []
    for level in (0.5, 0.25):
        torch.nn.init.constant_(network.extra_pixels, level)
        smaller = ImplicitWarp(replace(network.config, name="tiny", size=64, up_blocks=0))
        smaller.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("decoder.up.")})
        save_weights(smaller, tmp_path / "tiny-64.safetensors")
        if digests:
            with pytest.raises(FileNotFoundError, match="another tiny-64"):
                read_info("tiny-128", tmp_path)
        save_weights(network, tmp_path / "tiny-128.safetensors", "tiny-64")
        digests.append(read_info("tiny-128", tmp_path).digest)
    assert digests[0] != digests[1]


def test_a_base_must_have_all_but_the_up_blocks(folder: Path):
    network = load_network("tiny-128", folder)
    before = (folder / "tiny-128.safetensors").read_bytes()
    torch.nn.init.constant_(network.log_focus, 0.1)
    with pytest.raises(ValueError, match="log_focus"):
        export(network, "tiny-128", folder, "tiny-64")
    other = ImplicitWarp(replace(network.config, top_k=2))
    with pytest.raises(ValueError, match="with up blocks"):
        export(other, "tiny-128", folder, "tiny-64")
    with pytest.raises(FileNotFoundError, match="tiny-9"):
        export(network, "tiny-128", folder, "tiny-9")
    assert (folder / "tiny-128.safetensors").read_bytes() == before


def test_a_broken_network_replaces_nothing(folder: Path):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    network = load_network("tiny-64", folder)
    torch.nn.init.constant_(network.decoder.out.bias, torch.nan)
    with pytest.raises(ValueError, match="disagree"):
        export(network, "tiny-64", folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_command_says_what_it_wrote(tmp_path: Path):
    torch.manual_seed(6)
    weights = ImplicitWarp(TINY).state_dict()
    torch.save({"model": TINY.to_dict(), "average": weights}, tmp_path / "c.pt")
    command = ["export", str(tmp_path / "c.pt"), "tiny-64", "--folder", str(tmp_path / "weights")]
    result = CliRunner().invoke(cli.app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["bytes"] == {file.name: file.stat().st_size for file in (tmp_path / "weights").iterdir()}
    assert len(report["bytes"]) == 6
    assert (report["model"], report["digest"]) == ("tiny-64", read_info("tiny-64", tmp_path / "weights").digest.hex())
    assert report["largest_difference"] == max(report["differences"].values()) <= TOLERANCE
    again = CliRunner().invoke(cli.app, command)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "tiny-64 written" in again.stderr
    (tmp_path / "c.pt").write_bytes(b"no checkpoint")
    broken = CliRunner().invoke(cli.app, command)
    assert isinstance(broken.exception, CodecError), broken.exception
    assert "is damaged" in str(broken.exception)
