"""FID with made-up weights in the published layout: the shapes of the network and the formula."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor

from iwcodec.benchmarks.metrics.learned import fid as module
from iwcodec.benchmarks.metrics.learned.availability import INCEPTION, MetricUnavailableError
from iwcodec.benchmarks.metrics.learned.fid import fid, frechet, inception_features
from iwcodec.codec.media.types import Picture


def picture(seed: int, size: int = 64) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def inception_shapes() -> dict[str, tuple[int, int, int, int]]:
    """Name -> (out, in, height, width) of every convolution, from table 1 and figures 5 to 7 of the paper."""
    shapes: dict[str, tuple[int, int, int, int]] = {}

    def add(name: str, inside: int, out: int, height: int, width: int | None = None) -> int:
        shapes[name] = (out, inside, height, width or height)
        return out

    for name, inside, out, side in (
        ("1a_3x3", 3, 32, 3),
        ("2a_3x3", 32, 32, 3),
        ("2b_3x3", 32, 64, 3),
        ("3b_1x1", 64, 80, 1),
        ("4a_3x3", 80, 192, 3),
    ):
        add(f"Conv2d_{name}", inside, out, side)
    for block, inside, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        b = f"Mixed_{block}.branch"
        add(b + "1x1", inside, 64, 1)
        add(b + "5x5_2", add(b + "5x5_1", inside, 48, 1), 64, 5)
        add(b + "3x3dbl_3", add(b + "3x3dbl_2", add(b + "3x3dbl_1", inside, 64, 1), 96, 3), 96, 3)
        add(b + "_pool", inside, pool, 1)
    b = "Mixed_6a.branch"
    add(b + "3x3", 288, 384, 3)
    add(b + "3x3dbl_3", add(b + "3x3dbl_2", add(b + "3x3dbl_1", 288, 64, 1), 96, 3), 96, 3)
    for block, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        b = f"Mixed_{block}.branch"
        add(b + "1x1", 768, 192, 1)
        add(b + "7x7_3", add(b + "7x7_2", add(b + "7x7_1", 768, c, 1), c, 1, 7), 192, 7, 1)
        inside = add(b + "7x7dbl_1", 768, c, 1)
        for i, (out, height, width) in enumerate(((c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7)), 2):
            inside = add(f"{b}7x7dbl_{i}", inside, out, height, width)
        add(b + "_pool", 768, 192, 1)
    b = "Mixed_7a.branch"
    add(b + "3x3_2", add(b + "3x3_1", 768, 192, 1), 320, 3)
    inside = add(b + "7x7x3_1", 768, 192, 1)
    for i, (height, width) in enumerate(((1, 7), (7, 1), (3, 3)), 2):
        inside = add(f"{b}7x7x3_{i}", inside, 192, height, width)
    for block, inside in (("7b", 1280), ("7c", 2048)):
        b = f"Mixed_{block}.branch"
        add(b + "1x1", inside, 320, 1)
        add(b + "3x3_1", inside, 384, 1)
        add(b + "3x3dbl_2", add(b + "3x3dbl_1", inside, 448, 1), 384, 3)
        for name in ("3x3_2", "3x3dbl_3"):
            add(f"{b}{name}a", 384, 384, 1, 3)
            add(f"{b}{name}b", 384, 384, 3, 1)
        add(b + "_pool", inside, 192, 1)
    return shapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that `inception_features` does not read."""
    path = tmp_path_factory.mktemp("weights")
    torch.save({}, path / INCEPTION)
    return path


@pytest.fixture(scope="module")
def inception() -> dict[str, Tensor]:
    state = {}
    for name, shape in inception_shapes().items():
        state[f"{name}.conv.weight"] = (torch.rand(shape) - 0.5) * (24 / np.prod(shape[1:])) ** 0.5
        for part in ("running_mean", "bias"):
            state[f"{name}.bn.{part}"] = torch.zeros(shape[0])
        for part in ("running_var", "weight"):
            state[f"{name}.bn.{part}"] = torch.ones(shape[0])
    return state


def test_inception_has_the_published_number_of_parameters(inception: dict[str, Tensor]) -> None:
    assert sum(tensor.numel() for name, tensor in inception.items() if "running" not in name) == 21_785_568


def test_inception_uses_every_weight(inception: dict[str, Tensor]) -> None:
    used = set()

    class Watched(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            used.add(name)
            return super().__getitem__(name)

    with torch.inference_mode():
        features = inception_features(torch.rand(1, 3, 75, 75) * 2 - 1, Watched(inception))
    assert features.shape == (1, 2048)
    assert torch.isfinite(features).all()
    assert used == set(inception)


def test_frechet_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (20_000, 3))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + np.array([1, 2, 2])) == pytest.approx(9, abs=1e-9)
    assert frechet(a, 3 * a) == pytest.approx(3 * 4, rel=0.03)  # sum of (1 - 3) ** 2
    # Fewer vectors than dimensions, against the textbook definition with the square root of a matrix product.
    few, others = rng.normal(0, 1, (5, 8)), rng.normal(1, 2, (6, 8))
    product = np.cov(few, rowvar=False) @ np.cov(others, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(product).real.clip(min=0)).sum()
    spread = np.trace(np.cov(few, rowvar=False)) + np.trace(np.cov(others, rowvar=False)) - 2 * root
    assert frechet(few, others) == pytest.approx(np.square(few.mean(0) - others.mean(0)).sum() + spread, rel=1e-4)
    with pytest.raises(ValueError, match="two pictures"):
        frechet(a[:1], a)


def test_fid_compares_sets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "inception_features", lambda x, state: x.mean((2, 3)))
    pictures = [picture(seed, 8) for seed in range(4)]
    assert fid(iter(pictures), reversed(pictures), folder) == pytest.approx(0, abs=1e-9)
    assert fid(pictures, [p // 2 for p in pictures], folder) > 0.1
    with pytest.raises(ValueError, match="two pictures"):
        fid(pictures, [], folder)


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IWCODEC_METRIC_WEIGHTS", str(tmp_path))
    with pytest.raises(MetricUnavailableError, match="IWCODEC_METRIC_WEIGHTS"):
        fid([], [])
