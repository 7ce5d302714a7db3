"""Train the static tables of the two motion coders from video clips.

    python -m iwcodec.codec.file.train_tables predictive CLIPS... -o codec/data/motion_tables.npz
    python -m iwcodec.codec.file.train_tables transform CLIPS... -o codec/data/transform_tables.npz

Sources are chosen and motion is fitted as by `iwcodec encode`, over the first FRAMES frames of each clip. The
predictive coder's levels are chosen with the tables that are installed, so its training is run twice, the second time
with the result of the first as codec/data/motion_tables.npz.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.clip import MESSAGE_S, read_clip
from iwcodec.codec.file.motion_pass import fit_motion
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.file.passes import code_sources, fit_for
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.fit.alignment import as_keypoints
from iwcodec.codec.motion import predictive_tables, transform_tables
from iwcodec.codec.motion.decoder import MotionDecoder
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.prediction import SHIFT, Predictor, predict
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.space import MotionSpace, at_rest, columns
from iwcodec.codec.motion.transform_coder import TransformCoder, scale_of, used_frequencies
from iwcodec.codec.motion.transform_rdo import RateDistortionQuantiser
from iwcodec.codec.motion.types import Fit, Levels, Quadratic, Quantiser
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime

FRAMES = 100
"""Frames used of each clip, from its start."""
COUNT_SUM = 1_000_000
"""Sum of the integer counts in each row of a table, before rounding."""

PREDICTIVE_SOURCES = 2
"""Sources for each clip that the predictive tables are trained on."""
MESSAGE_FRAMES = 50
"""Frames in one track of the predictive tables' training data."""
RIDGE, INTRA_RIDGE = 30.0, 300.0
"""Squared levels added to the diagonal of the least-squares fit, for frames with and without a previous frame. They
keep the weights of values that rarely move small."""
INTRA_STRIDE = 5
"""Every Nth frame of a track is also used as a frame without a previous frame."""

TRANSFORM_SOURCES = (1, 3)
"""Each clip is used once with each of these numbers of sources."""
STEPS = (0.4, 0.8)
"""Quantiser steps at which levels are counted. The tables serve all steps; most files use about these."""
ROUNDS = (slice(0, None, 3), slice(1, None, 3), slice(0, None, 2))
"""Clips counted in each round; levels are chosen with the tables of the round before."""


def fit_clip_start(clip: Path, runtime: Runtime, options: EncodeOptions) -> tuple[Iterator[Fit], Decoder, float]:
    """Fit the motion of the first FRAMES frames of a clip as `encode` does.

    Returns the fits, the decoder that holds their sources, and the frame rate. Raises CodecError.
    """

    def progress(name: str, share: float) -> None:
        pass

    whole = read_clip(clip, runtime, options, progress)
    survey = Survey(whole.survey.thumbnails[:FRAMES], whole.survey.keypoints[:FRAMES])
    coded = code_sources(replace(whole, survey=survey), progress)
    decoder = Decoder(runtime, active=len(coded.packets))
    pictures, fit = whole.video.pictures(), fit_for(options.effort)
    fits = fit_motion(pictures, survey.keypoints, coded, FRAMES, decoder, fit)
    return fits, decoder, float(whole.video.info.fps)


# Predictive coder


def keypoint_tracks(clip: Path, runtime: Runtime, options: EncodeOptions) -> list[NDArray[np.float32]]:
    """Keypoints (MESSAGE_FRAMES, K, 3) of each full message in the start of a clip, quantised as in a call.

    Raises CodecError.
    """
    fits, _, _ = fit_clip_start(clip, runtime, options)
    encoder, decoder, tracks = MotionEncoder(), MotionDecoder(runtime.info.keypoints), []
    for frame, reference_source, _ in fits:
        number = encoder.push(as_keypoints(frame.target), reference_source, frame.gram if frame.gram.any() else None)
        if number % MESSAGE_FRAMES == MESSAGE_FRAMES - 1:
            packet = encoder.pack(number + 1 - MESSAGE_FRAMES, MESSAGE_FRAMES)
            tracks.append(np.stack([motion.keypoints for motion in decoder.decode(packet, Quantiser())]))
    return tracks


def train_predictive(tracks: Sequence[Levels]) -> tuple[NDArray[np.uint32], NDArray[np.int32], Predictor]:
    """Counts, means and predictor of quantised tracks (n, K, 3): the arguments of predictive_tables.make_tables."""
    means = np.concatenate(tracks).mean(0).round().astype(np.int32)
    predictor = fit_predictor(tracks, means)
    return count_tracks(tracks, means, predictor), means, predictor


def fit_predictor(tracks: Sequence[Levels], means: NDArray[np.int32]) -> Predictor:
    """Fit the weights by least squares over quantised tracks (n, K, 3)."""
    moves = [np.diff(track, axis=0) for track in tracks]
    moved = np.concatenate([move[1:] for move in moves])
    last = np.concatenate([move[:-1] for move in moves])
    starts = np.concatenate([track[::INTRA_STRIDE] for track in tracks]) - means
    return Predictor(
        fit_weights(moved, last, RIDGE),
        fit_weights(starts, np.zeros_like(starts), INTRA_RIDGE),
    )


