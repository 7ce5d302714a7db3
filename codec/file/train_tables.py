"""Fits of real clips, as files find them: what the transform coder's tables are made from.

    python -m iwcodec.codec.file.train_tables CLIPS... -o FOLDER
    python -m iwcodec.codec.motion.transform_tables FOLDER/*.npz -o codec/data/transform_tables.npz

Every clip is taken whole, its sources chosen and its motion fitted as by `iwcodec encode`: first from one source, then
from three. One file a clip and number of sources holds float arrays: `target` (n, 3 K) and `gram` (n, 3 K, 3 K) of the
frames, `lead` (n,), the source that leads, `own` (s, 3 K) and `H` (s, 3 K, 3 K), the sources' own keypoints and what
errors of them cost at rest, and `fps`.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.clip import CHUNK_S, EncodeOptions, read_clip
from iwcodec.codec.file.motion_pass import fitted_motion
from iwcodec.codec.file.passes import code_sources, fit_for
from iwcodec.codec.file.source_selection import Survey
from iwcodec.codec.motion.space import MotionSpace, at_rest, columns
from iwcodec.codec.motion.transform_coder import TransformCoder, scale_of, used_frequencies
from iwcodec.codec.motion.transform_rdo import Chooser
from iwcodec.codec.motion.transform_tables import ROWS, SYMBOLS, make_tables, rows_of, smoothed, symbols_of
from iwcodec.codec.motion.types import Fit, Quadratic
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime

FRAMES = 100
"""Frames taken of a clip."""
SOURCES = (1, 3)
STEPS = (0.4, 0.8)
"""Whose levels are counted: tables serve all steps, and these are the ones that files mostly have."""
ROUNDS = (slice(0, None, 3), slice(1, None, 3), slice(0, None, 2))
"""Which clips are counted in each round: levels are chosen with the tables of the round before."""


@dataclass(frozen=True)
class ClipFits:
    """What a file holds, as the module's docstring has it."""

    target: NDArray[np.float64]
    gram: NDArray[np.float64]
    lead: NDArray[np.int64]
    own: NDArray[np.float64]
    H: NDArray[np.float64]
    fps: float

    def messages(self, directions: NDArray[np.float64]) -> list[list[Fit]]:
        """In the coordinates of the sources, a message's frames together."""
        spaces = [MotionSpace(own, columns(gram, directions)) for own, gram in zip(self.own, self.H, strict=True)]
        fits = [
            Fit(Quadratic(spaces[lead].coordinates(target), spaces[lead].metric(gram)), int(lead))
            for target, gram, lead in zip(self.target, self.gram, self.lead, strict=True)
        ]
        length = max(1, round(CHUNK_S * self.fps))
        return [fits[first : first + length] for first in range(0, len(fits), length)]


def read_fits(file: Path) -> ClipFits:
    with np.load(file) as data:
        target, gram, own, form = (data[name].astype(np.float64) for name in ("target", "gram", "own", "H"))
        return ClipFits(target, gram, data["lead"].astype(np.int64), own, form, float(data["fps"]))


def train_tables(clips: Sequence[ClipFits]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Counts and directions, as the tables' file holds them."""
    directions = train_directions(clips)
    messages = [clip.messages(directions.astype(np.float64)) for clip in clips]
    # Before anything was counted, levels are rarer by 4.5 times with each step from 0.
    start = 5 * np.exp(-1.5 * np.abs(np.arange(SYMBOLS) - SYMBOLS // 2))
    counts = smoothed(np.tile(start, (ROWS, 1)))
    for chosen in ROUNDS:
        coder, found = TransformCoder(make_tables(counts, directions)), np.zeros((ROWS, SYMBOLS))
        for step in STEPS:
            chooser = Chooser(coder, scale_of(step))
            for frames in (frames for clip in messages[chosen] for frames in clip):
                for levels in chooser.message(frames).levels:
                    used = levels[: used_frequencies(levels)]
                    np.add.at(found, (rows_of(used, len(levels)), symbols_of(used)), 1)
        counts = smoothed(found)
    return counts, directions


def train_directions(clips: Sequence[ClipFits]) -> NDArray[np.float32]:
    """Columns (3 K, 3 K): the directions in which frames are far from their sources, measured as pictures see it."""
    away = [clip.target - clip.own[clip.lead] for clip in clips]
    spread = np.mean([rows.T @ rows / len(rows) for rows in away], axis=0)
    seen = np.mean([gram / gram.trace() for clip in clips for gram in clip.H], axis=0)
    factor = np.linalg.cholesky(seen)
    _, vectors = np.linalg.eigh(factor.T @ spread @ factor)
    return np.asarray(np.linalg.solve(factor.T, vectors[:, ::-1]), np.float32)


def fitted_beginning(clip: Path, runtime: Runtime, options: EncodeOptions) -> tuple[Iterator[Fit], Decoder, float]:
    """The fits of the first FRAMES frames of a clip as `encode` finds them, the decoder that they are found with, and
    the frame rate. Raises CodecError."""

    def tell(name: str, share: float) -> None:
        pass

    whole = read_clip(clip, runtime, options, tell)
    survey = Survey(whole.survey.thumbnails[:FRAMES], whole.survey.keypoints[:FRAMES])
    coded = code_sources(replace(whole, survey=survey), tell)
    decoder = Decoder(runtime, active=len(coded.packets))
    pictures, fit = whole.video.pictures(), fit_for(options.effort)
    found = fitted_motion(pictures, survey.keypoints, coded, FRAMES, decoder, fit)
    return found, decoder, float(whole.video.info.fps)


def fits_of(clip: Path, runtime: Runtime, options: EncodeOptions) -> dict[str, NDArray[np.float64] | float]:
    """What a file holds of the beginning of a clip. Raises CodecError."""
    found, decoder, fps = fitted_beginning(clip, runtime, options)
    moving = [(frame, lead) for frame, lead, _ in found if frame.gram.any()]
    rest = [at_rest(source) for source in decoder.library.sources()]
    return {
        "target": np.array([frame.target for frame, _ in moving]),
        "gram": np.array([frame.gram for frame, _ in moving], np.float32),
        "lead": np.array([lead for _, lead in moving]),
        "own": np.array([own for own, _ in rest]),
        "H": np.array([gram for _, gram in rest]),
        "fps": fps,
    }


def main(arguments: list[str]) -> None:
    clips, folder = arguments[: arguments.index("-o")], Path(arguments[arguments.index("-o") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    runtime = load_runtime()
    for clip in map(Path, clips):
        for sources in SOURCES:
            found = fits_of(clip, runtime, EncodeOptions(sources=sources, crop="none"))
            np.savez_compressed(folder / f"{clip.stem}-{sources}.npz", **found)  # type: ignore[arg-type]
            print(f"{clip.stem}: {len(found['lead'])} frames, {sources} sources", flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1:])
