"""MTCNN: face boxes with five landmarks each; K. Zhang et al., IEEE Signal Processing Letters 23 (2016).

Uses the weight files in the wheel of facenet-pytorch. That package itself is not imported, because it needs a
torchvision that matches the installed torch, which does not exist for every build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.extras import install
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]

MIN_FACE = 20
"""Side of the smallest face that is found, in pixels."""
CELL, STRIDE = 12, 2
"""Receptive field and stride of P-Net, in pixels."""
PYRAMID_FACTOR = 0.709
"""Scale from one level of the image pyramid to the next."""
MIN_CONFIDENCE = (0.6, 0.7, 0.7)
"""Confidence threshold after P-Net, R-Net and O-Net."""
R_NET_SIDE, O_NET_SIDE = 24, 48
"""Input sizes of R-Net and O-Net, in pixels."""

Boxes = NDArray[np.float32]
"""(n, 4): left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Face:
    confidence: float
    box: NDArray[np.float32]  # (4,)
    points: NDArray[np.float32]  # (5, 2): eyes, nose, corners of the mouth; x, y in pixels


class Mtcnn:
    """All faces of a uint8 RGB picture, most confident first.

    Raises MetricUnavailableError without the weights or PyTorch.
    """

    def __init__(self) -> None:
        folder = weights_folder()
        self._p_net, self._r_net, self._o_net = (load(folder / f"{name}net.pt") for name in "pro")

    def __call__(self, picture: Picture) -> list[Face]:
        import torch

        with torch.inference_mode():
            image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
            return self._landmarks(image, self._refine(image, self._propose(image)))

    def _propose(self, image: Tensor) -> Boxes:
        height, width = image.shape[2:]
        levels: list[NDArray[np.float32]] = []
        for scale in pyramid(min(height, width)):
            offsets, confidence = p_net(resize(image, int(height * scale + 1), int(width * scale + 1)), self._p_net)
            rows, columns = np.nonzero(confidence >= MIN_CONFIDENCE[0])
            corner = np.stack([columns, rows], 1) * STRIDE
            box = np.floor(np.concatenate([corner + 1, corner + CELL], 1) / scale)
            level = np.concatenate([box, confidence[rows, columns, None], offsets[:, rows, columns].T], 1)
            levels.append(level[non_maximum_suppression(level[:, :4], level[:, 4], 0.5)].astype(np.float32))
        all_levels = np.concatenate(levels) if levels else np.zeros((0, 9), np.float32)
        best = all_levels[non_maximum_suppression(all_levels[:, :4], all_levels[:, 4], 0.7)]
        sides = best[:, 2:4] - best[:, :2]
        return to_squares(best[:, :4] + best[:, 5:] * np.tile(sides, 2))

    def _refine(self, image: Tensor, boxes: Boxes) -> Boxes:
        boxes = overlapping(boxes, image)
        if not len(boxes):
            return boxes
        confidence, offsets = r_net(crop(image, boxes, R_NET_SIDE), self._r_net)
        confident = confidence > MIN_CONFIDENCE[1]
        boxes, confidence, offsets = boxes[confident], confidence[confident], offsets[confident]
        kept = non_maximum_suppression(boxes, confidence, 0.7)
        return to_squares(regress(boxes[kept], offsets[kept]))

    def _landmarks(self, image: Tensor, boxes: Boxes) -> list[Face]:
        boxes = overlapping(boxes, image)
        if not len(boxes):
            return []
        results = boxes, *o_net(crop(image, boxes, O_NET_SIDE), self._o_net)
        confident = results[1] > MIN_CONFIDENCE[2]
        boxes, confidence, offsets, points = (values[confident] for values in results)
        landmarks = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2] + 1) * points - 1
        boxes = regress(boxes, offsets)
        kept = non_maximum_suppression(boxes, confidence, 0.7, of_smaller=True)
        return [Face(float(confidence[n]), boxes[n], landmarks[n]) for n in kept]


def weights_folder() -> Path:
    """The data folder of the installed facenet-pytorch. Raises MetricUnavailableError without it."""
    spec = find_spec("facenet_pytorch")
    places = [] if spec is None else spec.submodule_search_locations or []
    for place in places:
        if (Path(place) / "data" / "pnet.pt").is_file():
            return Path(place) / "data"
    raise MetricUnavailableError(
        "AKD needs the MTCNN weights that facenet-pytorch carries (pip install --no-deps facenet-pytorch)."
    )


def load(path: Path) -> State:
    """Read a weight file. Raises MetricUnavailableError without PyTorch or the file."""
    try:
        import torch
    except ImportError as error:
        raise MetricUnavailableError(f"AKD needs PyTorch ({install('train')}).") from error
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MetricUnavailableError(f"AKD needs {path.name} of facenet-pytorch: {error.strerror}.") from error
    return dict(state)


