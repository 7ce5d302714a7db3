"""Keypoint tracks of real clips, as files send them: what the motion coder's tables are made from.

    python -m iwcodec.motion_tracks CLIPS... -o tracks.npz
    python -m iwcodec.motion_tables tracks.npz -o codec/data/motion_tables.npz

Every clip is framed, its sources chosen and its motion fitted and quantised as by `iwcodec encode`, without a bound on
the rate. Since levels are chosen with the tables at hand, two rounds of both commands settle.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .clip_motion import fitted_motion
from .decoder import Decoder
from .files import CHUNK_S, EncodeOptions, code_sources, fit_for, frame_input, survey_clip
from .models.runtime import Runtime, load_runtime
from .motion import MotionCoder, Quantiser
from .motion_rdo import MotionQuantiser
from .motion_tables import load_tables
from .selection import Survey

FRAMES = 100
"""Frames taken of a clip."""


def track(clip: Path, runtime: Runtime, options: EncodeOptions) -> list[NDArray[np.float32]]:
    """Keypoints (m, K, 3) of the coded frames of each message of the beginning of a clip, on the quantiser's grid.
    Raises CodecError."""

    def tell(name: str, share: float) -> None:
        pass

    video = frame_input(clip, options, tell)
    survey = survey_clip(video, runtime, tell)
    survey = Survey(survey.thumbnails[:FRAMES], survey.keypoints[:FRAMES])
    message_frames = max(1, round(CHUNK_S * video.info.fps))
    coded = code_sources(video, survey, options, tell)
    decoder = Decoder(runtime, active=len(coded.packets))
    found = list(fitted_motion(video.pictures(), survey.keypoints, coded, decoder, fit_for(options.effort)))
    chooser, tracks = MotionQuantiser(MotionCoder(load_tables()), Quantiser()), []
    for first in range(0, len(found), message_frames):
        frames, leaders = zip(*found[first : first + message_frames], strict=True)
        tracks.append(Quantiser().dequantise(chooser.message(frames, leaders).levels))
    return tracks


def main(arguments: list[str]) -> None:
    clips, target = arguments[: arguments.index("-o")], arguments[arguments.index("-o") + 1]
    runtime, options = load_runtime(), EncodeOptions(sources=2)
    tracks = {
        f"{Path(clip).stem}-{number}": rows
        for clip in clips
        for number, rows in enumerate(track(Path(clip), runtime, options))
    }
    np.savez_compressed(target, **tracks)  # type: ignore[arg-type]
    print(f"{len(tracks)} tracks, {sum(map(len, tracks.values()))} frames")


if __name__ == "__main__":
    main(sys.argv[1:])
