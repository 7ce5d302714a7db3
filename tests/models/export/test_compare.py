"""Comparison of exported graphs with PyTorch."""

import shutil
from pathlib import Path

import pytest
import torch

from iwcodec.codec.media.crop.square import Crop, crop_resize
from iwcodec.codec.media.video import read_video
from iwcodec.models.export.compare import TOLERANCE, compare
from iwcodec.models.export.graphs import export_graphs
from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.torch import TorchRuntime, load_network
from iwcodec.models.runtime.weights import write_digests
from support.media.clips import CLIP_FRAMES


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
def test_graph_with_other_weights_differs_in_its_own_outputs(
    exported_models: Path, tmp_path: Path, part: str, parameter: str, outputs: set[str]
) -> None:
    for file in exported_models.glob("tiny-64.*"):
        shutil.copy(file, tmp_path)
    changed = load_network("tiny-64", exported_models)
    with torch.no_grad():
        weights = changed.get_parameter(parameter)
        weights += 0.05 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    export_graphs(changed, "tiny-64", tmp_path, (part,))
    write_digests("tiny-64", tmp_path)
    differences = compare(TorchRuntime("tiny-64", "cpu", tmp_path), OnnxRuntime("tiny-64", 1, tmp_path))
    exceeding = {name for name, value in differences.items() if value > TOLERANCE}
    assert outputs <= exceeding, differences
    assert exceeding - outputs <= {"picture"} | ({"shifts", "features"} if part == "attend" else set()), differences


@pytest.mark.parametrize("size", [256, 512])
def test_shipped_graphs_match_the_shipped_weights(face_clip: Path, size: int) -> None:
    pictures = [crop_resize(frame.picture, Crop(140, 0, 360), size) for frame in read_video(face_clip)][
        :: CLIP_FRAMES - 1
    ]
    differences = compare(TorchRuntime(f"lite-{size}", "cpu"), OnnxRuntime(f"lite-{size}", 1), pictures)
    assert len(differences) == 12
    assert max(differences.values()) <= TOLERANCE, differences
