"""Keypoint tracks of real clips, as calls send them: what the motion coder's tables are made from.

    python -m iwcodec.codec.file.keypoint_tracks CLIPS... -o tracks.npz
    python -m iwcodec.codec.motion.predictive_tables tracks.npz -o codec/data/motion_tables.npz

Every clip is framed, its sources chosen and its motion fitted as by `iwcodec encode`, and quantised as in a call. Since
levels are chosen with the tables at hand, two rounds of both commands settle.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.file.clip import EncodeOptions
from iwcodec.codec.file.train_tables import fitted_beginning
from iwcodec.codec.fit.alignment import as_keypoints
from iwcodec.codec.motion.decoder import MotionDecoder
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.types import Quantiser
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime

MESSAGE_FRAMES = 50


def track(clip: Path, runtime: Runtime, options: EncodeOptions) -> list[NDArray[np.float32]]:
    """Keypoints (MESSAGE_FRAMES, K, 3) of each message of the beginning of a clip, on the quantiser's grid. Raises
    CodecError."""
    found, _, _ = fitted_beginning(clip, runtime, options)
    encoder, decoder, tracks = MotionEncoder(), MotionDecoder(runtime.info.keypoints), []
    for frame, reference_source, _ in found:
        number = encoder.push(as_keypoints(frame.target), reference_source, frame.gram if frame.gram.any() else None)
        if number % MESSAGE_FRAMES == MESSAGE_FRAMES - 1:
            packet = encoder.pack(number + 1 - MESSAGE_FRAMES, MESSAGE_FRAMES)
            tracks.append(np.stack([motion.keypoints for motion in decoder.decode(packet, Quantiser())]))
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
