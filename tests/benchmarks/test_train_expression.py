"""Training of the expression networks: examples of the bundled clip, patches that move, a loss that falls."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks import train_expression
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.mesh.face_mesh import FaceMesh
from iwcodec.benchmarks.train_expression import MARGIN, STORED, Examples, displaced, trained
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.sources.expression import SIDE
from iwcodec.codec.sources.regions import EYES, MOUTH
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.training.data.clips import Clip
from support.media.clips import write_clip


def test_examples_hold_patches_and_what_the_mesh_measured(tmp_path: Path) -> None:
    try:
        mesh = FaceMesh()
    except MetricUnavailableError as error:
        pytest.skip(str(error))
    pictures = [frame.picture[:, 270:630] for frame in itertools.islice(read_video(sample_clip()), 0, 60, 20)]
    clip = write_clip(tmp_path / "speaker.mp4", [cv2.resize(picture, (256, 256)) for picture in pictures])
    examples = train_expression.examples_of(Clip("speaker", clip, "speaker"), 3, load_runtime(), mesh)
    assert examples.patches.shape == (3, 2, STORED, STORED)
    assert ((examples.labels > 0) & (examples.labels < 2)).all()
    assert (examples.labels[:, 3] > examples.labels[:, 2]).all()  # a mouth is wider than it is open


def test_few_clips_of_each_person_are_used() -> None:
    clips = [Clip(f"{person}{n}", Path(), person) for person in "ab" for n in range(6)]
    assert [clip.name for clip in train_expression.few_of_each(clips)] == [f"{p}{n}" for p in "ab" for n in range(4)]


def test_an_undisplaced_patch_is_the_middle_of_the_stored_one() -> None:
    stored = torch.rand(3, STORED, STORED) * 255
    patches, scale = displaced(stored, 0.0)
    margin = (STORED - SIDE) // 2
    torch.testing.assert_close(patches[:, 0], stored[:, margin:-margin, margin:-margin], atol=0.01, rtol=0)
    assert (scale == 1).all()
    assert STORED == MARGIN * SIDE


@pytest.mark.parametrize("region", [EYES, MOUTH])
def test_a_network_learns_how_far_a_bar_is_open(region: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_expression, "EPOCHS", 12)
    torch.manual_seed(0)
    opening = torch.rand(256)
    row = torch.linspace(-1, 1, STORED).abs()
    bars = torch.where(row[None] < 0.1 + 0.3 * opening[:, None], 40.0, 180.0)[:, :, None].expand(-1, -1, STORED)
    patches = bars.to(torch.uint8)[:, None].expand(-1, 2, -1, -1).contiguous()
    labels = torch.stack([opening, torch.rand(256)] * 2, 1)
    network = trained(Examples(patches, labels), region)
    r = train_expression.correlations(network, Examples(patches, labels), region)
    assert r[0] > 0.9
    assert not np.isnan(r[1])
