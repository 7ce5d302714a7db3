"""`iwcodec bench paper`: the paper's comparison and ablations on equal terms.

"Implicit Warping for Animation with Image Sets", NeurIPS 2022, compares with FOMM, face-vid2vid and AA-PCA. This
command trains all four (models/baselines) one after the other on the same samples, with the same losses and steps, at
the widths of `lite`, and evaluates them on the val clips with 1, 2 and 3 sources. The baselines average the warped
features of several sources, as in the paper. `--networks` chooses others: `lite` itself, and without the parts that the
paper leaves out in its ablations. A small budget compares how fast networks learn, not what they reach.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.metrics.scoring import CLIP_METRICS, Clip, Scorer, Scores, make_scorer
from iwcodec.codec.cli.terminal import console
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import nn

    from iwcodec.models.training.config import TrainConfig

SOURCES = (1, 2, 3)
"""Numbers of sources to evaluate with."""
ABLATIONS: dict[str, dict[str, bool]] = {
    "lite": {},
    "lite-no-residual": {"residual": False},
    "lite-no-extras": {"extra": False},
    "lite-neither": {"residual": False, "extra": False},
}
"""Name -> fields of ModelConfig in which the network differs from `lite`: the residual of warped pixels and keys, and
the extra keys and values (section 3.2)."""
METRICS = ("psnr", "lpips", "akd", "expression")
"""Metrics of scoring.py, beside L1."""
SCORED_SIDE = 256
"""Side in pixels to which pictures are scaled for metrics that look for a face."""
COLUMNS = {
    "psnr_rgb": "PSNR",
    "l1": "L1",
    "lpips_alex": "LPIPS",
    "akd": "AKD",
    "eye_r": "eyes",
    "mouth_open_r": "mouth",
    "lips_lmd": "lips",
}
"""Score -> heading of the printed table; paper.json has all scores."""


@dataclass(frozen=True)
class Plan:
    """Budget of each network."""

    steps: int
    groups: int = 4
    size: int = 128


@dataclass(frozen=True)
class Row:
    """Means over the val clips."""

    network: str
    sources: int
    scores: Scores
    """By metric; L1 in grey levels of 255. A score is None where no clip has it."""


def command(
    data: Annotated[Path, typer.Option(help="Folder of clips with a manifest.csv that has a val split.")],
    steps: Annotated[int, typer.Option(help="Training steps of each network.", min=1)] = 10000,
    groups: Annotated[int, typer.Option(help="Samples of a step.", min=1)] = 4,
    size: Annotated[int, typer.Option(help="Pixels a side: 128 or 256.")] = 128,
    networks: Annotated[
        str, typer.Option(help=f"Comma-separated: of the default ones and of {', '.join(ABLATIONS)}.")
    ] = "fomm,face-vid2vid,aa-pca,implicit-warping",
    frames: Annotated[int, typer.Option(help="Evenly spaced frames of each val clip.", min=5)] = 16,
    cache: Annotated[Path | None, typer.Option(help="Cache of decoded clips, as for train.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda, for training.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for paper.json and the training runs.")] = Path("bench"),
) -> None:
    """Train networks equally, by default FOMM, face-vid2vid, AA-PCA and implicit warping, and compare them on the val
    clips.

    Resumable: the same command goes on where it was stopped.
    """
    try:
        import torch
    except ImportError as error:
        raise CodecError(f"bench paper needs {error.name}: {install('train')}.") from error
    if size not in (128, 256):
        raise CodecError(f"--size must be 128 or 256, not {size}.")
    torch.set_num_threads(threads)
    try:
        plan = Plan(steps, groups, size)
        results = run(data, plan, frames, cache or out / "cache", out / "paper", networks.split(","), device)
    except (ValueError, ImportError) as error:
        raise CodecError(f"{error}.") from error
    experiment.publish(results, out / "paper.json", False, table(results))


def run(
    data: Path, plan: Plan, frames: int, cache: Path, folder: Path, names: Sequence[str], device: str = "cpu"
) -> dict[str, Any]:
    """Train and evaluate networks by name; finished trainings are reused. Raises ValueError without clips, or for an
    unknown name."""
    from iwcodec.models.baselines.networks import BASELINES
    from iwcodec.models.training.train import train

    known = (*BASELINES, *ABLATIONS)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no network {unknown[0]!r}; there are {', '.join(known)}")
    scorer = make_scorer(METRICS)
    runs = []
    for name in names:
        out = folder / f"{name}-{plan.size}-{plan.groups}x{plan.steps}"
        console.print(f"{name}:")
        # No worker processes: evaluation runs OpenMP in this process, and a process forked after that may hang.
        report = train(config(name, plan), data, cache, out, device, workers=0)
        if not report.finished:
            raise KeyboardInterrupt  # interrupted: the state is saved, the next run resumes
        network = load(name, plan, out)
        runs.append((name, network, {"parameters": sum(p.numel() for p in network.parameters())}))
    clips = val_clips(data, plan.size, frames)
    rows: list[Row] = []
    rows += evaluate("copy of the nearest source", None, clips, scorer)
    for name, network, _ in runs:
        rows += evaluate(name, network, clips, scorer)
    return {
        **experiment.surroundings(),
        "what": "paper",
        **asdict(plan),
        "samples": plan.steps * plan.groups,
        "frames": frames,
        "clips": len(clips),
        "missing": scorer.missing,
        "networks": {name: figures for name, _, figures in runs},
        "results": [asdict(row) for row in rows],
    }


def config(name: str, plan: Plan) -> "TrainConfig":
    """One stage from random weights: L1, perceptual and equivariance losses; one or two sources."""
    from dataclasses import replace

    from iwcodec.models.network.config import LITE
    from iwcodec.models.training.config import Stage, TrainConfig
    from iwcodec.models.training.data.samples import SamplePlan
    from iwcodec.models.training.losses import LossWeights

    stage = Stage(
        name="paper",
        steps=plan.steps,
        plan=SamplePlan(size=plan.size, groups=plan.groups, driving=1, max_sources=2, coded=0.0),
        learning_rate=1e-3,
        warmup=min(100, plan.steps // 10),
        weights=LossWeights(l1=10.0, perceptual=2.0, equivariance=2.0),
        perceptual_side=plan.size // 2,
        validate_every=plan.steps + 1,
    )
    model = replace(LITE, size=plan.size, **ABLATIONS.get(name, {}))  # type: ignore[arg-type]
    return TrainConfig(model, (stage,), baseline=None if name in ABLATIONS else name, cache_size=plan.size)


def load(name: str, plan: Plan, folder: Path) -> "nn.Module":
    """The averaged weights of a finished training."""
    from iwcodec.models.baselines.networks import BASELINES
    from iwcodec.models.network.network import ImplicitWarp
    from iwcodec.models.runtime.torch import load_state

    network: nn.Module = BASELINES.get(name, ImplicitWarp)(config(name, plan).model)
    network.load_state_dict(load_state(folder / "checkpoint.pt")["average"])
    return network.eval()


def val_clips(data: Path, size: int, frames: int) -> dict[str, NDArray[np.uint8]]:
    """Evenly spaced frames (n, size, size, 3) of the val clips that have more frames than the most sources, by name.

    Raises ValueError if there are none."""
    from iwcodec.models.training.data.clips import find_clips
    from iwcodec.models.training.evaluate import load_clip

    loaded = {clip.name: load_clip(clip, size, frames) for clip in find_clips(data, "val")}
    clips = {name: pictures for name, pictures in loaded.items() if len(pictures) > max(SOURCES)}
    if not clips:
        raise ValueError(f"every val clip has fewer than {max(SOURCES) + 1} frames")
    return clips


def evaluate(
    name: str, network: "nn.Module | None", clips: dict[str, NDArray[np.uint8]], scorer: Scorer
) -> Iterator[Row]:
    """Scores for each number of sources: means over the clips, of the frames that are not sources."""
    from iwcodec.models.training.evaluate import source_indices

    for count in SOURCES:
        console.print(f"Evaluating {name}, sources: {count}.")
        scores: list[Scores] = []
        for pictures in clips.values():
            chosen = source_indices(len(pictures), count)
            originals = [picture for n, picture in enumerate(pictures) if n not in chosen]
            sources = [pictures[n] for n in chosen]
            made = copies(originals, sources) if network is None else reconstruct(network, originals, sources)
            scores.append(score(originals, made, scorer))
        yield Row(name, count, means(scores))


def copies(originals: list[Picture], sources: list[Picture]) -> list[Picture]:
    """For each original the source with the least squared error."""

    def error(source: Picture, original: Picture) -> float:
        return float(np.square(source.astype(np.float32) - original).mean())

    return [min(sources, key=lambda source: error(source, original)) for original in originals]


def reconstruct(network: "nn.Module", originals: list[Picture], sources: list[Picture]) -> list[Picture]:
    """Pictures that a network makes of the originals' detected keypoints and the sources."""
    import torch

    from iwcodec.models.network.network import ImplicitWarp
    from iwcodec.models.training.evaluate import to_pictures, to_tensor

    driving, kept = (to_tensor(np.stack(pictures)) for pictures in (originals, sources))
    with torch.inference_mode():
        if isinstance(network, ImplicitWarp):
            library = network.encode_sources(kept[None], network.detect(kept)[None])
            made = [network.generate(network.detect(picture[None]), library).picture for picture in driving]
        else:
            made = [network(picture[None], kept[None]) for picture in driving]
    return list(to_pictures(torch.cat(made)))