def fit_weights(moves: NDArray[np.int32], last: NDArray[np.int32], ridge: float) -> NDArray[np.int32]:
    """Moves (n, K, 3) of n frames and of the frames before them -> weights (K, 3, 2 K), in units of 1 / 2**SHIFT."""
    count = moves.shape[1]
    weights = np.zeros((count, 3, 2 * count))
    for axis in range(3):
        features = np.concatenate([moves[..., axis], last[..., axis]], axis=1).astype(np.float64)
        for k in range(count):
            known = [*range(k), *range(count, 2 * count)]
            x = features[:, known]
            gram = x.T @ x + ridge * np.eye(len(known))
            weights[k, axis, known] = np.linalg.solve(gram, x.T @ features[:, k])
    return np.clip((weights * (1 << SHIFT)).round(), -(1 << 15), (1 << 15) - 1).astype(np.int32)


def count_tracks(tracks: Iterable[Levels], means: NDArray[np.int32], predictor: Predictor) -> NDArray[np.uint32]:
    """Count the residuals of quantised tracks (n, K, 3) in each context: (CONTEXTS, SYMBOLS)."""
    tables = predictive_tables
    counts = np.zeros((tables.CONTEXTS, tables.SYMBOLS), np.float64)
    zero = np.zeros_like(means)

    def count(moved: Levels, last: Levels, weights: NDArray[np.int32], last_residuals: Levels | None) -> Levels:
        residuals = moved - predict(weights, moved, last)
        rows = tables.rows_of(tables.frame_contexts(last_residuals, len(means)), residuals)
        np.add.at(counts, (rows, tables.symbols_of(residuals)), 1)
        return residuals

    for track in tracks:
        last, last_residuals = zero, zero
        for previous, current in itertools.pairwise(track):
            moved = current - previous
            last_residuals = count(moved, last, predictor.inter, last_residuals)
            last = moved
        for start in track[::INTRA_STRIDE]:
            count(start - means, zero, predictor.intra, None)
    # Rare symbols get a share that shrinks with the distance from 0, so that no count is 0.
    tail = 0.3 * 0.8 ** np.abs(np.arange(tables.SYMBOLS) - tables.REACH) + 0.02
    tail[-1] = 0.02
    scaled = (counts + tail) * (COUNT_SUM / (counts + tail).sum(1, keepdims=True))
    return np.maximum(1, scaled.round()).astype(np.uint32)


def bytes_per_frame(coder: PredictiveCoder, tracks: Iterable[Levels], frames: int) -> float:
    """Mean size of a frame when each track is coded in independent messages of `frames` frames."""
    sizes = [
        len(coder.encode(track[first : first + frames], None))
        for track in tracks
        for first in range(0, len(track) - frames + 1, frames)
    ]
    return float(np.mean(sizes)) / frames


def train_predictive_file(clips: Sequence[Path], target: Path) -> None:
    runtime, options, quantiser = load_runtime(), EncodeOptions(sources=PREDICTIVE_SOURCES, tune="psnr"), Quantiser()
    tracks: list[Levels] = []
    for clip in clips:
        tracks += [quantiser.quantise_track(track) for track in keypoint_tracks(clip, runtime, options)]
        print(f"{clip.stem}: {len(tracks)} tracks so far", flush=True)
    counts, means, predictor = train_predictive(tracks)
    np.savez_compressed(target, counts=counts, means=means, inter=predictor.inter, intra=predictor.intra)
    coder = PredictiveCoder(predictive_tables.make_tables(counts, means, predictor))
    for frames in (3, MESSAGE_FRAMES):
        size = bytes_per_frame(coder, tracks, frames)
        print(f"messages of {frames} frames: {size:.2f} bytes per frame")


# Transform coder


@dataclass(frozen=True)
class ClipFits:
    """The fits of the start of a clip, for frames that are neither sources nor in skip mode."""

    target: NDArray[np.float64]
    """(n, 3 K): fitted unknowns."""
    gram: NDArray[np.float32]
    """(n, 3 K, 3 K): quadratic form of their errors."""
    reference_source: NDArray[np.int64]
    """(n,): index of the reference source in `own` and `rest_gram`."""
    own: NDArray[np.float64]
    """(s, 3 K): the sources' own keypoints."""
    rest_gram: NDArray[np.float64]
    """(s, 3 K, 3 K): quadratic form of errors of the sources' own keypoints."""
    fps: float

    def messages(self, directions: NDArray[np.float64]) -> list[list[Fit]]:
        """The fits in the coordinates of their reference sources, one list for each message."""
        spaces = [
            MotionSpace(own, columns(gram, directions)) for own, gram in zip(self.own, self.rest_gram, strict=True)
        ]
        fits = [
            Fit(Quadratic(spaces[n].coordinates(target), spaces[n].metric(gram.astype(np.float64))), int(n))
            for target, gram, n in zip(self.target, self.gram, self.reference_source, strict=True)
        ]
        length = max(1, round(MESSAGE_S * self.fps))
        return [fits[first : first + length] for first in range(0, len(fits), length)]


