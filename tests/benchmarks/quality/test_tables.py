"""The paper's tables with an untrained network: every figure is about the right pictures."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.quality import tables
from iwcodec.benchmarks.quality.tables import SOURCES, evenly_spaced_frames, reconstruction, run
from iwcodec.codec.errors import CodecError
from iwcodec.models.network.config import TINY
from iwcodec.models.network.network import ImplicitWarp
from support.media.clips import grey_ramp, write_clip


@pytest.fixture(scope="module")
def network() -> ImplicitWarp:
    torch.manual_seed(0)
    return ImplicitWarp(TINY).eval()


def test_reconstruction_by_number_of_sources(network: ImplicitWarp, face_clip: Path) -> None:
    results = run(network, [face_clip], 8, "face", lambda name, share: None)
    assert [row["sources"] for row in results["reconstruction"]] == list(SOURCES)
    for row in results["reconstruction"]:
        assert 5 < row["copy_db"] < row["oracle_db"] < 60


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
        run(network, clips, 4, "none", lambda name, share: None)
