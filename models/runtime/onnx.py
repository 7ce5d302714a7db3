"""The runtime on ONNX Runtime's CPU provider; sampling and blending of the sources is done by OpenCV."""

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.models.runtime.pictures import pixel_grid, resize_area
from iwcodec.models.runtime.types import MAX_ACTIVE, Keypoints, ModelInfo, Picture, Source
from iwcodec.models.runtime.weights import DEFAULT_MODEL, WEIGHTS, read_graphs, read_info

MERGED = ("rows", "keys", "pooled")
"""Outputs of the `merge` graph, which are inputs of the `attend` graph."""


class OnnxRuntime:
    """The exported graphs of a model and its base (types.Runtime). Several threads may use one instance at once, as a
    call does."""

    device = "cpu"

    def __init__(self, model: str = DEFAULT_MODEL, threads: int | None = None, folder: Path = WEIGHTS) -> None:
        """`threads` defaults to the number of cores, at most 4. Raises FileNotFoundError on an unknown model,
        and on graphs that do not belong to its weights."""
        import onnxruntime

        self.info = read_info(model, folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or min(4, os.cpu_count() or 1)
        options.inter_op_num_threads = 1
        # Spinning threads take the cores from OpenCV's sampling between the graphs, and from everything else in a call.
        # Without spinning a frame takes little more than half the time on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.sessions = {
            part: onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for part, graph in read_graphs(model, folder).items()
        }
        self.net_size: int = self.sessions["source"].get_inputs()[0].shape[1]
        """Side in pixels of the source pictures as the network reads them."""
        self._buffers = _Buffers(self.sessions, self.info, self.net_size)

    def detect(self, picture: Picture) -> Keypoints:
        return self.sessions["detector"].run(None, {"picture": self.graph_input("detector", picture)})[0][0]

    def prepare(self, picture: Picture) -> Source:
        keypoints = self.detect(picture)
        inputs = {"picture": self.graph_input("source", picture), "keypoints": keypoints[None]}
        features = self.sessions["source"].run(None, inputs)
        return Source(picture, keypoints, *(feature[0] for feature in features))

    def with_picture(self, source: Source, picture: Picture) -> Source:
        return replace(source, picture=picture)

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        if not 1 <= len(sources) <= MAX_ACTIVE:
            raise ValueError(f"1 to {MAX_ACTIVE} sources, not {len(sources)}")
        buffers = self._buffers
        self._attend(keypoints, sources)
        if suppression > 0:
            suppress_small_shifts(buffers.fields[..., :2], suppression)
        self._sample(sources)
        self.sessions["refine"].run_with_iobinding(buffers.refine)
        return self._unfold(buffers.picture[0])

    def graph_input(self, part: str, picture: Picture) -> Picture:
        """Scale a picture to the input of the `detector` or `source` graph: (1, side, side, 3)."""
        return resize_area(picture, self.sessions[part].get_inputs()[0].shape[1])[None]

    def _attend(self, keypoints: Keypoints, sources: Sequence[Source]) -> None:
        """Compute the sampling field and weight of each source, and the decoder's features, into the buffers.

        The merged features of the sources are reused while the set of sources stays the same, apart from their pictures
        (`with_picture`)."""
        buffers = self._buffers
        if len(sources) != len(buffers.sources) or any(
            a.features is not b.features for a, b in zip(sources, buffers.sources, strict=True)
        ):
            buffers.set_sources(sources, self.sessions)
        buffers.driving[0] = keypoints
        self.sessions["attend"].run_with_iobinding(buffers.attend)

    def _sample(self, sources: Sequence[Source]) -> None:
        """Sample and blend the sources into the base picture; matches warp.sampling_fields and warp.blend."""
        buffers, net_size = self._buffers, (self.net_size, self.net_size)
        for source, field, buffer in zip(sources, buffers.fields[0], buffers.per_source, strict=False):
            cv2.resize(field, net_size, buffer.field, interpolation=cv2.INTER_LINEAR)
            self._upsample(buffer.field)
            cv2.remap(
                source.picture, buffers.places, None, cv2.INTER_LINEAR, buffer.sampled, borderMode=cv2.BORDER_REPLICATE
            )
        single = len(sources) == 1
        self._fold(buffers.per_source[0].sampled if single else self._blend(buffers.per_source[: len(sources)]))

    def _upsample(self, field: NDArray[np.float32]) -> None:
        """Convert the sampling shifts of a field (h, h, 3) to absolute positions (side, side, 2) in the full source
        picture; matches warp.upsample_places."""
        buffers, side = self._buffers, self.info.size
        if len(field) == side:
            np.add(field[..., :2], pixel_grid(side), out=buffers.places)
            return
        np.copyto(buffers.shift, field[..., :2])
        cv2.resize(buffers.shift, (side, side), buffers.places, interpolation=cv2.INTER_LINEAR)
        np.multiply(buffers.places, np.float32(side / len(field)), out=buffers.places)
        np.add(buffers.places, pixel_grid(side), out=buffers.places)

    def _blend(self, per_source: Sequence["_SourceBuffers"]) -> NDArray[np.float32]:
        """Blend the sampled sources by their weights -> (H, W, 3) in 0..255."""
        buffers, side = self._buffers, (self.info.size, self.info.size)
        np.add(per_source[0].field[..., 2], per_source[1].field[..., 2], out=buffers.total)
        for buffer in per_source[2:]:
            np.add(buffers.total, buffer.field[..., 2], out=buffers.total)
        for buffer in per_source:
            np.divide(buffer.field[..., 2], buffers.total, out=buffer.share)
            if buffer.full_share is not buffer.share:
                cv2.resize(buffer.share, side, buffer.full_share, interpolation=cv2.INTER_LINEAR)
        blended, spare, share_so_far = buffers.blended, buffers.spare, per_source[0].full_share
        np.copyto(blended, per_source[0].sampled)
        for buffer in per_source[1:]:
            np.copyto(buffers.next, buffer.sampled)
            cv2.blendLinear(blended, buffers.next, share_so_far, buffer.full_share, spare)
            blended, spare = spare, blended
            np.add(share_so_far, buffer.full_share, out=buffers.share_so_far)
            share_so_far = buffers.share_so_far
        return blended

    def _fold(self, picture: NDArray[Any]) -> None:
        """Write a picture (H, W, 3) in 0..255 to the input of `refine`: planes in 0..1, pixel-unshuffled where that
        graph expects it."""
        base = self._buffers.base[0]
        fold = self.info.size // base.shape[-1]
        for n, (row, column) in enumerate(np.ndindex(fold, fold)):
            for channel, plane in enumerate(base[n :: fold**2]):
                np.multiply(picture[row::fold, column::fold, channel], np.float32(1 / 255), out=plane)

    def _unfold(self, planes: Picture) -> Picture:
        """Convert the output of `refine`, (3 n^2, H / n, W / n), to a newly allocated picture (H, W, 3)."""
        side, fold = self.info.size, self.info.size // planes.shape[-1]
        picture = np.empty((side, side, 3), np.uint8)
        if fold == 1:
            cv2.merge(list(planes), picture)
            return picture
        for n, (row, column) in enumerate(np.ndindex(fold, fold)):
            cv2.merge(list(planes[n :: fold**2]), self._buffers.interleaved)
            picture[row::fold, column::fold] = self._buffers.interleaved
        return picture


