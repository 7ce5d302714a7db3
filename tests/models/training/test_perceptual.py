"""Perceptual loss on VGG-19 if its weights are present, else on EfficientNet-Lite0."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F
from typer.testing import CliRunner

from iwcodec.codec.cli import app as cli
from iwcodec.codec.errors import CodecError
from iwcodec.models.network.config import TINY
from iwcodec.models.training import perceptual
from iwcodec.models.training.config import Stage, TrainConfig
from iwcodec.models.training.data.samples import SamplePlan
from iwcodec.models.training.losses import LossWeights
from iwcodec.models.training.perceptual import FILE_NAME, PerceptualLoss
from iwcodec.models.training.train import train
from support.models.training_clips import write_clip

CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    **dict.fromkeys((12, 14, 16), (256, 256)),
    19: (256, 512),
    **dict.fromkeys((21, 23, 25, 28, 30, 32, 34), (512, 512)),
}
"""Torchvision's `features`: layer number -> input and output channels."""
POOLINGS = (4, 9, 18, 27)


def weights(last: int = 28) -> dict[str, torch.Tensor]:
    """Random weights up to a layer, and one of the classifier."""
    generator = torch.Generator().manual_seed(1)
    state = {"classifier.6.bias": torch.zeros(1000)}
    for number, (inputs, outputs) in CONVOLUTIONS.items():
        if number <= last:
            scale = (2 / (9 * inputs)) ** 0.5
            state[f"features.{number}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * scale
            state[f"features.{number}.bias"] = torch.randn(outputs, generator=generator) * 0.01
    return state


@pytest.fixture(autouse=True)
def no_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("IWCODEC_METRIC_WEIGHTS", raising=False)


def relus(pictures: torch.Tensor, state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Features relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1."""
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x, found = (pictures - shift) / scale, []
    for number in range(29):
        if number in POOLINGS:
            x = F.max_pool2d(x, 2)
        elif number in CONVOLUTIONS:
            x = F.relu(F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1))
            if number in (0, 5, 10, 19, 28):
                found.append(x)
    return found


@pytest.mark.parametrize("place", ["named", "hub"])
def test_vgg_is_used_if_its_file_is_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    folder = tmp_path / "weights" if place == "named" else tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = weights()
    torch.save(state, folder / FILE_NAME)
    if place == "named":
        monkeypatch.setenv("IWCODEC_METRIC_WEIGHTS", str(folder))
    loss = PerceptualLoss()
    assert loss.source == f"VGG-19 of {folder / FILE_NAME}"
    picture, target = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    expected = [
        (a - b).abs().mean() / b.abs().mean() for a, b in zip(relus(picture, state), relus(target, state), strict=True)
    ]
    torch.testing.assert_close(loss(picture, target), torch.stack(expected).mean())
    assert loss(picture, picture) == 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_training_logs_the_feature_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(2):
        write_clip(tmp_path / "data" / "train" / f"c{n}.mp4", 12, n)
    torch.save(weights(), tmp_path / FILE_NAME)
    monkeypatch.setenv("IWCODEC_METRIC_WEIGHTS", str(tmp_path))
    plan = SamplePlan(64, 1, 1, max_sources=1)
    stage = Stage("s", 1, plan, weights=LossWeights(perceptual=1.0), perceptual_side=32, validate_every=10)
    report = train(
        TrainConfig(TINY, (stage,), cache_size=64), tmp_path / "data", tmp_path / "cache", tmp_path / "run", workers=0
    )
    assert report.losses["perceptual"] > 0
    first = (tmp_path / "run" / "log.txt").read_text().splitlines()[0]
    assert first == f"s: perceptual loss on the features of VGG-19 of {tmp_path / FILE_NAME}"


def test_efficientnet_is_the_fallback() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    loss = PerceptualLoss()
    assert loss.source.startswith("EfficientNet-Lite0")
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    assert loss(picture, 1 - picture) > loss(picture, 0.9 * picture) > 0


@pytest.mark.parametrize("fault", ["cut short", "layers missing", "another network"])
def test_invalid_vgg_file_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    file = tmp_path / FILE_NAME
    state = weights(7)
    if fault == "another network":
        state = {name: torch.zeros(4, 4) for name in weights()}
    torch.save(state, file)
    if fault == "cut short":
        file.write_bytes(file.read_bytes()[:-1000])
    monkeypatch.setenv("IWCODEC_METRIC_WEIGHTS", str(tmp_path))
    result = CliRunner().invoke(cli.app, ["train", "lite512", "--data", str(tmp_path), "--out", str(tmp_path / "run")])
    assert isinstance(result.exception, CodecError), result.exception
    assert str(file) in str(result.exception)
    assert "\n" not in str(result.exception)
    assert perceptual.find_vgg() == file
