"""Tracks as calls send them."""

from pathlib import Path

import numpy as np

from iwcodec.codec.file import keypoint_tracks as motion_tracks
from iwcodec.codec.file.clip import EncodeOptions
from iwcodec.codec.motion.types import Quantiser
from iwcodec.models.runtime.load import load_runtime


def test_a_track_is_on_the_grid_and_moves(face_clip: Path, monkeypatch):
    monkeypatch.setattr(motion_tracks, "MESSAGE_FRAMES", 12)
    tracks = motion_tracks.track(face_clip, load_runtime(threads=1), EncodeOptions(sources=1, effort=0))
    assert [track.shape for track in tracks] == [(12, 20, 3)] * 3
    levels = np.concatenate(tracks) / Quantiser().steps
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
    assert np.ptp(levels, axis=0).max() > 1
