"""Tables trained from clips code those clips better than the shipped tables."""

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from iwcodec.codec.file import skip
from iwcodec.codec.file import train_tables as training
from iwcodec.codec.file.motion_pass import quantise_messages
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.file.train_tables import (
    ClipFits,
    bytes_per_frame,
    clip_fits,
    count_tracks,
    fit_predictor,
    keypoint_tracks,
    main,
    smoothed,
    train_directions,
    train_predictive,
    train_transform,
)
from iwcodec.codec.motion import predictive_tables, transform_tables
from iwcodec.codec.motion.prediction import Predictor
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_rdo import RateDistortionQuantiser
from iwcodec.codec.motion.transform_tables import ACTIVITIES, REACH, ROWS, SYMBOLS
from iwcodec.codec.motion.types import Quantiser
from iwcodec.models.runtime.types import Runtime
from support.media.clips import CLIP_FPS, CLIP_FRAMES

RNG = np.random.default_rng(0)


def head_track(seed: int, frames: int = 300) -> np.ndarray:
    """Twenty keypoints that move together, each with a little motion of its own."""
    rng = np.random.default_rng(seed)
    common = np.cumsum(rng.normal(0, 3, (frames, 1, 3)), 0)
    own = rng.normal(0, 0.6, (frames, 20, 3))
    return (common + own + np.arange(20)[:, None] * 5).round().astype(np.int32)


def test_tracks_are_on_the_quantiser_grid_and_move(
    face_clip: Path, blind_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "MESSAGE_FRAMES", 6)
    monkeypatch.setattr(skip, "MIN_DB", math.inf)
    tracks = keypoint_tracks(face_clip, blind_runtime, EncodeOptions(sources=1, effort=0))
    assert [track.shape for track in tracks] == [(6, 20, 3)] * (CLIP_FRAMES // 6)
    levels = np.concatenate(tracks) / Quantiser().steps
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
    assert np.ptp(levels, axis=0).max() > 1


def test_prediction_makes_a_rigidly_moving_head_cheaper() -> None:
    tracks, other = [head_track(seed) for seed in range(4)], head_track(9)
    means = np.concatenate(tracks).mean(0).round().astype(np.int32)
    sizes = []
    for predictor in (fit_predictor(tracks, means), Predictor.zero(20)):
        counts = count_tracks(tracks, means, predictor)
        coder = PredictiveCoder(predictive_tables.make_tables(counts, means, predictor))
        sizes.append(len(coder.encode(other[100:150], other[99])))
    assert sizes[0] < 0.75 * sizes[1]


def test_predictive_tables_trained_on_a_track_code_it_better() -> None:
    rng = np.random.default_rng(1)
    track = np.cumsum(rng.integers(-6, 7, (400, 20, 3)), 0).astype(np.int32)
    own, shipped = predictive_tables.make_tables(*train_predictive([track])), predictive_tables.load_tables()
    sizes = [len(PredictiveCoder(tables).encode(track[50:90], track[49])) for tables in (own, shipped)]
    assert sizes[0] < sizes[1]
    assert own.id != shipped.id


def test_bytes_per_frame_is_the_mean_over_whole_messages() -> None:
    coder, track = PredictiveCoder(predictive_tables.load_tables()), head_track(0, 50)
    sizes = [len(coder.encode(track[first : first + 20], None)) for first in (0, 20)]
    assert bytes_per_frame(coder, [track], 20) == np.mean(sizes) / 20


@pytest.fixture(scope="module")
def fits(face_clip: Path, blind_runtime: Runtime) -> ClipFits:
    with mock.patch.object(skip, "MIN_DB", math.inf):
        return clip_fits(face_clip, blind_runtime, EncodeOptions(sources=2, effort=0))


def test_fits_leave_out_sources(fits: ClipFits) -> None:
    assert fits.target.shape == (CLIP_FRAMES - 2, 60)
    assert fits.gram.shape == (CLIP_FRAMES - 2, 60, 60)
    assert fits.own.shape == (2, 60)
    assert set(fits.reference_source) <= {0, 1}
    assert fits.fps == CLIP_FPS


def test_directions_are_orthonormal_in_the_visible_error_and_sorted_by_motion(fits: ClipFits) -> None:
    directions = train_directions([fits]).astype(np.float64)
    form = np.mean([gram / gram.trace() for gram in fits.rest_gram], axis=0)
    np.testing.assert_allclose(directions.T @ form @ directions, np.eye(60), atol=1e-3)
    coordinates = np.linalg.solve(directions, (fits.target - fits.own[fits.reference_source]).T)
    power = np.square(coordinates).mean(1)
    assert power[0] == power.max()


def test_transform_tables_trained_on_a_clip_code_it_better(fits: ClipFits) -> None:
    counts, directions = train_transform([fits] * 3)
    assert counts.shape == (ROWS, SYMBOLS)
    tables = transform_tables.make_tables(counts, directions)
    messages = fits.messages(tables.directions)
    ours = sum(len(RateDistortionQuantiser(TransformCoder(tables), 78).message(frames).payload) for frames in messages)
    assert ours < sum(len(packet.payload) for packet in quantise_messages(messages, 78))


def test_rare_rows_are_filled_up_from_others_symmetrically() -> None:
    counts = np.zeros((ROWS, SYMBOLS))
    counts[0, REACH + 2] = 1000
    smooth = smoothed(counts)
    assert smooth.min() >= 1
    shares = smooth / smooth.sum(1, keepdims=True)
    other_coordinate, other_activity = shares[ACTIVITIES], shares[1]
    assert other_coordinate[REACH + 2] == pytest.approx(0.5, abs=0.1)
    assert other_activity[REACH + 2] < 0.2
    np.testing.assert_allclose(smooth[:, :-1], smooth[:, -2::-1], atol=1)


def test_transform_tables_made_from_levels_code_them_better() -> None:
    levels = (RNG.normal(size=(40, 60)) * 6).round().astype(np.int32)
    counts = np.zeros((ROWS, SYMBOLS))
    np.add.at(counts, (transform_tables.rows_of(levels, 40), transform_tables.symbols_of(levels)), 1)
    shipped = transform_tables.load_transform_tables()
    own = transform_tables.make_tables(smoothed(counts), shipped.directions.astype(np.float32))
    sizes = [len(TransformCoder(tables).encode([levels])) for tables in (own, shipped)]
    assert sizes[0] < sizes[1]
    assert own.id != shipped.id


@pytest.mark.parametrize("coder", ["predictive", "transform"])
def test_the_command_writes_tables_that_load(
    coder: str, face_clip: Path, fits: ClipFits, blind_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_runtime", lambda: blind_runtime)
    monkeypatch.setattr(skip, "MIN_DB", math.inf)
    monkeypatch.setattr(training, "FRAMES", 12)
    monkeypatch.setattr(training, "MESSAGE_FRAMES", 6)
    monkeypatch.setattr(training, "clip_fits", lambda *_: fits)
    clips = [str(face_clip)] * (3 if coder == "transform" else 1)
    main([coder, *clips, "-o", str(tmp_path / "tables.npz")])
    load = predictive_tables.load_tables if coder == "predictive" else transform_tables.load_transform_tables
    shipped, trained = load(), load(tmp_path / "tables.npz")
    assert trained.probabilities.shape == shipped.probabilities.shape
    assert trained.id != shipped.id
