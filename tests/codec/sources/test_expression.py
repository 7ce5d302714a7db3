"""The networks of eyes and mouths: on the bundled speaker, whom they were not trained on, and against PyTorch's."""

import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.expression import features
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.mesh.face_mesh import FaceMesh
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.sources.expression import SIDE, expression
from iwcodec.codec.sources.region_view import sampled
from iwcodec.codec.sources.regions import EYES, MOUTH, REGIONS, box_places, region_box
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Keypoints


def patch(picture: Picture, keypoints: Keypoints, region: int) -> NDArray[np.uint8]:
    found = sampled(picture, box_places(region_box(keypoints, region, len(picture))))
    grey = cv2.cvtColor(found, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def test_it_reads_what_the_mesh_sees() -> None:
    try:
        mesh = FaceMesh()
    except MetricUnavailableError as error:
        pytest.skip(str(error))
    runtime = load_runtime()
    seen, read = [], []
    for frame in itertools.islice(read_video(sample_clip()), 0, None, 8):
        picture = np.asarray(cv2.resize(frame.picture[:, 270:630], (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
        face, keypoints = mesh(picture), runtime.detect(picture)
        assert face is not None
        seen.append(features(face))
        read.append(np.concatenate([expression(patch(picture, keypoints, region), region) for region in REGIONS]))
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(np.transpose(seen), np.transpose(read), strict=True)]
    assert min(r[:3]) > 0.8, r
    assert r[3] > 0.5, r  # she smiles more than she speaks


@pytest.mark.parametrize("region", [EYES, MOUTH])
def test_light_does_not_matter(region: int) -> None:
    grey = np.random.default_rng(0).integers(20, 100, (SIDE, SIDE)).astype(np.uint8)
    np.testing.assert_allclose(expression(grey + np.uint8(90), region), expression(grey, region), atol=1e-4)


@pytest.mark.parametrize("region", REGIONS)
def test_it_computes_what_was_trained(region: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from iwcodec.benchmarks import train_expression
    from iwcodec.codec.sources import expression as module

    torch.manual_seed(region)
    network = train_expression.ExpressionNetwork(torch.randn(8, 2)).eval()
    np.savez(tmp_path / "weights.npz", **train_expression.arrays(network, region))
    monkeypatch.setattr(module, "WEIGHTS", tmp_path / "weights.npz")
    module._network.cache_clear()
    grey = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(grey)[None, None].float())[0].numpy()
    try:
        np.testing.assert_allclose(expression(grey, region), expected, atol=2e-3)
    finally:
        module._network.cache_clear()
