"""Operations on pictures, faces, crops, and the fit of keypoints."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from iwcodec.codec.fit.keypoint_fit import LIVE_SHEAR, KeypointFit, _estimate
from iwcodec.codec.media.crop.face_detector import FACE_DETECTOR, Face, FaceDetector
from iwcodec.codec.media.crop.tracking import CropTracker
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.sources.yuv import rgb_to_yuv420, yuv420_to_rgb
from iwcodec.models.fit_settings import BLURS
from iwcodec.models.runtime.pictures import resize_area
from support.codec.textured_source import TEXTURE
from support.web.vectors.values import face_keypoints, moving_source, text


def vectors(rng: np.random.Generator) -> dict[str, Any]:
    return {"pictures": picture_vectors(rng), "crops": crop_vectors(rng), "faces": face_vector(), "fit": fit_vector()}


def picture_vectors(rng: np.random.Generator) -> dict[str, Any]:
    """Operations on a picture."""
    small = cv2.resize(TEXTURE, (48, 48), interpolation=cv2.INTER_AREA)
    places = (rng.uniform(-3, 51, (200, 1, 2))).astype(np.float32)
    values = rng.normal(0, 1, (8, 8, 3)).astype(np.float32)
    planes = rng.integers(0, 256, (96, 64)).astype(np.uint8)
    return {
        "picture": text(small),
        "halved": text(resize_area(small, 24)),
        "quartered": text(resize_area(small, 12)),
        "enlarged": text(cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC)),
        "places": places.ravel().tolist(),
        "sampled": text(cv2.remap(small, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)),
        "values": values.ravel().tolist(),
        "resized": cv2.resize(values, (32, 32), interpolation=cv2.INTER_LINEAR).ravel().tolist(),
        "yuv": text(planes),
        "rgb": text(yuv420_to_rgb(planes)),
        "smallYuv": text(rgb_to_yuv420(small)),
    }


def crop_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Faces in frames of 640 x 480 pixels, and the crop of each frame."""
    tracker, events = CropTracker(640, 480, 25.0), []
    x, y, h = 300.0, 220.0, 150.0
    for n in range(300):
        x, y, h = x + rng.normal(0.5, 3), y + rng.normal(0, 2), float(np.clip(h * rng.normal(1, 0.02), 60, 300))
        faces = None
        if n % 5 == 0:
            faces = [Face(x % 500, y % 300, 0.8 * h, h, 0.9), Face(20, 20, 60, 80, 0.8)][: int(rng.integers(0, 3))]
        crop = tracker.update(faces)
        told = None if faces is None else [box_of(face) for face in faces]
        events.append({"faces": told, "crop": vars(crop)})
    return events


def box_of(face: Face) -> dict[str, float]:
    """What the browser reads of a face: it has no use for landmarks."""
    return {name: getattr(face, name) for name in ("x", "y", "w", "h", "score")}


def face_vector() -> dict[str, Any]:
    """What the face detector's network returns for the bundled clip's first picture, and the faces in it."""
    picture = next(iter(read_video(sample_clip()))).picture
    detector = FaceDetector()
    kept: list[Any] = []
    session, height, width = detector._session, *picture.shape[:2]
    detector._session = SimpleNamespace(run=lambda names, feeds: kept.append(session.run(names, feeds)) or kept[-1])
    faces = detector.detect(picture)
    heat, size, offset, _ = (out[0] for out in kept[-1])
    return {
        "width": width,
        "height": height,
        "maps": {"width": heat.shape[2], "height": heat.shape[1]},
        "heat": heat.ravel().tolist(),
        "size": size.ravel().tolist(),
        "offset": offset.ravel().tolist(),
        "faces": [box_of(face) for face in faces],
        "network": text(FACE_DETECTOR.read_bytes()),
        "runs": [network_run(session, picture, *size) for size in ((224, 128), (224, 160), (96, 224))],
    }


def network_run(session: Any, picture: Picture, width: int, height: int) -> dict[str, Any]:
    """Pixels (RGBA) of a picture at some size, and what the face detector's network returns for them."""
    pixels = cv2.cvtColor(cv2.resize(picture, (width, height)), cv2.COLOR_RGB2RGBA)
    planes = pixels[..., :3].astype(np.float32).transpose(2, 0, 1)[None]
    names = ("heat", "size", "offset")
    maps = zip(names, session.run(None, {"input.1": planes}), strict=False)
    return {"width": width, "height": height, "pixels": text(pixels), **{name: text(values) for name, values in maps}}


def fit_vector() -> dict[str, Any]:
    """A source, pictures of it moved a little, and sheared, and their keypoints as fitted by alignment alone."""
    source = moving_source(cv2.GaussianBlur(TEXTURE, (0, 0), 2), face_keypoints())
    fit = KeypointFit(steps=BLURS[-2:], candidates=2, max_shear=LIVE_SHEAR)
    fit._start = lambda target, ref, start, source: replace(_estimate(target, ref, start, start), by_flow=False)
    frames = []
    turns = [cv2.getRotationMatrix2D((128, 128), 1.0 * n, 1 + 0.01 * n) for n in range(3)]
    sheared = [np.array([[1, shear, -128 * shear], [0, 1, 0]]) for shear in (0.15, 0.3, 0.5)]
    for turn in (*turns, *sheared):
        picture = cv2.warpAffine(source.picture, turn, (256, 256), borderMode=cv2.BORDER_REFLECT)
        fitted = fit.frame(picture, source.keypoints, [source])
        gram = fitted.gram()
        frames.append(
            {
                "picture": text(picture),
                "fitted": fitted.keypoints.ravel().tolist(),
                "diagonal": gram.diagonal().tolist(),
            }
        )
    basis = text(source.basis.astype("<f4"))
    keypoints = source.keypoints.ravel().tolist()
    return {"picture": text(source.picture), "basis": basis, "keypoints": keypoints, "frames": frames}