def pyramid(side: int) -> Sequence[float]:
    """Scales of the image pyramid, so that P-Net finds faces from MIN_FACE pixels up to the whole picture."""
    scales = []
    scale = CELL / MIN_FACE
    while side * scale >= CELL:
        scales.append(scale)
        scale *= PYRAMID_FACTOR
    return scales


def p_net(x: Tensor, state: State) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(1, 3, H, W) -> offsets of the corners (4, h, w) in sides, confidence (h, w)."""
    x = max_pool(conv_prelu(x, "1", state), 2)
    x = conv_prelu(conv_prelu(x, "2", state), "3", state)
    confidence = conv(x, "conv4_1", state).softmax(1)[0, 1]
    return conv(x, "conv4_2", state)[0].numpy(), confidence.numpy()


def r_net(x: Tensor, state: State) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, 3, 24, 24) -> confidence (n,), offsets (n, 4)."""
    x = max_pool(conv_prelu(x, "1", state), 3)
    x = conv_prelu(max_pool(conv_prelu(x, "2", state), 3), "3", state)
    x = dense(x, "4", state)
    return linear(x, "dense5_1", state).softmax(1)[:, 1].numpy(), linear(x, "dense5_2", state).numpy()


def o_net(x: Tensor, state: State) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """(n, 3, 48, 48) -> confidence (n,), offsets (n, 4), points (n, 5, 2) in sides of the box."""
    x = max_pool(conv_prelu(x, "1", state), 3)
    x = max_pool(conv_prelu(x, "2", state), 3)
    x = conv_prelu(max_pool(conv_prelu(x, "3", state), 2), "4", state)
    x = dense(x, "5", state)
    points = linear(x, "dense6_3", state).reshape(-1, 2, 5).transpose(1, 2)
    confidence = linear(x, "dense6_1", state).softmax(1)[:, 1]
    return confidence.numpy(), linear(x, "dense6_2", state).numpy(), points.numpy()


def conv(x: Tensor, name: str, state: State) -> Tensor:
    from torch.nn import functional

    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])


def linear(x: Tensor, name: str, state: State) -> Tensor:
    from torch.nn import functional

    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def conv_prelu(x: Tensor, number: str, state: State) -> Tensor:
    from torch.nn import functional

    return functional.prelu(conv(x, f"conv{number}", state), state[f"prelu{number}.weight"])


def dense(x: Tensor, number: str, state: State) -> Tensor:
    """Fully connected layer with PReLU; the weights expect the cells in column-major order."""
    from torch.nn import functional

    flat = x.permute(0, 3, 2, 1).reshape(len(x), -1)
    return functional.prelu(linear(flat, f"dense{number}", state), state[f"prelu{number}.weight"])


def max_pool(x: Tensor, side: int) -> Tensor:
    from torch.nn import functional

    return functional.max_pool2d(x, side, 2, ceil_mode=True)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Area-averaged to height x width and normalised to -1..1, the networks' input range."""
    from torch.nn import functional

    return (functional.interpolate(image, (height, width), mode="area") - 127.5) / 128


def crop(image: Tensor, boxes: Boxes, side: int) -> Tensor:
    """Crop boxes that overlap the picture and resize them -> (n, 3, side, side)."""
    import torch

    height, width = image.shape[2:]
    crops = []
    for left, top, right, bottom in boxes.astype(int):
        part = image[:, :, max(top, 1) - 1 : min(bottom, height), max(left, 1) - 1 : min(right, width)]
        crops.append(resize(part, side, side))
    return torch.cat(crops)


def overlapping(boxes: Boxes, image: Tensor) -> Boxes:
    """The boxes that contain at least one pixel of the picture."""
    height, width = image.shape[2:]
    left, top, right, bottom = boxes.astype(int).T
    wide = np.minimum(right, width) > np.maximum(left, 1) - 1
    high = np.minimum(bottom, height) > np.maximum(top, 1) - 1
    return boxes[wide & high]


def regress(boxes: Boxes, offsets: NDArray[np.float32]) -> Boxes:
    """Apply bounding box regression: corners move by `offsets`, in sides of the box."""
    return boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def to_squares(boxes: Boxes) -> Boxes:
    """Squares about the same centres with the longer side of each box."""
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    half = sides.max(1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], 1)


def non_maximum_suppression(
    boxes: Boxes, confidence: NDArray[np.float32], max_overlap: float, of_smaller: bool = False
) -> list[int]:
    """Indices of the boxes to keep, most confident first.

    A box is dropped if a more confident one overlaps it by more than `max_overlap` of their union (or, with
    `of_smaller`, of the smaller box).
    """
    kept: list[int] = []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    rest = np.argsort(-confidence, kind="stable")
    while len(rest):
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        intersection = np.prod(sides.clip(min=0), axis=1)
        whole = np.minimum(areas[best], areas[rest]) if of_smaller else areas[best] + areas[rest] - intersection
        rest = rest[intersection <= max_overlap * whole]
    return kept
