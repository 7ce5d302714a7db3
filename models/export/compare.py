"""Numerical comparison of the exported ONNX graphs with the network in PyTorch."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from iwcodec.models.export.graphs import AttendGraph, MergeGraph, RefineGraph
from iwcodec.models.runtime.onnx import MERGED, OnnxRuntime
from iwcodec.models.runtime.torch import TorchRuntime, concatenate
from iwcodec.models.runtime.types import MAX_ACTIVE, Keypoints, Picture, Source

TOLERANCE = 1e-3
"""Largest accepted difference of any output; `compare` gives the units."""
TIES = 0.005
"""Share of the values after top-k that is excluded: near-ties may select other blocks."""


def compare(
    reference: TorchRuntime, exported: OnnxRuntime, pictures: Sequence[Picture] | None = None
) -> dict[str, float]:
    """Return the largest difference of every output of every graph, each given the same inputs in both runtimes, and of
    reconstructed pictures.

    `pictures` are up to MAX_ACTIVE sources (size, size, 3), smooth noise by default. Frames are reconstructed from the
    first one, two and so on of them, with the keypoints of the first source and with the mean keypoints.

    Positions are in [-1, 1] units, pictures relative to full scale, and features relative to their largest value. The
    difference of `refine` excludes rounding to grey levels. `picture` is the mean difference over the whole pipeline:
    OpenCV samples at 1/32 pixel, and one grey level is 0.004 of full scale.
    """
    pictures = noise_pictures(reference.info.size) if pictures is None else pictures
    sources, exported_sources = ([runtime.prepare(p) for p in pictures] for runtime in (reference, exported))
    results = [compare_source(reference, exported, source) for source in sources]
    for driving in (sources[0].keypoints, np.mean([s.keypoints for s in sources], axis=0).astype(np.float32)):
        for count in range(1, len(pictures) + 1):
            results.append(compare_frame(reference, exported, driving, sources[:count]))
            expected = reference.reconstruct(driving, sources[:count]).astype(int)
            actual = exported.reconstruct(driving, exported_sources[:count])
            results.append({"picture": float(np.abs(expected - actual).mean() / 255)})
    names = dict.fromkeys(name for result in results for name in result)
    return {name: float(np.max([result[name] for result in results if name in result])) for name in names}


def noise_pictures(size: int) -> list[Picture]:
    """Return MAX_ACTIVE pictures (size, size, 3) of smooth noise, always the same ones."""
    coarse = np.random.default_rng(5).random((MAX_ACTIVE, 9, 9, 3)).astype(np.float32)
    large = (cv2.resize(n, (size, size), interpolation=cv2.INTER_CUBIC) for n in coarse)
    return [(n.clip(0, 1) * 255).astype(np.uint8) for n in large]


def compare_source(reference: TorchRuntime, exported: OnnxRuntime, source: Source) -> dict[str, float]:
    """Return the differences of the `detector` and `source` graphs for one picture."""
    run = exported.sessions
    small, scaled = (exported.graph_input(part, source.picture) for part in ("detector", "source"))
    (keypoints,) = run["detector"].run(["keypoints"], {"picture": small})
    inputs = {"picture": scaled, "keypoints": source.keypoints[None]}
    rows, membership, basis = run["source"].run(["rows", "membership", "basis"], inputs)
    return {
        "keypoints": difference(source.keypoints, keypoints[0]),
        "rows": difference(source.features.rows[0, 0].numpy(), rows[0]),
        "membership": difference(source.membership, membership[0]),
        "basis": difference(source.basis, basis[0]),
    }


@torch.inference_mode()
def compare_frame(
    reference: TorchRuntime, exported: OnnxRuntime, driving: Keypoints, sources: Sequence[Source]
) -> dict[str, float]:
    """Return the differences of the `merge`, `attend` and `refine` graphs, all given PyTorch's inputs."""
    network, run = reference.network, exported.sessions
    together = concatenate(sources)
    merged = dict(zip(MERGED, MergeGraph(network)(together.rows), strict=True))
    exported_merged = run["merge"].run(MERGED, {"features": together.rows.numpy()})
    inputs = {"driving": torch.from_numpy(driving)[None], "keypoints": together.keypoints, **merged}
    inputs |= {"membership": together.membership, "basis": together.basis}
    fields, features = (out.numpy() for out in AttendGraph(network)(*inputs.values()))
    exported_fields, exported_features = run["attend"].run(
        ["fields", "features"], {k: v.numpy() for k, v in inputs.items()}
    )
    base = torch.from_numpy(sources[0].picture).permute(2, 0, 1)[None].float() / 255
    base = base if network.config.up_blocks else F.pixel_unshuffle(base, 2)
    refined = RefineGraph(network).corrected(base, torch.from_numpy(features)).clamp(0, 1).numpy()
    (exported_refined,) = run["refine"].run(None, {"base": base.numpy(), "features": features})
    half = network.config.net_size / 2
    return {
        **{
            f"merged {name}": difference(merged[name].numpy(), other)
            for name, other in zip(MERGED, exported_merged, strict=True)
        },
        "shifts": difference(fields[..., :2] / half, exported_fields[..., :2] / half, TIES),
        "weights": difference(fields[..., 2], exported_fields[..., 2], TIES),
        "features": difference(features, exported_features, TIES),
        "refine": float(np.maximum(np.abs(refined * 255 - exported_refined).max() - 0.5, 0)) / 255,
    }


def difference(a: NDArray[np.float32], b: NDArray[np.float32], excluded: float = 0.0) -> float:
    """Return the largest difference, relative to the largest value of `a` if that exceeds 1.

    The share `excluded` of the values with the largest differences is ignored."""
    return float(np.quantile(np.abs(a - b), 1 - excluded) / max(1.0, float(np.abs(a).max())))
