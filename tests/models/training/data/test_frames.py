"""Reading frames of clips."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from iwcodec.models.training.data.frames import count_frames, evenly_spaced, read_frames, square
from support.models.training_clips import moving_square


def test_frames_of_a_folder_are_selected_by_number(tmp_path: Path) -> None:
    for n, picture in enumerate(moving_square(5, 0)):
        cv2.imwrite(str(tmp_path / f"{n:07d}.png"), picture)
    frames = list(read_frames(tmp_path))
    assert count_frames(tmp_path) == 5
    assert [np.array_equal(a, b) for a, b in zip(read_frames(tmp_path, {1, 4}), frames[1::3], strict=True)] == [
        True
    ] * 2
    (tmp_path / "0000002.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"0000002\.png is not a picture"):
        list(read_frames(tmp_path))


def test_evenly_spaced_includes_first_and_last() -> None:
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(3, 8) == [0, 1, 2]


def test_square_crops_the_centre() -> None:
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, 2:6] = 9
    assert (square(picture, 2) == 9).all()
    assert square(picture, 4).shape == (4, 4, 3)
