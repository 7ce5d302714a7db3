"""Fixtures of the training tests."""

from pathlib import Path

import pytest

from support.models.training_clips import write_clip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Data folder with two clips for training and one for validation."""
    folder = tmp_path / "data"
    for n in range(3):
        write_clip(folder / "clips" / f"c{n}.mp4", 16, n)
    rows = "".join(f"c{n},{'val' if n == 2 else 'train'},p{n}\n" for n in range(3))
    (folder / "manifest.csv").write_text("id,split,identity\n" + rows)
    return folder
