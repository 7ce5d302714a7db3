"""Fixtures of the training tests."""

from pathlib import Path

import pytest

from support.models.training_clips import write_data


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Data folder with two clips for training and one for validation."""
    return write_data(tmp_path / "data", ("train", "train", "val"), 16)
