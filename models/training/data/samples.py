"""Sampling training batches from prepared clips, with augmentation and correspondences."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from iwcodec.models.flow import FLOW_SIZE, GRID, UNSURE, Correspondence
from iwcodec.models.training.data.landmarks import through_window
from iwcodec.models.training.data.prepare import PreparedClip

NEAR = 5
"""Largest distance, in kept frames, of a driving frame from a source for `SamplePlan.near`."""


@dataclass(frozen=True)
class SamplePlan:
    """Composition and augmentation of a batch."""

    size: int
    """Side of the pictures in pixels."""
    groups: int
    """Clips in a batch."""
    driving: int
    """Driving frames per clip, which share the sources."""
    max_sources: int = 4
    """Largest number of sources; each batch draws its number uniformly from 1 to this."""
    zoom: float = 0.3
    """Largest share of the side that cropping removes."""
    wander: float = 0.06
    """Largest additional shift and scale of each picture, in [-1, 1] units and as a factor."""
    coded: float = 0.5
    """Probability that the sources of a sample have JPEG artefacts."""
    near: float = 0.0
    """Probability that the driving frames lie within NEAR frames of a source and share its window: a static speaker
    must be reproduced unchanged."""


class Samples(IterableDataset[dict[str, Tensor]]):
    """Endless batches. Clips are drawn by identity, sources are far apart in time, and all pictures of a sample share
    crop, mirroring and colours.

    Yields pictures `driving` (G, D, 3, H, W) and `sources` (G, S, 3, H, W) in 0..1; `shift` (G, D, S, GRID, GRID, 2) in
    [-1, 1] units and `error` (G, D, S, GRID, GRID) in grey levels, UNSURE where the flow is invalid;
    `driving_landmarks` (G, D, P, 3) and `source_landmarks` (G, S, P, 3), NaN where unknown.

    Batch n depends only on the seed and n, for any number of loader processes. A resumed run starts with batch `first`.
    """

    def __init__(self, clips: list[PreparedClip], plan: SamplePlan, seed: int, first: int = 0) -> None:
        by_identity: dict[str, list[PreparedClip]] = {}
        for clip in clips:
            by_identity.setdefault(clip.clip.identity, []).append(clip)
        self.identities = list(by_identity.values())
        self.plan = plan
        self.seed = seed
        self.first = first

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        cv2.setNumThreads(1)
        # The probability of an identity is proportional to the square root of its number of clips.
        odds = np.sqrt([len(clips) for clips in self.identities])
        odds /= odds.sum()
        # DataLoader takes batches from its processes in turn.
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in itertools.count(self.first + first, step):
            rng = np.random.default_rng([self.seed, number])
            sources = int(rng.integers(1, self.plan.max_sources + 1))
            samples: list[dict[str, Any]] = []
            while len(samples) < self.plan.groups:
                clips = self.identities[rng.choice(len(odds), p=odds)]
                sample = self.draw(clips[rng.integers(len(clips))], sources, rng)
                if sample is not None:
                    samples.append(sample)
            yield {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}

    def draw(self, clip: PreparedClip, sources: int, rng: np.random.Generator) -> dict[str, Any] | None:
        """Draw one sample of a clip; None if the drawn part of the clip has too few anchors."""
        group = clip.groups[rng.integers(len(clip.groups))]
        anchors = [i for i, frame in enumerate(clip.anchors) if frame in group]
        if len(anchors) < sources:
            return None
        chosen = spread(anchors, sources, rng)
        near = rng.random() < self.plan.near
        around = [f for f in group if abs(f - clip.anchors[chosen[0]]) <= NEAR] if near else group
        frames = rng.choice(around, size=self.plan.driving, replace=len(around) < self.plan.driving)
        mirror = bool(rng.integers(2))
        colour = colour_change(rng)
        window = random_window(self.plan.zoom, rng)
        wander = 0.0 if near else self.plan.wander
        views_d = [jitter_window(window, wander, rng) for _ in frames]
        views_s = [jitter_window(window, wander, rng) for _ in chosen]
        damage = int(rng.integers(15, 50)) if rng.random() < self.plan.coded else None
        shown = clip.small if self.plan.size <= FLOW_SIZE else clip.frames
        pictures = [self.view(shown[f], v, mirror, colour, None) for f, v in zip(frames, views_d, strict=True)]
        source_pictures = [
            self.view(shown[clip.anchors[a]], v, mirror, colour, damage) for a, v in zip(chosen, views_s, strict=True)
        ]
        matches = [
            [
                view_correspondence(clip.correspondence(int(f), a), vd, vs, mirror)
                for a, vs in zip(chosen, views_s, strict=True)
            ]
            for f, vd in zip(frames, views_d, strict=True)
        ]
        return {
            "driving": np.stack(pictures),
            "sources": np.stack(source_pictures),
            "driving_landmarks": np.stack(
                [through_window(clip.landmarks[f], v, mirror) for f, v in zip(frames, views_d, strict=True)]
            ),
            "source_landmarks": np.stack(
                [
                    through_window(clip.landmarks[clip.anchors[a]], v, mirror)
                    for a, v in zip(chosen, views_s, strict=True)
                ]
            ),
            "shift": np.stack([np.stack([m[0] for m in row]) for row in matches]),
            "error": np.stack([np.stack([m[1] for m in row]) for row in matches]),
        }

    def view(
        self,
        picture: NDArray[np.uint8],
        window: NDArray[np.float32],
        mirror: bool,
        colour: NDArray[np.float32],
        damage: int | None,
    ) -> NDArray[np.float32]:
        """Render a window (cx, cy, half side), in [-1, 1] units, of a picture as float32 (3, size, size) in 0..1.

        `colour` is gain and offset (2, 3), `damage` a JPEG quality."""
        size, side = self.plan.size, picture.shape[0]
        scale = window[2] * side / size
        origin = (window[:2] - window[2] + 1) * side / 2
        matrix = np.array([[scale, 0, origin[0] + 0.5 * scale - 0.5], [0, scale, origin[1] + 0.5 * scale - 0.5]])
        source = picture
        if scale >= 1.5:  # shrink by area averaging first: bilinear sampling would alias
            shrink = int(scale + 0.5)
            source = cv2.resize(picture, (side // shrink, side // shrink), interpolation=cv2.INTER_AREA)
            matrix = np.array(
                [
                    [scale / shrink, 0, (matrix[0, 2] + 0.5) / shrink - 0.5],
                    [0, scale / shrink, (matrix[1, 2] + 0.5) / shrink - 0.5],
                ]
            )
        out = cv2.warpAffine(
            source,
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        if damage is not None:
            out = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, damage])[1], cv2.IMREAD_COLOR)
        values = out.astype(np.float32) * (colour[0] / 255) + colour[1]
        if mirror:
            values = values[:, ::-1]
        return np.ascontiguousarray(values.clip(0, 1).transpose(2, 0, 1))


def spread(anchors: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """Choose `count` anchors, one from each of `count` equal parts of the clip, in random order."""
    edges = np.linspace(0, len(anchors), count + 1).round().astype(int)
    chosen = [anchors[rng.integers(a, b)] for a, b in itertools.pairwise(edges)]
    return [chosen[i] for i in rng.permutation(count)]


def colour_change(rng: np.random.Generator) -> NDArray[np.float32]:
    """Random gain and offset per channel, (2, 3)."""
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    return np.stack([gain, np.full(3, rng.uniform(-0.06, 0.06))]).astype(np.float32)


def random_window(zoom: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random crop (cx, cy, half side) in [-1, 1] units."""
    half = 1 - rng.uniform(0, zoom)
    centre = rng.uniform(-(1 - half), 1 - half, 2)
    return np.array([*centre, half], np.float32)


