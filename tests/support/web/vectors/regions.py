"""Regions of other sources and of variants, and which variants are sent."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.regions import Compositor, region_box
from iwcodec.codec.sources.variant_policy import VariantPolicy
from support.codec.textured_source import TEXTURE
from support.web.vectors.values import Pasting, face_keypoints, moving_source, text


def vectors(rng: np.random.Generator) -> dict[str, Any]:
    return {"composites": composite_vectors(), "variants": variant_vectors()}


def composite_vectors() -> dict[str, Any]:
    """Two sources, and the first one with regions of the other, and of a variant that shows the other's picture."""
    keypoints = face_keypoints()
    first = moving_source(TEXTURE, keypoints)
    turn = np.array([0.06, -0.03, 0], np.float32)
    other = moving_source(np.ascontiguousarray(TEXTURE[:, ::-1]), keypoints + turn)
    variant = replace(first, picture=other.picture)
    compositor = Compositor(Pasting())
    shown = [(other, None), (None, variant), (variant, other)]
    return {
        "sources": [
            {
                "picture": text(source.picture),
                "keypoints": source.keypoints.ravel().tolist(),
                "basis": text(source.basis.astype("<f4")),
            }
            for source in (first, other)
        ],
        "pictures": [text(compositor.composite(first, others).picture) for others in shown],
    }


def variant_vectors() -> dict[str, Any]:
    """Frames of a face whose eyes and mouth change for a while, what their regions show, and the variants sent. In
    every fifth frame from the 15th on only the source has arrived. Later variants would be no more than what
    coordinates of another precision leave."""
    source = moving_source(cv2.GaussianBlur(TEXTURE, (0, 0), 2), face_keypoints())
    library = Library(8)
    library.add(0, source)
    policy, added = VariantPolicy(Compositor(Pasting()), library), 1
    faces = [source.picture.copy() for _ in range(3)]
    for face, region, grey in ((faces[1], 0, 40), (faces[2], 1, 210)):
        box = region_box(source.keypoints, region, 256)
        axes = (int(box.width / 4), int(box.height / 5))
        cv2.ellipse(face, (int(box.centre[0]), int(box.centre[1])), axes, 0, 0, 360, (grey,) * 3, -1)
    frames = []
    for n in range(39):
        face = (n // 10) % 3
        keypoints = source.keypoints + np.array([0.01 * (n % 4), 0, 0], np.float32)
        arrived = [0] if n > 10 and n % 5 == 0 else None
        slots = policy.choose(faces[face], keypoints, source, arrived)
        variant = policy.wanted(n / 25)
        frames.append({"face": face, "keypoints": keypoints.ravel().tolist(), "arrived": arrived, "slots": slots})
        frames[-1]["variant"] = None
        if variant is not None:
            frames[-1]["variant"] = text(variant)
            library.add(added, replace(source, picture=variant), variant=True)
            added += 1
    basis, keypoints = text(source.basis.astype("<f4")), source.keypoints.ravel().tolist()
    return {"faces": [text(face) for face in faces], "basis": basis, "keypoints": keypoints, "frames": frames}
