"""Tables, coded levels, and the coordinates of a source."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.errors import CodecError
from iwcodec.codec.fit.alignment import backward, reference
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.space import motion_space
from iwcodec.codec.motion.transform_coder import TransformCoder, inverse_transform
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.server.http.player import tables_json
from support.codec.fuzzing import mutated
from support.codec.textured_source import TEXTURE, K, textured_source
from support.web.vectors.values import moving_source, text

TRANSFORM, PREDICTIVE = TransformCoder(load_transform_tables()), PredictiveCoder(load_tables())


def random_levels(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int32]:
    """Levels of many magnitudes, a few of them escaped."""
    levels = rng.laplace(0, rng.choice([0.2, 1.5, 8, 3000]), shape)
    return np.clip(np.rint(levels), -30_000, 30_000).astype(np.int32)


def transform_vector(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Levels, a message of the transform coder, every other one damaged, and its levels: None if it is refused."""
    lengths = rng.integers(1, 30, int(rng.integers(1, 5))).tolist()
    coded = [random_levels((length, 3 * K), rng) * (rng.random((length, 1)) < 0.7) for length in lengths]
    intact = TRANSFORM.encode([rows.astype(np.int32) for rows in coded])
    payload = mutated(intact, rng) if number % 2 else intact
    try:
        levels = [rows.ravel().tolist() for rows in TRANSFORM.decode(payload, lengths, 3 * K)]
    except CodecError:
        levels = None
    own = {"coded": [rows.ravel().tolist() for rows in coded], "intact": text(intact)}
    return {"payload": text(payload), "lengths": lengths, "levels": levels, **own}


def predictive_vector(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Levels, a message of the predictive coder, every other one damaged, and its levels: None if it is refused. Every
    fifth is of a number of keypoints that the tables are not for."""
    keypoints = K if number % 5 else 7
    frames = random_levels((int(rng.integers(1, 9)), keypoints, 3), rng)
    before = random_levels((keypoints, 3), rng) if number % 3 else None
    intact = PREDICTIVE.encode(frames, before)
    payload = mutated(intact, rng) if number % 2 else intact
    try:
        levels = PREDICTIVE.decode(payload, len(frames), keypoints, before).reshape(len(frames), -1).tolist()
    except CodecError:
        levels = None
    reference_levels = None if before is None else before.ravel().tolist()
    return {
        "payload": text(payload),
        "intact": text(intact),
        "frames": frames.ravel().tolist(),
        "count": len(frames),
        "keypoints": keypoints,
        "reference": reference_levels,
        "levels": levels,
    }


def inverse_vector(rng: np.random.Generator) -> dict[str, Any]:
    """Levels of a run and its coordinates."""
    levels = random_levels((9, 3 * K), rng)
    return {
        "levels": levels.ravel().tolist(),
        "length": 9,
        "scale": 90,
        "coordinates": inverse_transform(levels, 90).ravel().tolist(),
    }


def space_vector() -> dict[str, Any]:
    """A source, and the keypoints of one frame in its coordinates."""
    source = moving_source(TEXTURE, textured_source().keypoints)
    space = motion_space(source, load_transform_tables().directions)
    coordinates = np.random.default_rng(3).normal(0, 2, (1, 3 * K))
    return {
        "picture": text(source.picture),
        "basis": text(source.basis.astype("<f4")),
        "keypoints": source.keypoints.ravel().tolist(),
        "coordinates": coordinates.ravel().tolist(),
        "moved": space.keypoints(coordinates)[0].ravel().tolist(),
        "backward": backward(reference(source).moved(space.own + 0.05).reshape(32, 32, 2) * np.float32(16))
        .ravel()
        .tolist(),
    }


def vectors(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "tables": tables_json(),
        "transform": [transform_vector(n, rng) for n in range(160)],
        "predictive": [predictive_vector(n, rng) for n in range(160)],
        "inverse": inverse_vector(rng),
        "space": space_vector(),
    }
