"""MTCNN: faces and five points of each; K. Zhang et al., IEEE Signal Processing Letters 23 (2016).

The weights are the files that the wheel of facenet-pytorch carries. Its code is not imported: that needs a torchvision
that fits the installed torch, which there is not for every build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.metrics import MetricUnavailableError
from iwcodec.codec.extras import install
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]

MIN_FACE = 20
"""Pixels."""
CELL, STRIDE = 12, 2
"""Of the first network: what it sees, and how far it is moved, in pixels."""
SHRINK = 0.709
"""From one level of the pyramid to the next."""
CERTAIN = (0.6, 0.7, 0.7)
"""Least confidence after each network."""
SECOND_SIDE, THIRD_SIDE = 24, 48

Boxes = NDArray[np.float32]
"""(n, 4): left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Face:
    certain: float
    box: NDArray[np.float32]  # (4,)
    points: NDArray[np.float32]  # (5, 2): eyes, nose, corners of the mouth; x, y in pixels


class Mtcnn:
    """All faces of a picture, the surest first. Raises MetricUnavailableError without the weights or PyTorch."""

    def __init__(self) -> None:
        folder = weights_folder()
        self._first, self._second, self._third = (load(folder / f"{name}net.pt") for name in "pro")

    def __call__(self, picture: Picture) -> list[Face]:
        import torch

        with torch.inference_mode():
            image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
            return self._landmarks(image, self._refined(image, self._proposed(image)))

    def _proposed(self, image: Tensor) -> Boxes:
        height, width = image.shape[2:]
        found: list[NDArray[np.float32]] = []
        for scale in pyramid(min(height, width)):
            moves, certain = first_network(resized(image, int(height * scale + 1), int(width * scale + 1)), self._first)
            rows, columns = np.nonzero(certain >= CERTAIN[0])
            corner = np.stack([columns, rows], 1) * STRIDE
            box = np.floor(np.concatenate([corner + 1, corner + CELL], 1) / scale)
            level = np.concatenate([box, certain[rows, columns, None], moves[:, rows, columns].T], 1)
            found.append(level[distinct(level[:, :4], level[:, 4], 0.5)].astype(np.float32))
        all_levels = np.concatenate(found) if found else np.zeros((0, 9), np.float32)
        best = all_levels[distinct(all_levels[:, :4], all_levels[:, 4], 0.7)]
        sides = best[:, 2:4] - best[:, :2]
        return squared(best[:, :4] + best[:, 5:] * np.tile(sides, 2))

    def _refined(self, image: Tensor, boxes: Boxes) -> Boxes:
        boxes = inside(boxes, image)
        if not len(boxes):
            return boxes
        certain, moves = second_network(cut_out(image, boxes, SECOND_SIDE), self._second)
        sure = certain > CERTAIN[1]
        boxes, certain, moves = boxes[sure], certain[sure], moves[sure]
        kept = distinct(boxes, certain, 0.7)
        return squared(moved(boxes[kept], moves[kept]))

    def _landmarks(self, image: Tensor, boxes: Boxes) -> list[Face]:
        boxes = inside(boxes, image)
        if not len(boxes):
            return []
        certain, moves, points = third_network(cut_out(image, boxes, THIRD_SIDE), self._third)
        sure = certain > CERTAIN[2]
        boxes, certain, moves, points = boxes[sure], certain[sure], moves[sure], points[sure]
        places = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2] + 1) * points - 1
        boxes = moved(boxes, moves)
        return [Face(float(certain[n]), boxes[n], places[n]) for n in distinct(boxes, certain, 0.7, of_smaller=True)]


def weights_folder() -> Path:
    """Of the installed facenet-pytorch, which is not imported. MetricUnavailableError without it."""
    spec = find_spec("facenet_pytorch")
    places = [] if spec is None else spec.submodule_search_locations or []
    for place in places:
        if (Path(place) / "data" / "pnet.pt").is_file():
            return Path(place) / "data"
    raise MetricUnavailableError(
        "AKD needs the MTCNN weights that facenet-pytorch carries (pip install --no-deps facenet-pytorch)."
    )


def load(path: Path) -> State:
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
    """Scales at which a face of MIN_FACE or more fills the first network's CELL."""
    scales = []
    scale = CELL / MIN_FACE
    while side * scale >= CELL:
        scales.append(scale)
        scale *= SHRINK
    return scales


