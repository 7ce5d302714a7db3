"""AV1 units, which frames become sources, and what a library holds."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from iwcodec.codec.sources.av1 import SourceDecoder, SourceEncoder
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.source_policy import Judgement, SourcePolicy
from support.codec.textured_source import TEXTURE, K, textured_source
from support.web.vectors.values import Pasting, text


def vectors(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "av1": [av1_vector(256, None), av1_vector(256, 192), av1_vector(64, None)],
        "sources": source_vectors(rng),
        "library": library_vectors(rng),
    }


def av1_vector(size: int, side: int | None) -> dict[str, Any]:
    """Units of two pictures of `size`, coded at `side`, and what they decode to."""
    encoder, decoder = SourceEncoder(size, crf=50, preset=10, side=side), SourceDecoder(size)
    pictures = [np.ascontiguousarray(TEXTURE[:size, :size]), np.ascontiguousarray(TEXTURE[::-1][:size, :size])]
    units = [encoder.add(picture) for picture in pictures]
    return {
        "size": size,
        "units": [text(unit) for unit in units],
        "pictures": [text(decoder.add(unit)) for unit in units],
    }


SOURCE_SIDE = 64
"""Side of the pictures of `source_vectors`, in pixels."""


def source_vectors(rng: np.random.Generator) -> dict[str, Any]:
    """Judged frames of a stream in which poses last and recur, and which of them become sources. After 80 s sources
    help less than they should; the clock is set back once."""
    poses = [np.ascontiguousarray(np.roll(TEXTURE, 9 * n, axis=n % 2)[:SOURCE_SIDE, :SOURCE_SIDE]) for n in range(12)]
    coded = [cv2.GaussianBlur(pose, (0, 0), 1) for pose in poses]
    pictures = [*poses, *coded]
    policy, shown = SourcePolicy(Pasting()), [12]
    source = replace(textured_source(), picture=coded[0])
    policy.add(0, (source, 33.0), 0.0, 1800)
    first = {"coded": 12, "qualityDb": 33.0, "size": 1800}
    events: list[dict[str, Any]] = [{"atS": 0.0, "due": policy.due(0.0), "added": first}]
    pose = 0
    for n in range(1, 1500):
        at_s = n / 10 - (3 if n > 1000 else 0)
        if rng.random() < 0.03:
            pose = int(rng.integers(12))
        event: dict[str, Any] = {"atS": at_s, "due": policy.due(at_s)}
        events.append(event)
        if not event["due"]:
            continue
        nearest = 12 + pose if 12 + pose in shown else shown[-1]
        helps = 1.0 if n < 800 else float(rng.uniform(0.5, 1))
        quality_db = (34 if nearest == 12 + pose else 22) * helps + float(rng.normal(0, 1))
        policy.judge(poses[pose], Judgement(poses[pose], quality_db, replace(source, picture=pictures[nearest])), at_s)
        found = policy.wanted(at_s)
        event["judged"] = {"picture": pose, "qualityDb": quality_db, "nearest": nearest}
        event["wanted"] = next((k for k, one in enumerate(poses) if one is found), None)
        if found is not None:
            number, size, coded_db = event["wanted"], int(rng.integers(120, 700)), float(rng.uniform(30, 36))
            policy.add(n, (replace(source, picture=coded[number]), coded_db), at_s, size)
            event["added"] = {"coded": 12 + number, "qualityDb": coded_db, "size": size}
            shown.append(12 + number)
    return {"pictures": [text(picture) for picture in pictures], "side": SOURCE_SIDE, "events": events}


def library_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """What a library is given and asked, in order: slots in the attention of each frame, and the slots in use."""
    library, events = Library(8), []
    for n in range(200):
        pose = rng.uniform(-1, 1, (K, 3)).astype(np.float32)
        event: dict[str, Any] = {"pose": pose.ravel().tolist()}
        if n % 3:
            regions = [None if slot < 0 else int(slot) for slot in rng.integers(-1, 14, 2)]
            asked = int(rng.integers(0, 14)) if n % 2 else None
            attended = library.attended(pose, asked, regions)
            event |= {"reference": asked, "regions": regions, "attended": [library.slot(one) for one in attended]}
        else:
            slot, variant = int(rng.integers(0, 14)), bool(rng.random() < 0.4)
            library.add(slot, replace(textured_source(), keypoints=pose), variant)
            event |= {"add": slot, "variant": variant}
        events.append(event | {"slots": sorted(library.slots())})
    return events
