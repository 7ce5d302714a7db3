"""AV1 units, which frames become sources, and what a library holds."""

from dataclasses import replace
from typing import Any

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


def source_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Judged frames of a stream in which poses last, and which of them become sources. After 100 s the clock steps
    back."""
    policy, source = SourcePolicy(Pasting()), textured_source()  # type: ignore[arg-type]
    events: list[dict[str, Any]] = []
    helped = False
    for n in range(1500):
        at_s = n / 10 - (3 if n > 1000 else 0)
        helped &= rng.random() > 0.03
        event: dict[str, Any] = {"atS": at_s, "due": policy.due(at_s)}
        events.append(event)
        if not event["due"]:
            continue
        quality_db = (33 if helped else 22) + float(rng.normal(0, 2))
        is_wanted = not n or policy.wants(Judgement(source.picture, quality_db), at_s)
        if n:
            event["judged"] = {"qualityDb": quality_db, "wanted": is_wanted}
        if is_wanted:
            size, coded_db = int(rng.integers(120, 700)), float(rng.uniform(30, 36))
            policy.add(n, (source, coded_db), at_s, size)
            event["added"] = {"qualityDb": coded_db, "size": size}
            helped = True
    return events


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