class _Buffers(threading.local):
    """Per-thread state that is reused from frame to frame: the current set of sources and every array that a frame
    needs, except for the picture that is returned.

    Shapes with S sources, g cells per side, and (h, h) pixels at the network's input size: `driving` (1, K, 3),
    `fields` (1, S, g, g, 3), `features` (1, trunk, g, g), `base` and `picture` as `refine` expects them, `places` (H,
    W, 2), `total` (h, h), `share_so_far` (H, W), pictures (H, W, 3)."""

    def __init__(self, sessions: dict[str, Any], info: ModelInfo, net_size: int) -> None:
        base, features = (tensor.shape for tensor in sessions["refine"].get_inputs())
        self.sources: tuple[Source, ...] = ()
        self.driving = np.empty((1, info.keypoints, 3), np.float32)
        self.features, self.base = np.empty(features, np.float32), np.empty(base, np.float32)
        self.fields = np.empty((1, 0, features[-1], features[-1], 3), np.float32)
        self.picture = np.empty(base, np.uint8)
        self.interleaved = np.empty((*base[-2:], 3), np.uint8)
        self.attend: Any = None
        self.refine = bind(
            sessions["refine"], {"base": self.base, "features": self.features}, {"picture": self.picture}
        )
        side = info.size
        self.places = np.empty((side, side, 2), np.float32)
        self.shift = np.empty((net_size, net_size, 2), np.float32)
        self.total = np.empty((net_size, net_size), np.float32)
        self.share_so_far = np.empty((side, side), np.float32)
        self.blended, self.spare, self.next = (np.empty((side, side, 3), np.float32) for _ in range(3))
        self.per_source = [_SourceBuffers(net_size, side) for _ in range(MAX_ACTIVE)]

    def set_sources(self, sources: Sequence[Source], sessions: dict[str, Any]) -> None:
        """Merge another set of sources and bind the `attend` graph to it."""
        merged = sessions["merge"].run(MERGED, {"features": np.stack([s.features for s in sources])[None]})
        inputs = {
            "driving": self.driving,
            "keypoints": np.stack([s.keypoints for s in sources])[None],
            **dict(zip(MERGED, merged, strict=True)),
            "membership": np.stack([s.membership for s in sources])[None],
            "basis": np.stack([s.basis for s in sources])[None],
        }
        self.fields = np.empty((1, len(sources), *self.fields.shape[2:]), np.float32)
        self.attend = bind(sessions["attend"], inputs, {"fields": self.fields, "features": self.features})
        self.sources = tuple(sources)


class _SourceBuffers:
    """Arrays for one source: its field (h, h, 3) of shifts and weights, its share of each pixel at (h, h) and (H, W),
    and the sampled picture (H, W, 3)."""

    def __init__(self, net_size: int, side: int) -> None:
        self.field = np.empty((net_size, net_size, 3), np.float32)
        self.share = np.empty((net_size, net_size), np.float32)
        self.full_share = self.share if net_size == side else np.empty((side, side), np.float32)
        self.sampled = np.empty((side, side, 3), np.uint8)


def suppress_small_shifts(shifts: NDArray[np.float32], suppression: float) -> None:
    """Scale shifts (..., 2), in pixels, in place: 0 below half of `suppression`, rising linearly to their full length
    at `suppression`; matches warp.suppress_small_shifts."""
    length = np.sqrt(np.square(shifts).sum(-1, keepdims=True))
    shifts *= np.clip(length * np.float32(2 / suppression) - 1, 0, 1)


def bind(session: Any, inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> Any:
    """Create an IO binding through which a session reads and writes these arrays in place.

    The binding holds references to the input arrays; the caller must keep the output arrays alive as long."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return binding
