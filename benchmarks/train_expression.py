"""Train the networks that read eyes and mouths (codec/sources/expression.py) from video clips.

    python -m iwcodec.benchmarks.train_expression DATA -o codec/data/expression.npz

DATA is a folder of clips as for `iwcodec train`. MediaPipe's face mesh is the teacher, so the weights of `iwcodec bench
weights` and PyTorch are needed. Takes about twenty minutes of one core. Prints the correlation with the mesh, clip by
clip, on the val clips.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from iwcodec.benchmarks.metrics.expression import LEFT_CORNER, RIGHT_CORNER, features
from iwcodec.benchmarks.metrics.mesh.face_mesh import FaceMesh
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video
from iwcodec.codec.sources.expression import MIN_CONTRAST, SIDE, WEIGHTS
from iwcodec.codec.sources.region_view import sampled
from iwcodec.codec.sources.regions import EYES, MOUTH, REGIONS, box_places, region_box
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime
from iwcodec.models.training.data.clips import Clip, find_clips

CLIPS, FRAMES = 4, 24
"""Clips used of each person at most, and evenly spaced frames of each."""
VAL_FRAMES = 100
MARGIN = 1.5
"""Side of a stored patch in sides of the region's box: room to displace, turn and scale it."""
STORED = round(MARGIN * SIDE)
EPOCHS, BATCH, LEARNING_RATE = 36, 128, 4e-3
SHIFT, TURN, SCALE = 0.06, 0.08, 0.07
"""Standard deviations of a patch's displacement in half sides, of its turn in radians, and of its scale's logarithm."""