def jitter_window(window: NDArray[np.float32], wander: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add a small random camera motion to a window, with probability 0.5."""
    if rng.random() < 0.5:
        return window
    jittered = window + np.array([*rng.uniform(-wander, wander, 2), 0], np.float32)
    jittered[2] *= 1 + rng.uniform(-wander, wander)
    return jittered.astype(np.float32)


def view_correspondence(
    match: Correspondence, driving: NDArray[np.float32], source: NDArray[np.float32], mirror: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Map a correspondence of whole frames into the windows of the two pictures: shift (GRID, GRID, 2), error (GRID,
    GRID)."""
    axis = (np.arange(GRID, dtype=np.float32) + 0.5) * (2 / GRID) - 1
    own = np.stack(np.meshgrid(axis, axis), axis=-1)
    in_frame = driving[:2] + driving[2] * own
    at = ((in_frame + 1) * (GRID / 2) - 0.5).astype(np.float32)
    shift = cv2.remap(
        match.shift.astype(np.float32),
        at[..., 0],
        at[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    error = cv2.remap(
        match.error,
        at[..., 0],
        at[..., 1],
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=UNSURE,
    )
    place = (in_frame + shift - source[:2]) / source[2]
    outside = (np.abs(place) > 1).any(-1) | (np.abs(in_frame) > 1).any(-1)
    error = np.where(outside, UNSURE, error).astype(np.float32)
    shift = (place - own).astype(np.float32)
    if mirror:
        shift, error = shift[:, ::-1] * np.array([-1, 1], np.float32), error[:, ::-1]
    return np.ascontiguousarray(shift), np.ascontiguousarray(error)