def clip_fits(clip: Path, runtime: Runtime, options: EncodeOptions) -> ClipFits:
    """Fit the start of a clip. Raises CodecError."""
    fits, decoder, fps = fit_clip_start(clip, runtime, options)
    moving = [(frame, reference_source) for frame, reference_source, _ in fits if frame.gram.any()]
    rest = [at_rest(source) for source in decoder.library.sources()]
    return ClipFits(
        target=np.array([frame.target for frame, _ in moving]),
        gram=np.array([frame.gram for frame, _ in moving], np.float32),
        reference_source=np.array([reference_source for _, reference_source in moving], np.int64),
        own=np.array([own for own, _ in rest]),
        rest_gram=np.array([gram for _, gram in rest]),
        fps=fps,
    )


def train_transform(clips: Sequence[ClipFits]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Counts and directions of fitted clips: the arguments of transform_tables.make_tables."""
    tables = transform_tables
    directions = train_directions(clips)
    messages = [clip.messages(directions.astype(np.float64)) for clip in clips]
    # Initial guess: each step away from level 0 is 4.5 times as rare.
    initial = 5 * np.exp(-1.5 * np.abs(np.arange(tables.SYMBOLS) - tables.SYMBOLS // 2))
    counts = smoothed(np.tile(initial, (tables.ROWS, 1)))
    for selected in ROUNDS:
        coder = TransformCoder(tables.make_tables(counts, directions))
        counted = np.zeros((tables.ROWS, tables.SYMBOLS))
        for step in STEPS:
            quantiser = RateDistortionQuantiser(coder, scale_of(step))
            for frames in (frames for clip in messages[selected] for frames in clip):
                for levels in quantiser.message(frames).levels:
                    used = levels[: used_frequencies(levels)]
                    np.add.at(counted, (tables.rows_of(used, len(levels)), tables.symbols_of(used)), 1)
        counts = smoothed(counted)
    return counts, directions


def train_directions(clips: Sequence[ClipFits]) -> NDArray[np.float32]:
    """Principal directions of motion, as columns (3 K, 3 K): those in which frames differ most from their reference
    sources, measured by the visible error (the mean quadratic form of the sources)."""
    differences = [clip.target - clip.own[clip.reference_source] for clip in clips]
    covariance = np.mean([rows.T @ rows / len(rows) for rows in differences], axis=0)
    form = np.mean([gram / gram.trace() for clip in clips for gram in clip.rest_gram], axis=0)
    factor = np.linalg.cholesky(form)
    _, vectors = np.linalg.eigh(factor.T @ covariance @ factor)
    return np.asarray(np.linalg.solve(factor.T, vectors[:, ::-1]), np.float32)


def smoothed(counts: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Raw counts (ROWS, SYMBOLS) of levels -> integer counts of the tables, none of them 0.

    A rarely used row is filled up from the rows of other coordinates, and these from the rows of all frequencies.
    Positive and negative levels get equal counts.
    """
    tables = transform_tables
    by_class = counts.reshape(tables.FREQUENCIES, tables.COORDINATES, tables.ACTIVITIES, tables.SYMBOLS)
    rarest = 0.02 * 0.9 ** np.abs(np.arange(tables.SYMBOLS) - tables.REACH) + 1e-4
    overall = _shares(by_class.sum((0, 1)) + rarest)
    of_frequency = 0.9 * _shares(by_class.sum(1) + 1e-3) + 0.1 * overall
    shares = (by_class + 20 * of_frequency[:, None]) / (by_class.sum(-1, keepdims=True) + 20)
    shares = 0.998 * shares + 0.002 * overall
    shares[..., :-1] = (shares[..., :-1] + shares[..., -2::-1]) / 2
    return np.maximum(1, (shares.reshape(tables.ROWS, tables.SYMBOLS) * COUNT_SUM).round()).astype(np.uint32)


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(counts / counts.sum(-1, keepdims=True))


def train_transform_file(clips: Sequence[Path], target: Path) -> None:
    runtime, fits = load_runtime(), []
    for clip in clips:
        for sources in TRANSFORM_SOURCES:
            fits.append(clip_fits(clip, runtime, EncodeOptions(sources=sources, crop="none", tune="psnr")))
            print(f"{clip.stem}: {len(fits[-1].target)} frames, {sources} sources", flush=True)
    counts, directions = train_transform(fits)
    np.savez_compressed(target, counts=counts, directions=directions)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m iwcodec.codec.file.train_tables", description="Train a motion coder's static tables from clips."
    )
    parser.add_argument("coder", choices=("predictive", "transform"), help="the coder of calls (predictive) or files")
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP", help="video files of talking heads")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the tables to write (.npz)")
    options = parser.parse_args(arguments)
    train = train_predictive_file if options.coder == "predictive" else train_transform_file
    train(options.clips, options.output)


if __name__ == "__main__":
    main(sys.argv[1:])