@dataclass(frozen=True)
class Examples:
    patches: Tensor
    """(n, 2, STORED, STORED): grey levels around eyes and mouth."""
    labels: Tensor
    """(n, 4): eye opening, gaze; mouth opening and width in distances of the irises."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    runtime, mesh = load_runtime(), FaceMesh()
    examples = joined(examples_of(clip, FRAMES, runtime, mesh) for clip in few_of_each(find_clips(arguments.data)))
    print(f"{len(examples.labels)} frames")
    networks = [trained(examples, region) for region in REGIONS]
    stored = [item for region in REGIONS for item in arrays(networks[region], region).items()]
    np.savez_compressed(arguments.out, **dict(stored))  # type: ignore[arg-type]
    for clip in find_clips(arguments.data, "val"):
        found = examples_of(clip, VAL_FRAMES, runtime, mesh)
        if len(found.labels) > 1:
            values = [r for region in REGIONS for r in correlations(networks[region], found, region)]
            print(f"{clip.name:36} " + " ".join(f"{r:5.2f}" for r in values))


def few_of_each(clips: Iterable[Clip]) -> list[Clip]:
    """The first clips of each person."""
    of_person: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        of_person[clip.identity].append(clip)
    return [clip for found in of_person.values() for clip in found[:CLIPS]]


def examples_of(clip: Clip, count: int, runtime: Runtime, mesh: FaceMesh) -> Examples:
    """Examples of evenly spaced frames in which the mesh finds a face whose eyes the keypoints find, too."""
    pictures = [frame.picture for frame in read_video(clip.path)]
    patches, labels = [], []
    for n in np.unique(np.linspace(0, len(pictures) - 1, count).astype(int)):
        face = mesh(pictures[n])
        if face is None:
            continue
        keypoints = runtime.detect(pictures[n])
        irises = float(np.linalg.norm(keypoints[0, :2] - keypoints[1, :2])) * len(pictures[n]) / 2
        eyes = float(np.linalg.norm(face[RIGHT_CORNER] - face[LEFT_CORNER]))
        if 1 < eyes / max(irises, 1e-3) < 2.2:
            eye, gaze, opening, width = features(face)
            labels.append((eye, gaze, opening * eyes / irises, width * eyes / irises))
            patches.append([stored_patch(pictures[n], keypoints, region) for region in REGIONS])
    stored = np.array(patches, np.uint8).reshape(-1, len(REGIONS), STORED, STORED)
    return Examples(torch.from_numpy(stored), torch.tensor(labels, dtype=torch.float32).reshape(-1, 4))


def stored_patch(picture: Picture, keypoints: NDArray[np.float32], region: int) -> NDArray[np.uint8]:
    box = region_box(keypoints, region, len(picture))
    places = box_places(replace(box, width=box.width * MARGIN, height=box.height * MARGIN))
    grey = cv2.cvtColor(sampled(picture, places), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (STORED, STORED), interpolation=cv2.INTER_AREA), np.uint8)


def joined(parts: Iterable[Examples]) -> Examples:
    kept = list(parts)
    return Examples(torch.cat([part.patches for part in kept]), torch.cat([part.labels for part in kept]))


class ExpressionNetwork(nn.Module):
    """Grey patches (n, 1, SIDE, SIDE) -> (n, 2); see codec/sources/expression.py."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        sizes = (1, 12, 24, 32)
        self.convolutions = [nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(sizes)]
        self.layers = [nn.Linear(32 * (SIDE // 8) ** 2, 32), nn.Linear(32, 2)]
        self.parts = nn.ModuleList([*self.convolutions, *self.layers])
        self.mean, self.deviation = labels.mean(0), labels.std(0)

    def forward(self, patches: Tensor) -> Tensor:
        """In standard deviations from the mean of the labels."""
        contrast = patches.std((1, 2, 3), keepdim=True) + MIN_CONTRAST
        values = (patches - patches.mean((1, 2, 3), keepdim=True)) / contrast
        for convolution in self.convolutions:
            values = functional.relu(convolution(values))
        values = functional.dropout(values.flatten(1), 0.15, self.training)
        return self.layers[1](functional.relu(self.layers[0](values)))


def labels_of(examples: Examples, region: int) -> Tensor:
    return examples.labels[:, 2 * region : 2 * region + 2]


def trained(examples: Examples, region: int) -> ExpressionNetwork:
    """Train one region's network; patches are displaced, turned, scaled, mirrored, blurred, relit and noisy."""
    labels = labels_of(examples, region)
    network = ExpressionNetwork(labels)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    steps = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, EPOCHS * steps)
    for epoch in range(EPOCHS):
        order, total = torch.randperm(len(labels)), 0.0
        for batch in order[: steps * BATCH].split(BATCH):
            patches, scale = displaced(examples.patches[batch, region])
            wanted = labels[batch] / scale[:, None] if region == MOUTH else labels[batch]
            if torch.rand(()) < 0.5:
                patches = patches.flip(3)
                if region == EYES:
                    wanted = torch.stack([wanted[:, 0], 1 - wanted[:, 1]], 1)
            found = network(damaged(patches))
            loss = functional.smooth_l1_loss(found, (wanted - network.mean) / network.deviation)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"region {region}, epoch {epoch + 1} of {EPOCHS}: loss {total / steps:.4f}", flush=True)
    return network.eval()


def displaced(stored: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cut patches (n, 1, SIDE, SIDE) out of stored ones, each displaced, turned and scaled at random. Also
    return the scales."""
    count = len(stored)
    scale = torch.exp(torch.randn(count) * SCALE * strength).clamp(0.82, 1.2)
    angle = torch.randn(count) * TURN * strength
    affine = torch.empty(count, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = scale * torch.cos(angle)
    affine[:, 1, 0] = scale * torch.sin(angle)
    affine[:, 0, 1] = -affine[:, 1, 0]
    affine[:, :, 2] = torch.randn(count, 2) * SHIFT * strength
    grid = functional.affine_grid(affine / MARGIN, [count, 1, SIDE, SIDE], align_corners=False)
    patches = functional.grid_sample(stored[:, None].float(), grid, padding_mode="border", align_corners=False)
    return patches, scale


def damaged(patches: Tensor) -> Tensor:
    """Blur half of the batches, change each patch's contrast, and add noise."""
    each = (len(patches), 1, 1, 1)
    if torch.rand(()) < 0.5:
        blurred = functional.avg_pool2d(functional.pad(patches, (1, 1, 1, 1), mode="replicate"), 3, 1)
        patches = torch.lerp(blurred, patches, torch.rand(each))
    return patches * torch.exp(torch.randn(each) * 0.2) + torch.randn_like(patches) * torch.rand(each) * 6


def correlations(network: ExpressionNetwork, examples: Examples, region: int) -> list[float]:
    """Pearson's r with the mesh of both values that the network reads."""
    with torch.inference_mode():
        found = network(displaced(examples.patches[:, region], 0.0)[0])
    labels = labels_of(examples, region)
    return [float(torch.corrcoef(torch.stack([found[:, n], labels[:, n]]))[0, 1]) for n in range(2)]


def arrays(network: ExpressionNetwork, region: int) -> dict[str, NDArray[np.float16]]:
    """Weights as codec/sources/expression.py reads them: channels last."""
    stored: dict[str, Tensor] = {}
    for n, convolution in enumerate(network.convolutions):
        weight = convolution.weight
        stored[f"{region}.kernel.{n}"] = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
        assert convolution.bias is not None
        stored[f"{region}.kernel_bias.{n}"] = convolution.bias
    cells = SIDE // 8
    first, second = network.layers
    stored[f"{region}.layer.0"] = first.weight.reshape(32, 32, cells, cells).permute(2, 3, 1, 0).reshape(-1, 32)
    stored[f"{region}.layer.1"] = second.weight.T
    stored |= {f"{region}.bias.{n}": layer.bias for n, layer in enumerate(network.layers)}
    return {name: value.detach().numpy().astype(np.float16) for name, value in stored.items()}


if __name__ == "__main__":
    main()
