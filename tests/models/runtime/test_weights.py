"""Identity and files of a model."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from iwcodec.models.export.export import save_weights
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.torch import load_network
from iwcodec.models.runtime.weights import (
    PARTS,
    WEIGHTS,
    graph_file,
    list_models,
    read_digests,
    read_graphs,
    read_info,
    read_tensors,
)


def test_info_identifies_the_weights(exported_models: Path) -> None:
    info = read_info("tiny-64", exported_models)
    assert (info.keypoints, info.size, len(info.digest)) == (20, 64, 8)
    with pytest.raises(FileNotFoundError, match="tiny-64"):
        read_info("lite-9000", exported_models)


def test_digest_depends_on_the_base(exported_models: Path, tmp_path: Path) -> None:
    network = load_network("tiny-128", exported_models)
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


def test_graphs_of_a_model_come_from_its_base_where_it_has_none(exported_models: Path) -> None:
    assert list_models(exported_models) == ["tiny-128", "tiny-64"]
    names = {part: graph_file("tiny-128", part, exported_models).name for part in PARTS}
    assert names.pop("refine") == "tiny-128.refine.onnx"
    assert names == {part: f"tiny-64.{part}.onnx" for part in names}


@pytest.mark.parametrize("model", ["lite-256", "lite-512"])
def test_shipped_graphs_belong_to_the_shipped_weights(model: str):
    """`sha256sum -c` in the folder says the same."""
    assert set(read_graphs(model)) == set(PARTS)
    assert {file.name for file in WEIGHTS.glob(f"{model}.*") if file.suffix != ".sha256"} == set(
        read_digests(model, WEIGHTS)
    )


@pytest.mark.parametrize("changed", ["tiny-64.refine.onnx", "tiny-64.safetensors", "tiny-64.sha256"])
def test_graphs_that_were_not_exported_with_the_weights_are_refused(
    exported_models: Path, tmp_path: Path, changed: str
):
    """A replaced graph, replaced weights, or no list of digests."""
    for file in exported_models.glob("tiny-64.*"):
        shutil.copy(file, tmp_path)
    if changed.endswith("sha256"):
        (tmp_path / changed).unlink()
    else:
        shutil.copy(WEIGHTS / changed.replace("tiny-64", "lite-256"), tmp_path / changed)
    with pytest.raises(FileNotFoundError, match="not the one that was exported as part of tiny-64"):
        OnnxRuntime("tiny-64", 1, tmp_path)


def test_tensors_of_a_model_and_its_base_are_another_weights_file() -> None:
    tensors = safetensors.load(read_tensors("lite-512", lambda name: name.startswith(("decoder.fuse.", "decoder.up."))))
    own, base = (safetensors.load_file(WEIGHTS / f"{model}.safetensors") for model in ("lite-512", "lite-256"))
    assert {"decoder.fuse.weight", "decoder.up.0.see.bias"} <= set(tensors)
    assert all(name.startswith(("decoder.fuse.", "decoder.up.")) for name in tensors)
    assert all(torch.equal(values, (base | own)[name]) for name, values in tensors.items())