def first_network(x: Tensor, state: State) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(1, 3, H, W) -> moves of the corners (4, h, w) in sides, confidence (h, w)."""
    x = pooled(convolved(x, "1", state), 2)
    x = convolved(convolved(x, "2", state), "3", state)
    certain = plain(x, "conv4_1", state).softmax(1)[0, 1]
    return plain(x, "conv4_2", state)[0].numpy(), certain.numpy()


def second_network(x: Tensor, state: State) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, 3, 24, 24) -> confidence (n,), moves (n, 4)."""
    x = pooled(convolved(x, "1", state), 3)
    x = convolved(pooled(convolved(x, "2", state), 3), "3", state)
    x = dense(x, "4", state)
    return linear(x, "dense5_1", state).softmax(1)[:, 1].numpy(), linear(x, "dense5_2", state).numpy()


def third_network(x: Tensor, state: State) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """(n, 3, 48, 48) -> confidence (n,), moves (n, 4), points (n, 5, 2) in sides of the box."""
    x = pooled(convolved(x, "1", state), 3)
    x = pooled(convolved(x, "2", state), 3)
    x = convolved(pooled(convolved(x, "3", state), 2), "4", state)
    x = dense(x, "5", state)
    points = linear(x, "dense6_3", state).reshape(-1, 2, 5).transpose(1, 2)
    certain = linear(x, "dense6_1", state).softmax(1)[:, 1]
    return certain.numpy(), linear(x, "dense6_2", state).numpy(), points.numpy()


def plain(x: Tensor, name: str, state: State) -> Tensor:
    from torch.nn import functional

    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])


def linear(x: Tensor, name: str, state: State) -> Tensor:
    from torch.nn import functional

    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def convolved(x: Tensor, number: str, state: State) -> Tensor:
    from torch.nn import functional

    return functional.prelu(plain(x, f"conv{number}", state), state[f"prelu{number}.weight"])


def dense(x: Tensor, number: str, state: State) -> Tensor:
    """The weights were trained on cells in the order of columns."""
    from torch.nn import functional

    flat = x.permute(0, 3, 2, 1).reshape(len(x), -1)
    return functional.prelu(linear(flat, f"dense{number}", state), state[f"prelu{number}.weight"])


def pooled(x: Tensor, side: int) -> Tensor:
    from torch.nn import functional

    return functional.max_pool2d(x, side, 2, ceil_mode=True)


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """By mean over areas, and around 0 as the networks want it."""
    from torch.nn import functional

    return (functional.interpolate(image, (height, width), mode="area") - 127.5) / 128


def cut_out(image: Tensor, boxes: Boxes, side: int) -> Tensor:
    """Boxes that lie `inside` -> (n, 3, side, side)."""
    import torch

    height, width = image.shape[2:]
    crops = []
    for left, top, right, bottom in boxes.astype(int):
        part = image[:, :, max(top, 1) - 1 : min(bottom, height), max(left, 1) - 1 : min(right, width)]
        crops.append(resized(part, side, side))
    return torch.cat(crops)


def inside(boxes: Boxes, image: Tensor) -> Boxes:
    """Those that have a pixel of the picture."""
    height, width = image.shape[2:]
    left, top, right, bottom = boxes.astype(int).T
    seen = (np.minimum(right, width) > np.maximum(left, 1) - 1) & (np.minimum(bottom, height) > np.maximum(top, 1) - 1)
    return boxes[seen]


def moved(boxes: Boxes, moves: NDArray[np.float32]) -> Boxes:
    """Corners moved by shares of the sides."""
    return boxes + moves * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def squared(boxes: Boxes) -> Boxes:
    """About the same centre, with the longer side."""
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    half = sides.max(1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], 1)


def distinct(boxes: Boxes, certain: NDArray[np.float32], most: float, of_smaller: bool = False) -> list[int]:
    """Numbers of boxes, the surest first, that no surer one overlaps by more than `most` of their union (or of the
    smaller one)."""
    kept: list[int] = []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left = np.argsort(-certain, kind="stable")
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        shared = np.prod(sides.clip(min=0), axis=1)
        whole = np.minimum(areas[best], areas[left]) if of_smaller else areas[best] + areas[left] - shared
        left = left[shared <= most * whole]
    return kept
