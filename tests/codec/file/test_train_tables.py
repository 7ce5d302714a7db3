"""Fits of clips, and the tables that are made from them."""

from pathlib import Path

import numpy as np
import pytest

from iwcodec.codec.file.clip import EncodeOptions
from iwcodec.codec.file.motion_pass import packed_motion
from iwcodec.codec.file.train_tables import ClipFits, fits_of, read_fits, train_directions, train_tables
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_rdo import Chooser
from iwcodec.codec.motion.transform_tables import ROWS, SYMBOLS, make_tables
from iwcodec.models.runtime.load import load_runtime


@pytest.fixture(scope="module")
def clip_fits(face_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipFits:
    found = fits_of(face_clip, load_runtime(threads=1), EncodeOptions(sources=2, effort=0))
    file = tmp_path_factory.mktemp("fits") / "face-2.npz"
    np.savez_compressed(file, **found)  # type: ignore[arg-type]
    return read_fits(file)


def test_fits_are_those_of_the_frames_that_are_not_shown_as_they_came(clip_fits: ClipFits):
    assert clip_fits.target.shape == (34, 60)
    assert clip_fits.gram.shape == (34, 60, 60)
    assert clip_fits.own.shape == (2, 60)
    assert set(clip_fits.lead) <= {0, 1}
    assert clip_fits.fps == 24


def test_directions_are_orthogonal_as_pictures_see_it_and_the_first_moves_most(clip_fits: ClipFits):
    directions = train_directions([clip_fits]).astype(np.float64)
    form = np.mean([gram / gram.trace() for gram in clip_fits.H], axis=0)
    np.testing.assert_allclose(directions.T @ form @ directions, np.eye(60), atol=1e-3)
    away = np.linalg.solve(directions, (clip_fits.target - clip_fits.own[clip_fits.lead]).T)
    power = np.square(away).mean(1)
    assert power[0] == power.max()


def test_tables_of_a_clip_code_it_better_than_the_shipped_ones(clip_fits: ClipFits):
    counts, directions = train_tables([clip_fits] * 3)
    assert counts.shape == (ROWS, SYMBOLS)
    tables = make_tables(counts, directions)
    messages = clip_fits.messages(tables.directions)
    ours = sum(len(Chooser(TransformCoder(tables), 78).message(frames).payload) for frames in messages)
    assert ours < sum(len(packet.payload) for packet in packed_motion(messages, 78))
