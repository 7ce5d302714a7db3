"""PSNR of the network on clips it never saw, beside copying the nearest source and the flow oracle."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iwcodec.models.flow import FLOW_SIZE, correspond
from iwcodec.models.network.detector import fit
from iwcodec.models.network.geometry import pose_distance
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.training.alignment import align, grey
from iwcodec.models.training.data import Clip, count_frames, evenly_spaced, read_frames, square
from iwcodec.models.training.fitting import Equations, equations, fit_keypoints, missed


@dataclass(frozen=True)
class Score:
    """Mean over frames of one clip with a number of sources, in dB over RGB."""

    clip: str
    sources: int
    model: float
    base: float
    copy: float
    fitted: float
    """As `model`, from keypoints fitted to the flow and aligned (alignment.py)."""
    misses: float
    """Mean distance by which those keypoints miss the flow, in pixels of 256."""


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """dB over all values; identical pictures count as 60 dB."""
    mse = float(np.mean((a.astype(np.float32) - b) ** 2))
    return min(60.0, 10 * float(np.log10(255**2 / max(mse, 1e-9))))


def load_clip(clip: Clip, size: int, frames: int) -> NDArray[np.uint8]:
    """Up to `frames` evenly spaced frames (n, size, size, 3); only these are kept in memory.

    Raises ValueError or OSError for what is no video, or has no frame."""
    keep = evenly_spaced(count_frames(clip.path), frames)
    if not keep:
        raise ValueError(f"{clip.path} has no frame")
    return np.stack([square(picture, size) for picture in read_frames(clip.path, set(keep))])


def source_indices(count: int, sources: int) -> list[int]:
    """The first frame for one source; evenly spaced ones, first and last included, for more."""
    return [0] if sources == 1 else np.linspace(0, count - 1, sources).round().astype(int).tolist()


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 255


def to_pictures(tensor: Tensor) -> NDArray[np.uint8]:
    return (tensor.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


class Rebuilt(NamedTuple):
    pictures: NDArray[np.uint8]
    bases: NDArray[np.uint8]
    misses: float
    """Pixels of 256 by which the keypoints miss the flow; NaN where they were not fitted."""


@torch.inference_mode()
def reconstruct(
    network: ImplicitWarp,
    pictures: NDArray[np.uint8],
    sources: list[int],
    size: int,
    active: int = 4,
    fitted: bool = False,
) -> Rebuilt:
    """Every picture rebuilt at `size` from its keypoints, as detected or fitted, and the `active` sources nearest in
    keypoints; on the network's device."""
    tensors = to_tensor(pictures).to(network.extra_keys.device)
    keypoints = torch.cat([network.detect(chunk) for chunk in tensors.split(16)])
    library = network.encode_sources(fit(tensors[sources], size)[None], keypoints[sources][None])
    small = [square(picture, FLOW_SIZE) for picture in pictures]
    rebuilt, bases, misses = [], [], []
    for number, driving in enumerate(keypoints):
        near = pose_distance(driving - library.keypoints[0]).argsort()[:active]
        chosen = type(library)(*(part[:, near] for part in library))
        driving = driving[None]
        if fitted:
            known = correspondences(chosen.basis, small[number], [small[sources[i]] for i in near.tolist()])
            driving = fit_keypoints(known, driving, chosen.keypoints)
            leading, seen = grey(chosen.pictures[:, 0]), grey(tensors[number][None])
            driving = align(chosen.basis[:, 0], chosen.keypoints[:, 0], leading, seen, driving)
            if number not in sources:
                miss = missed(known, driving, chosen.keypoints).norm(dim=-1) * known.weights
                misses.append(float(miss.sum() / known.weights.sum().clamp(min=1)) * 128)
        out = network.generate(driving, chosen)
        rebuilt.append(out.picture)
        bases.append(out.base)
    mean = float(np.mean(misses)) if misses else math.nan
    return Rebuilt(to_pictures(torch.cat(rebuilt)), to_pictures(torch.cat(bases)), mean)


