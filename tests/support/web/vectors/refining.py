"""What the runtime makes of a frame after attention."""

import itertools
from typing import Any

import cv2
import numpy as np

from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.weights import read_tensors
from iwcodec.server.http.player import is_refining
from support.web.vectors.values import text


def vectors(_: np.random.Generator) -> dict[str, Any]:
    return {"refined": [refined(*of) for of in (("lite-256", 1), ("lite-256", 3), ("lite-512", 2))]}


def refined(model: str, count: int) -> dict[str, Any]:
    """Fields and features, in half precision, as attention to `count` sources leaves them, and the picture."""
    runtime = OnnxRuntime(model, threads=1)
    size, buffers = runtime.info.size, runtime._buffers
    frames = itertools.islice(read_video(sample_clip()), 0, 15 * count + 1, 15)
    *pictures, driving = (cv2.resize(frame.picture[:, 140:500], (size, size)) for frame in frames)
    sources = [runtime.prepare(picture) for picture in pictures]
    runtime._attend(runtime.detect(driving), sources)
    fields, features = buffers.fields.astype(np.float16), buffers.features.astype(np.float16)
    buffers.fields[:], buffers.features[:] = fields, features
    runtime._sample(sources)
    runtime.sessions["refine"].run_with_iobinding(buffers.refine)
    cells, gate = features[0, :-1].transpose(1, 2, 0), features[0, -1]
    return {
        "size": size,
        "netSize": runtime.net_size,
        "pictures": [text(source.picture) for source in sources],
        "fields": text(fields),
        "features": text(cells.tobytes() + gate.tobytes()),
        "decoder": text(read_tensors(model, is_refining)),
        "picture": text(runtime._unfold(buffers.picture[0])),
    }
