"""Validation: PSNR of the network on held-out clips, and of copying the best source for comparison."""

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
from iwcodec.models.network.geometry import pose_distance
from iwcodec.models.network.layers import resize
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.training.alignment import align, grey
from iwcodec.models.training.data.clips import Clip
from iwcodec.models.training.data.frames import count_frames, evenly_spaced, read_frames, square
from iwcodec.models.training.fitting import Equations, equations, fit_keypoints, residuals


@dataclass(frozen=True)
class Score:
    """Mean PSNR in dB, over RGB and the frames that are not sources, of one clip with a number of sources."""

    clip: str
    sources: int
    model: float
    """Network with detected keypoints."""
    base: float
    """Base picture, before the decoder's correction, with detected keypoints."""
    copy: float
    """Best of the unmodified sources."""
    fitted: float
    """Network with keypoints fitted to the flow and aligned (alignment.py)."""
    misses: float
    """Mean residual of those keypoints with respect to the flow, in pixels at 256x256."""


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in dB over all values, at most 60 dB."""
    mse = float(np.mean((a.astype(np.float32) - b) ** 2))
    return min(60.0, 10 * float(np.log10(255**2 / max(mse, 1e-9))))


def load_clip(clip: Clip, size: int, frames: int) -> NDArray[np.uint8]:
    """Load up to `frames` evenly spaced frames (n, size, size, 3) of a clip; only these are kept in memory.

    Raises ValueError or OSError if it is not a video or has no frame."""
    keep = evenly_spaced(count_frames(clip.path), frames)
    if not keep:
        raise ValueError(f"{clip.path} has no frame")
    return np.stack([square(picture, size) for picture in read_frames(clip.path, set(keep))])


def source_indices(count: int, sources: int) -> list[int]:
    """Choose source frames: the first for one source, else evenly spaced ones including first and last."""
    return [0] if sources == 1 else np.linspace(0, count - 1, sources).round().astype(int).tolist()


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Convert 8-bit pictures (n, H, W, 3) to (n, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 255


def to_pictures(tensor: Tensor) -> NDArray[np.uint8]:
    """Convert (n, 3, H, W) in 0..1 to 8-bit pictures (n, H, W, 3)."""
    return (tensor.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


class Reconstruction(NamedTuple):
    """Result of `reconstruct`."""

    pictures: NDArray[np.uint8]
    bases: NDArray[np.uint8]
    misses: float
    """Mean residual of the keypoints with respect to the flow, in pixels at 256x256; NaN if they were not fitted."""


@torch.inference_mode()
def reconstruct(
    network: ImplicitWarp,
    pictures: NDArray[np.uint8],
    sources: list[int],
    size: int,
    active: int = 4,
    fitted: bool = False,
) -> Reconstruction:
    """Reconstruct every picture at `size` from its detected or fitted keypoints and the `active` sources nearest in
    pose.

    `sources` are indices of pictures. Runs on the network's device."""
    tensors = to_tensor(pictures).to(network.extra_keys.device)
    keypoints = torch.cat([network.detect(chunk) for chunk in tensors.split(16)])
    library = network.encode_sources(resize(tensors[sources], size)[None], keypoints[sources][None])
    small = [square(picture, FLOW_SIZE) for picture in pictures]
    generated, bases, misses = [], [], []
    for number, driving in enumerate(keypoints):
        near = pose_distance(driving - library.keypoints[0]).argsort()[:active]
        chosen = type(library)(*(part[:, near] for part in library))
        driving = driving[None]
        if fitted:
            flow_equations = correspondences(chosen.basis, small[number], [small[sources[i]] for i in near.tolist()])
            driving = fit_keypoints(flow_equations, driving, chosen.keypoints)
            reference, target = grey(chosen.pictures[:, 0]), grey(tensors[number][None])
            driving = align(chosen.basis[:, 0], chosen.keypoints[:, 0], reference, target, driving)
            if number not in sources:
                miss = residuals(flow_equations, driving, chosen.keypoints).norm(dim=-1) * flow_equations.weights
                misses.append(float(miss.sum() / flow_equations.weights.sum().clamp(min=1)) * 128)
        out = network.generate(driving, chosen)
        generated.append(out.picture)
        bases.append(out.base)
    mean = float(np.mean(misses)) if misses else math.nan
    return Reconstruction(to_pictures(torch.cat(generated)), to_pictures(torch.cat(bases)), mean)


def correspondences(basis: Tensor, driving: NDArray[np.uint8], sources: list[NDArray[np.uint8]]) -> Equations:
    """Set up the fit of one driving picture to its sources, all RGB of FLOW_SIZE."""
    flows = [correspond(driving, source) for source in sources]
    shift = torch.from_numpy(np.stack([f.shift for f in flows]).astype(np.float32))
    error = torch.from_numpy(np.stack([f.error for f in flows]).astype(np.float32))
    return equations(basis, shift[None].to(basis.device), error[None].to(basis.device))


def evaluate(
    network: ImplicitWarp, clips: dict[str, NDArray[np.uint8]], source_counts: tuple[int, ...], size: int
) -> list[Score]:
    """Score every clip with every number of sources at `size`, with uncompressed sources and unquantised keypoints."""
    network.eval()
    scores = []
    for name, frames in clips.items():
        pictures = to_pictures(resize(to_tensor(frames), size))
        for count in source_counts:
            sources = source_indices(len(pictures), count)
            detected = reconstruct(network, frames, sources, size)
            fitted = reconstruct(network, frames, sources, size, fitted=True)
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
    """Means over the clips by number of sources; None where nothing was measured."""
    result: dict[str, dict[str, float | None]] = {}
    for count in sorted({s.sources for s in scores}):
        of = [s for s in scores if s.sources == count]
        mean = {
            key: float(np.mean([getattr(s, key) for s in of])) for key in ("model", "fitted", "base", "copy", "misses")
        }
        result[str(count)] = {key: round(value, 3) if math.isfinite(value) else None for key, value in mean.items()}
    return result


def summary(scores: list[Score]) -> str:
    """Format the means for each number of sources in one line."""
    parts = []
    for count in sorted({s.sources for s in scores}):
        of = [s for s in scores if s.sources == count]
        mean = [np.mean([getattr(s, key) for s in of]) for key in ("model", "fitted", "base", "copy", "misses")]
        worse = sum(s.fitted < s.copy for s in of)
        parts.append(
            f"{count} src {mean[0]:.2f}, fitted {mean[1]:.2f} (base {mean[2]:.2f}, copy {mean[3]:.2f}, "
            f"{worse}/{len(of)} below copy, flow residual {mean[4]:.2f} px)"
        )
    return "; ".join(parts)


def picture_grid(network: ImplicitWarp, clips: dict[str, NDArray[np.uint8]], size: int, file: Path) -> None:
    """Write a grid with one row per clip: nearest source, base picture, reconstruction and original of the frame that
    is least similar to any source."""
    rows = []
    for frames in clips.values():
        pictures = to_pictures(resize(to_tensor(frames), size))
        chosen = source_indices(len(pictures), 3)
        others = [i for i in range(len(pictures)) if i not in chosen]
        frame = min(others, key=lambda i: max(psnr(pictures[i], pictures[s]) for s in chosen))
        nearest = max(chosen, key=lambda s: psnr(pictures[frame], pictures[s]))
        result = reconstruct(network, frames[[*chosen, frame]], list(range(len(chosen))), size, fitted=True)
        rows.append(np.concatenate([pictures[nearest], result.bases[-1], result.pictures[-1], pictures[frame]], axis=1))
    cv2.imwrite(str(file), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
