"""Running the network: one small interface, ONNX Runtime by default.

A runtime turns pictures into keypoints (sender), source pictures into cached keys and values, and keypoints plus
sources into pictures (receiver). Pictures are uint8 RGB (H, W, 3); keypoints float32 (K, 3).
"""

import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.models.runtime.types import Keypoints, ModelInfo, Picture, Source
from iwcodec.models.runtime.weights import DEFAULT_MODEL, PARTS, WEIGHTS, graph_file, read_info

JOINED = ("rows", "keys", "pooled")
"""What `merge` makes of a set of sources for `attend`."""
MAX_ACTIVE = 4
"""Most sources that may enter attention for one frame."""


class OnnxRuntime:
    """The exported graphs on ONNX Runtime's CPU provider: the model's own, and its base's. Several threads may use it
    at once, as a call does."""

    device = "cpu"

    def __init__(self, model: str = DEFAULT_MODEL, threads: int | None = None, folder: Path = WEIGHTS) -> None:
        """Raises FileNotFoundError where the model is not there."""
        import onnxruntime

        self.info = read_info(model, folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or min(4, os.cpu_count() or 1)
        options.inter_op_num_threads = 1
        # Spinning threads take the cores from OpenCV's sampling between the graphs, and in a call from everyone else:
        # without, a frame takes little more than half the time on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._sessions = {
            part: onnxruntime.InferenceSession(
                str(graph_file(model, part, folder)), options, providers=["CPUExecutionProvider"]
            )
            for part in PARTS
        }
        self._seen: int = self._sessions["source"].get_inputs()[0].shape[1]
        self._kept = _Kept(self._sessions, self.info, self._seen)

    def detect(self, picture: Picture) -> Keypoints:
        return self._sessions["detector"].run(None, {"picture": self._seen_by("detector", picture)})[0][0]

    def prepare(self, picture: Picture) -> Source:
        keypoints = self.detect(picture)
        feed = {"picture": self._seen_by("source", picture), "keypoints": keypoints[None]}
        features = self._sessions["source"].run(None, feed)
        return Source(picture, keypoints, *(feature[0] for feature in features))

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        if not 1 <= len(sources) <= MAX_ACTIVE:
            raise ValueError(f"1 to {MAX_ACTIVE} sources, not {len(sources)}")
        kept = self._kept
        self._look(keypoints, sources)
        if suppression > 0:
            leave_out_small(kept.fields[..., :2], suppression)
        self._sample(sources)
        self._sessions["refine"].run_with_iobinding(kept.refine)
        return self._finished(kept.picture[0])

    def _look(self, keypoints: Keypoints, sources: Sequence[Source]) -> None:
        """Where each source is sampled and what it weighs, and the decoder's features: kept for this frame. The set's
        features stay as the graph takes them, because from frame to frame the set seldom changes."""
        kept = self._kept
        if len(sources) != len(kept.sources) or any(a is not b for a, b in zip(sources, kept.sources, strict=True)):
            kept.take(sources, self._sessions)
        kept.driving[0] = keypoints
        self._sessions["attend"].run_with_iobinding(kept.attend)

    def _sample(self, sources: Sequence[Source]) -> None:
        """The sources sampled and blended: the base picture, kept as `refine` takes it. As network.sampling_fields and
        network.blend."""
        kept, seen = self._kept, (self._seen, self._seen)
        for source, field, room in zip(sources, kept.fields[0], kept.rooms, strict=False):
            cv2.resize(field, seen, room.field, interpolation=cv2.INTER_LINEAR)
            self._enlarge(room.field)
            cv2.remap(
                source.picture, kept.places, None, cv2.INTER_LINEAR, room.sampled, borderMode=cv2.BORDER_REPLICATE
            )
        self._fold(kept.rooms[0].sampled if len(sources) == 1 else self._blended(kept.rooms[: len(sources)]))

    def _enlarge(self, field: NDArray[np.float32]) -> None:
        """Field (h, h, 3), how far from themselves pixels are sampled -> the kept places where those of the picture
        are, (side, side, 2); as network.enlarge_places."""
        kept, side = self._kept, self.info.size
        if len(field) == side:
            np.add(field[..., :2], pixel_grid(side), out=kept.places)
            return
        np.copyto(kept.shift, field[..., :2])
        cv2.resize(kept.shift, (side, side), kept.places, interpolation=cv2.INTER_LINEAR)
        np.multiply(kept.places, np.float32(side / len(field)), out=kept.places)
        np.add(kept.places, pixel_grid(side), out=kept.places)

    def _blended(self, rooms: Sequence["_Room"]) -> NDArray[np.float32]:
        """(H, W, 3) of 0..255."""
        kept, side = self._kept, (self.info.size, self.info.size)
        np.add(rooms[0].field[..., 2], rooms[1].field[..., 2], out=kept.total)
        for room in rooms[2:]:
            np.add(kept.total, room.field[..., 2], out=kept.total)
        for room in rooms:
            np.divide(room.field[..., 2], kept.total, out=room.share)
            if room.large is not room.share:
                cv2.resize(room.share, side, room.large, interpolation=cv2.INTER_LINEAR)
        blended, spare, so_far = kept.blended, kept.spare, rooms[0].large
        np.copyto(blended, rooms[0].sampled)
        for room in rooms[1:]:
            np.copyto(kept.next, room.sampled)
            cv2.blendLinear(blended, kept.next, so_far, room.large, spare)
            blended, spare = spare, blended
            np.add(so_far, room.large, out=kept.so_far)
            so_far = kept.so_far
        return blended

    def _fold(self, picture: NDArray[Any]) -> None:
        """(H, W, 3) of 0..255 -> the kept base picture as `refine` takes it: of 0..1, in planes."""
        base = self._kept.base[0]
        fold = self.info.size // base.shape[-1]
        for n, (row, column) in enumerate(np.ndindex(fold, fold)):
            for channel, plane in enumerate(base[n :: fold**2]):
                np.multiply(picture[row::fold, column::fold, channel], np.float32(1 / 255), out=plane)

    def _finished(self, planes: Picture) -> Picture:
        """What `refine` gives, (3 n^2, H / n, W / n), -> (H, W, 3), which is the caller's."""
        side, fold = self.info.size, self.info.size // planes.shape[-1]
        picture = np.empty((side, side, 3), np.uint8)
        if fold == 1:
            cv2.merge(list(planes), picture)
            return picture
        for n, (row, column) in enumerate(np.ndindex(fold, fold)):
            cv2.merge(list(planes[n :: fold**2]), self._kept.quarter)
            picture[row::fold, column::fold] = self._kept.quarter
        return picture

    def _seen_by(self, part: str, picture: Picture) -> Picture:
        """(1, side, side, 3), as large as the graph looks at it."""
        return resized(picture, self._sessions[part].get_inputs()[0].shape[1])[None]