def correspondences(basis: Tensor, driving: NDArray[np.uint8], sources: list[NDArray[np.uint8]]) -> Equations:
    found = [correspond(driving, source) for source in sources]
    shift = torch.from_numpy(np.stack([f.shift for f in found]).astype(np.float32))
    error = torch.from_numpy(np.stack([f.error for f in found]).astype(np.float32))
    return equations(basis, shift[None].to(basis.device), error[None].to(basis.device))


def evaluate(
    network: ImplicitWarp, clips: dict[str, NDArray[np.uint8]], source_counts: tuple[int, ...], size: int
) -> list[Score]:
    """Scores at `size` of every clip and number of sources, on uncompressed sources and unquantised keypoints."""
    network.eval()
    scores = []
    for name, seen in clips.items():
        pictures = to_pictures(fit(to_tensor(seen), size))
        for count in source_counts:
            sources = source_indices(len(pictures), count)
            detected = reconstruct(network, seen, sources, size)
            fitted = reconstruct(network, seen, sources, size, fitted=True)
            others = [i for i in range(len(pictures)) if i not in sources]
            copies = [max(psnr(pictures[i], pictures[s]) for s in sources) for i in others]
            scores.append(
                Score(
                    name,
                    count,
                    float(np.mean([psnr(pictures[i], detected.pictures[i]) for i in others])),
                    float(np.mean([psnr(pictures[i], detected.bases[i]) for i in others])),
                    float(np.mean(copies)),
                    float(np.mean([psnr(pictures[i], fitted.pictures[i]) for i in others])),
                    fitted.misses,
                )
            )
    return scores


def means(scores: list[Score]) -> dict[str, dict[str, float | None]]:
    """By number of sources, over the clips; None where nothing was measured."""
    found: dict[str, dict[str, float | None]] = {}
    for count in sorted({s.sources for s in scores}):
        of = [s for s in scores if s.sources == count]
        mean = {
            key: float(np.mean([getattr(s, key) for s in of])) for key in ("model", "fitted", "base", "copy", "misses")
        }
        found[str(count)] = {key: round(value, 3) if math.isfinite(value) else None for key, value in mean.items()}
    return found


def summary(scores: list[Score]) -> str:
    """One line: mean model / base / copy for each number of sources."""
    parts = []
    for count in sorted({s.sources for s in scores}):
        of = [s for s in scores if s.sources == count]
        mean = [np.mean([getattr(s, key) for s in of]) for key in ("model", "fitted", "base", "copy", "misses")]
        worse = sum(s.fitted < s.copy for s in of)
        parts.append(
            f"{count} src {mean[0]:.2f}, fitted {mean[1]:.2f} (base {mean[2]:.2f}, copy {mean[3]:.2f}, "
            f"{worse}/{len(of)} below copy, missed by {mean[4]:.2f} px)"
        )
    return "; ".join(parts)


def picture_grid(
    network: ImplicitWarp, clips: dict[str, NDArray[np.uint8]], size: int, file: Path, sources: int = 3
) -> None:
    """One row a clip: nearest source, base, rebuilt, original, at the frame farthest from any source."""
    rows = []
    for seen in clips.values():
        pictures = to_pictures(fit(to_tensor(seen), size))
        chosen = source_indices(len(pictures), sources)
        others = [i for i in range(len(pictures)) if i not in chosen]
        frame = min(others, key=lambda i: max(psnr(pictures[i], pictures[s]) for s in chosen))
        nearest = max(chosen, key=lambda s: psnr(pictures[frame], pictures[s]))
        found = reconstruct(network, seen[[*chosen, frame]], list(range(len(chosen))), size, fitted=True)
        rows.append(np.concatenate([pictures[nearest], found.bases[-1], found.pictures[-1], pictures[frame]], axis=1))
    cv2.imwrite(str(file), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
