"""The paper's tables with an untrained network: every figure is about the right pictures."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.quality import tables
from iwcodec.benchmarks.quality.tables import (
    KEPT,
    SOURCES,
    evenly_spaced_frames,
    frames_between_sources,
    generate,
    reconstruction,
    run,
)
from iwcodec.codec.errors import CodecError
from iwcodec.models.network.attention import dense_attention
from iwcodec.models.network.config import TINY
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.training.evaluate import to_pictures
from media_fixtures import grey_ramp, write_clip


@pytest.fixture(scope="module")
def network() -> ImplicitWarp:
    torch.manual_seed(0)
    return ImplicitWarp(TINY).eval()


def test_both_tables(network: ImplicitWarp, face_clip: Path) -> None:
    results = run(network, [face_clip], 8, 2, "face", lambda name, share: None)
    assert [row["sources"] for row in results["reconstruction"]] == list(SOURCES)
    for row in results["reconstruction"]:
        assert 5 < row["copy_db"] < row["oracle_db"] < 60
    dense, *sparse = results["sparsity"]
    assert (dense["kind"], dense["k"], dense["same_db"], dense["faster"]) == ("dense", None, 60, 1)
    for kind in ("exact top-k", "hierarchical top-k"):
        rows = [row for row in sparse if row["kind"] == kind]
        assert [row["k"] for row in rows] == list(KEPT)
        # The more keys are kept, the closer the picture is to that from dense attention.
        assert rows[-1]["same_db"] > rows[0]["same_db"]
    assert all(row["attention_ms"] > 0 for row in results["sparsity"])


def test_generate_equals_the_network(network: ImplicitWarp, face_clip: Path) -> None:
    pictures = evenly_spaced_frames(face_clip, TINY.size, 6, "face")
    keypoints, sources, original = next(frames_between_sources(network, pictures, 1))
    with torch.inference_mode():
        expected = to_pictures(network.generate(keypoints, sources, dense=True).picture)[0]
        picture, _ = generate(network, keypoints, sources, dense_attention)
    np.testing.assert_array_equal(picture, expected)
    assert any((original == picture).all() for picture in pictures)


def test_sources_are_not_measured(network: ImplicitWarp, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = np.stack(grey_ramp(5, 64, 64))
    measured: list[int] = []
    monkeypatch.setattr(tables, "mean_psnr", lambda originals, shown: measured.append(len(originals)) or 1.0)
    reconstruction(network, "ramp", pictures, 2)
    assert measured == [3, 3, 3]


def test_too_short_clip_is_rejected(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "short.mp4", grey_ramp(3, 64, 64))
    with pytest.raises(CodecError, match=r"short\.mp4 has 3 frames"):
        evenly_spaced_frames(clip, 64, 8, "none")


def test_clips_of_one_name_are_rejected(network: ImplicitWarp, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    clips = [write_clip(tmp_path / folder / "short.mp4", grey_ramp(6, 64, 64)) for folder in ("a", "b")]
    with pytest.raises(CodecError, match="same name"):
        run(network, clips, 4, 4, "none", lambda name, share: None)