class _Kept(threading.local):
    """What a thread keeps from frame to frame: the last set of sources, and room for everything a frame needs but the
    picture that is handed out. With S sources, g cells and (h, h) pixels as the nets see them:

    `driving` (1, K, 3), `fields` (1, S, g, g, 3), `features` (1, trunk, g, g), `base` and `picture` as `refine` has
    them, `places` (H, W, 2), `total` (h, h), `so_far` (H, W), pictures (H, W, 3)."""

    def __init__(self, sessions: dict[str, Any], info: ModelInfo, seen: int) -> None:
        base, features = (given.shape for given in sessions["refine"].get_inputs())
        self.sources: tuple[Source, ...] = ()
        self.driving = np.empty((1, info.keypoints, 3), np.float32)
        self.features, self.base = np.empty(features, np.float32), np.empty(base, np.float32)
        self.fields = np.empty((1, 0, features[-1], features[-1], 3), np.float32)
        self.picture = np.empty(base, np.uint8)
        self.quarter = np.empty((*base[-2:], 3), np.uint8)
        self.attend: Any = None
        self.refine = bound(
            sessions["refine"], {"base": self.base, "features": self.features}, {"picture": self.picture}
        )
        side = info.size
        self.places, self.shift = np.empty((side, side, 2), np.float32), np.empty((seen, seen, 2), np.float32)
        self.total, self.so_far = np.empty((seen, seen), np.float32), np.empty((side, side), np.float32)
        self.blended, self.spare, self.next = (np.empty((side, side, 3), np.float32) for _ in range(3))
        self.rooms = [_Room(seen, side) for _ in range(MAX_ACTIVE)]

    def take(self, sources: Sequence[Source], sessions: dict[str, Any]) -> None:
        """Another set of sources, to look at with these sessions."""
        joined = sessions["merge"].run(JOINED, {"features": np.stack([s.features for s in sources])[None]})
        given = {
            "driving": self.driving,
            "keypoints": np.stack([s.keypoints for s in sources])[None],
            **dict(zip(JOINED, joined, strict=True)),
            "membership": np.stack([s.membership for s in sources])[None],
            "basis": np.stack([s.basis for s in sources])[None],
        }
        self.fields = np.empty((1, len(sources), *self.fields.shape[2:]), np.float32)
        self.attend = bound(sessions["attend"], given, {"fields": self.fields, "features": self.features})
        self.sources = tuple(sources)


class _Room:
    """For what is made of one source: its field (h, h, 3) of shifts and weights, its share of the pixels (h, h) and
    (H, W), and the picture sampled, (H, W, 3)."""

    def __init__(self, seen: int, side: int) -> None:
        self.field = np.empty((seen, seen, 3), np.float32)
        self.share = np.empty((seen, seen), np.float32)
        self.large = self.share if seen == side else np.empty((side, side), np.float32)
        self.sampled = np.empty((side, side, 3), np.uint8)


def leave_out_small(shifts: NDArray[np.float32], suppression: float) -> None:
    """Shifts (..., 2), in pixels, without those shorter than half the dead zone, in place; as network.without_small."""
    length = np.sqrt(np.square(shifts).sum(-1, keepdims=True))
    shifts *= np.clip(length * np.float32(2 / suppression) - 1, 0, 1)


def bound(session: Any, inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> Any:
    """A binding by which a session reads and writes these arrays, where they are. It keeps the arrays it reads; those
    it writes must be kept as long."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return binding


def resized(picture: Picture, side: int) -> Picture:
    """What the nets see: every runtime shrinks in the same integers, for keypoints must not depend on it."""
    if picture.shape[0] == side:
        return picture
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


@cache
def pixel_grid(side: int) -> NDArray[np.float32]:
    """(side, side, 2): the pixels' own x and y."""
    axis = np.arange(side, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), axis=-1)
