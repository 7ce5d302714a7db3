"""Sampling batches and their correspondences."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.flow import GRID, UNSURE
from iwcodec.models.training.data import samples as sampling
from iwcodec.models.training.data.clips import Clip
from iwcodec.models.training.data.prepare import prepare
from iwcodec.models.training.data.samples import SamplePlan, Samples
from support.models.training_clips import write_clip


def test_samples_do_not_cross_a_cut(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", 30)
    clip = prepare(Clip("c", path, "c", cut=12), tmp_path / "cache", 64)
    assert clip.frames.shape == (30, 64, 64, 3)
    assert clip.groups == [range(12), range(12, 30)]
    again = prepare(Clip("c", path, "c", cut=12), tmp_path / "cache", 64)
    np.testing.assert_array_equal(clip.frames, again.frames)
    samples = Samples([clip], SamplePlan(64, 1, 2, max_sources=2), 1)
    drawn = [samples.draw(clip, 2, np.random.default_rng(s)) for s in range(4)]
    assert all(d is None or d["sources"].shape == (2, 3, 64, 64) for d in drawn)


def test_correspondence_matches_the_augmented_pictures(tmp_path: Path) -> None:
    """Warping a source by its correspondence brings it closer to the driving frame, whatever crop, mirroring and camera
    motion the sample has."""
    clip = prepare(Clip("c", write_clip(tmp_path / "c.mp4", 24, 2, 128), "c"), tmp_path / "cache", 128)
    assert clip is not None
    samples = Samples([clip], SamplePlan(128, 1, 1, max_sources=1, coded=0.0, wander=0.15), 3)
    improved = []
    for seed in range(12):
        drawn = samples.draw(clip, 1, np.random.default_rng(seed))
        grid = GRID
        axis = (np.arange(grid) + 0.5) * (2 / grid) - 1
        own = np.stack(np.meshgrid(axis, axis), -1)
        place = ((own + drawn["shift"][0, 0] + 1) * 64 - 0.5).astype(np.float32)
        at = ((own + 1) * 64 - 0.5).astype(np.float32)
        driving, source = (drawn[k][0].transpose(1, 2, 0) for k in ("driving", "sources"))
        warped = cv2.remap(source, place[..., 0], place[..., 1], cv2.INTER_LINEAR)
        unwarped, target = (cv2.remap(p, at[..., 0], at[..., 1], cv2.INTER_LINEAR) for p in (source, driving))
        valid = drawn["error"][0, 0] < UNSURE
        before, after = (np.abs(x - target).mean(-1)[valid].mean() for x in (unwarped, warped))
        improved.append(after < 0.5 * before or after < 0.02)
    assert sum(improved) >= 10


def test_shapes_of_a_batch(tmp_path: Path) -> None:
    clips = [
        prepare(Clip(n, write_clip(tmp_path / f"{n}.mp4", 16, i), n), tmp_path / "cache", 64)
        for i, n in enumerate("ab")
    ]
    samples = Samples([c for c in clips if c], SamplePlan(32, 3, 2, max_sources=2), 5)
    batch = next(iter(samples))
    sources = batch["sources"].shape[1]
    assert batch["driving"].shape == (3, 2, 3, 32, 32)
    assert batch["shift"].shape == (3, 2, sources, GRID, GRID, 2)
    assert batch["driving"].dtype == torch.float32
    assert 0 <= batch["driving"].min() <= batch["driving"].max() <= 1


def test_near_frames_resemble_a_source(tmp_path: Path) -> None:
    clip = prepare(Clip("c", write_clip(tmp_path / "c.mp4", 60, 3), "c"), tmp_path / "cache", 64)
    assert clip is not None
    plans = [SamplePlan(64, 1, 3, max_sources=1, coded=0.0, near=near) for near in (0.0, 1.0)]
    shifts = []
    for plan in plans:
        samples = Samples([clip], plan, 1)
        drawn = [samples.draw(clip, 1, np.random.default_rng(seed)) for seed in range(8)]
        shifts.append(np.mean([np.abs(d["driving"] - d["sources"]).mean() for d in drawn if d]))
    assert shifts[1] < 0.7 * shifts[0]


def test_batch_depends_only_on_seed_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = prepare(Clip("c", write_clip(tmp_path / "c.mp4", 16), "c"), tmp_path / "cache", 64)
    assert clip is not None
    plan = SamplePlan(32, 1, 1, max_sources=2)

    def batches(first: int, count: int) -> list[dict[str, torch.Tensor]]:
        return list(itertools.islice(Samples([clip], plan, 5, first), count))

    def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return all(a[key].shape == b[key].shape and torch.equal(a[key], b[key]) for key in ("driving", "sources"))

    alone = batches(0, 6)
    assert not equal(alone[0], alone[1])
    assert all(map(equal, batches(2, 4), alone[2:]))
    for number in (0, 1):
        monkeypatch.setattr(
            sampling, "get_worker_info", lambda number=number: SimpleNamespace(id=number, num_workers=2)
        )
        assert all(map(equal, batches(0, 3), alone[number::2]))