def score(originals: list[Picture], made: list[Picture], scorer: Scorer) -> Scores:
    """All scores of a clip; L1 is the mean absolute difference in grey levels."""
    l1 = float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in zip(originals, made, strict=True)]))
    own = scorer(
        Clip(originals, made, 25.0), {column: None for name in ("akd", "expression") for column in CLIP_METRICS[name]}
    )
    side = (SCORED_SIDE, SCORED_SIDE)
    large = [[np.asarray(cv2.resize(p, side), np.uint8) for p in pictures] for pictures in (originals, made)]
    known: Scores = {name: value for name, value in own.items() if value is not None}
    return {"l1": round(l1, 3), **scorer(Clip(large[0], large[1], 25.0), known)}


def means(scores: list[Scores]) -> Scores:
    """Mean of each score over the clips that have it."""
    result: Scores = {}
    for name in scores[0]:
        values = [value for clip in scores if (value := clip[name]) is not None]
        result[name] = round(float(np.mean(values)), 4) if values else None
    return result


def table(results: dict[str, Any]) -> Table:
    """One row per network and number of sources."""
    rows = (
        [row["network"], str(row["sources"]), *(_text(row["scores"].get(name)) for name in COLUMNS)]
        for row in results["results"]
    )
    title = f"{results['steps']} steps of {results['groups']} samples at {results['size']}x{results['size']}, val"
    return experiment.text_table(title, ("", "sources", *COLUMNS.values()), rows)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
