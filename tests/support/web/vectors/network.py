"""What the runtime makes of sources and of keypoints, before the pictures are refined."""

import itertools
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.types import Source
from iwcodec.models.runtime.weights import read_tensors
from iwcodec.server.http.player import is_refining, model_json
from support.web.vectors.values import text

MODEL = "lite-256"


def vectors(_: np.random.Generator) -> dict[str, Any]:
    """Sources, and what attention to one and to three of them gives for the keypoints of another frame."""
    runtime = OnnxRuntime(MODEL, threads=1)
    size, buffers = runtime.info.size, runtime._buffers
    frames = itertools.islice(read_video(sample_clip()), 0, 61, 20)
    *pictures, driving = (cv2.resize(frame.picture[:, 140:500], (size, size)) for frame in frames)
    sources = [halved(runtime.prepare(picture)) for picture in pictures]
    keypoints = runtime.detect(driving)
    attended = []
    for count in (1, 3):
        runtime._attend(keypoints, sources[:count])
        features = buffers.features[0].transpose(1, 2, 0)
        attended.append(
            {"fields": text(buffers.fields), "features": text(features[..., :-1]), "gate": text(features[..., -1])}
        )
    return {
        "model": model_json(MODEL),
        "network": text(read_tensors(MODEL, lambda name: not is_refining(name))),
        "sources": [
            {
                "picture": text(source.picture),
                "keypoints": source.keypoints.ravel().tolist(),
                "features": text(source.features.astype(np.float16)),
                "membership": text(source.membership.astype(np.float16)),
                "basis": text(source.basis),
            }
            for source in sources
        ],
        "keypoints": keypoints.ravel().tolist(),
        "attended": attended,
    }


def halved(source: Source) -> Source:
    """A source whose features are those that the vectors hold."""
    features, membership = (x.astype(np.float16).astype(np.float32) for x in (source.features, source.membership))
    return replace(source, features=features, membership=membership)
