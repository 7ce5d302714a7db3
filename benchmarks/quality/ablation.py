"""`iwcodec bench ablation`: the paper's ablations as short trainings of equal budget.

"Implicit Warping for Animation with Image Sets", NeurIPS 2022: without the residual of warped pixels and keys, without
the extra keys and values, and without both. All variants start from the same seed and see the same number of samples.
A short training shows the sign of each part's effect, not its final size.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.codec.cli import console
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install

if TYPE_CHECKING:
    from iwcodec.models.training.config import TrainConfig

VARIANTS: dict[str, dict[str, bool]] = {
    "all parts": {},
    "no residual": {"residual": False},
    "no extra keys and values": {"extra": False},
    "neither": {"residual": False, "extra": False},
}
"""Name -> fields of ModelConfig that differ from the default."""
SOURCES = (1, 3)
"""Numbers of sources to evaluate with."""
FRAMES = 9
"""Evaluated frames of each val clip."""


@dataclass(frozen=True)
class Result:
    """PSNR over RGB, mean over the val clips."""

    variant: str
    sources: int
    psnr_db: float
    base_db: float
    """PSNR before the decoder's correction."""
    copy_db: float


def command(
    data: Annotated[Path, typer.Option(help="Folder of clips with a manifest.csv that has a val split.")],
    steps: Annotated[int, typer.Option(help="Training steps of each variant.", min=1)] = 1000,
    size: Annotated[int, typer.Option(help="Pixels a side: 64, 128 or 256.")] = 64,
    config: Annotated[str, typer.Option(help="Network: lite or paper.")] = "lite",
    cache: Annotated[Path | None, typer.Option(help="Cache of decoded clips and flows, as for train.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Folder for ablation.json and the training runs.")] = Path("bench"),
) -> None:
    """Train variants without parts of the network, equally long, and compare them on the val clips. Resumable."""
    try:
        import torch

        from iwcodec.models.training import train  # noqa: F401
    except ImportError as error:
        raise CodecError(f"bench ablation needs {error.name}: {install('train')}.") from error
    torch.set_num_threads(threads)
    try:
        results = run(data, steps, size, config, cache or out / "cache", out / "ablation")
    except ValueError as error:
        raise CodecError(f"{error}.") from error
    experiment.publish(results, out / "ablation.json", False, table(results))


def run(data: Path, steps: int, size: int, config: str, cache: Path, folder: Path) -> dict[str, Any]:
    """Train and evaluate all variants; finished trainings are reused.

    Raises ValueError for an unknown network or without clips.
    """
    from iwcodec.models.training.train import train

    rows: list[Result] = []
    for name, switches in VARIANTS.items():
        settings = plan(config, steps, size, switches)
        out = folder / f"{name.replace(' ', '-')}-{size}-{steps}"
        console.print(f"{name}:")
        # No worker processes: evaluation runs OpenMP in this process, and a process forked after that may hang.
        if not train(settings, data, cache, out, workers=0).finished:
            raise KeyboardInterrupt  # interrupted: the state is saved, the next run resumes
        rows += evaluate_run(name, data, out, size)
    return {
        **experiment.surroundings(),
        "what": "ablation",
        "steps": steps,
        "size": size,
        "samples": steps * settings.stages[0].plan.groups * settings.stages[0].plan.driving,
        "results": [asdict(result) for result in rows],
    }


def plan(config: str, steps: int, size: int, switches: dict[str, bool]) -> "TrainConfig":
    """One stage from random weights, with the losses of the shipped weights' first stage and an annealed learning rate.

    Raises ValueError for an unknown network or size.
    """
    from dataclasses import replace

    from iwcodec.models.network.config import CONFIGS
    from iwcodec.models.training.config import Stage, TrainConfig
    from iwcodec.models.training.data.samples import SamplePlan
    from iwcodec.models.training.losses import LossWeights

    if config not in CONFIGS:
        raise ValueError(f"there is no network {config!r}; there are {', '.join(CONFIGS)}")
    if size not in (64, 128, 256):
        raise ValueError(f"size must be 64, 128 or 256, not {size}")
    data_size = max(size, 128)
    stage = Stage(
        name="ablation",
        steps=steps,
        plan=SamplePlan(size=data_size, groups=4, driving=3, max_sources=3, coded=0.0),
        learning_rate=1e-3,
        shrink=data_size // size,
        weights=LossWeights(match=0.3, place=0.5, choice=0.2),
        validate_every=steps + 1,
    )
    return TrainConfig(replace(CONFIGS[config], **switches), (stage,))  # type: ignore[arg-type]


def evaluate_run(name: str, data: Path, run_folder: Path, size: int) -> list[Result]:
    """PSNR of a trained variant on the val clips, for each of SOURCES."""
    import numpy as np

    from iwcodec.models.export.export import load_checkpoint
    from iwcodec.models.training.data.clips import find_clips
    from iwcodec.models.training.evaluate import evaluate, load_clip

    network = load_checkpoint(run_folder / "checkpoint.pt", size)
    clips = {clip.name: load_clip(clip, max(size, 128), FRAMES) for clip in find_clips(data, "val")}
    scores = evaluate(network, clips, SOURCES, size)
    results = []
    for count in SOURCES:
        rows = [score for score in scores if score.sources == count]
        means = (round(float(np.mean([getattr(row, key) for row in rows])), 3) for key in ("model", "base", "copy"))
        results.append(Result(name, count, *means))
    return results


def table(results: dict[str, Any]) -> Table:
    """One row per variant and number of sources."""
    rows = (
        [row["variant"], str(row["sources"]), *(f"{row[key]:.2f}" for key in ("psnr_db", "base_db", "copy_db"))]
        for row in results["results"]
    )
    title = f"{results['steps']} steps at {results['size']}x{results['size']}, dB on val"
    return experiment.text_table(title, ("", "sources", "dB", "before correction", "copy of nearest source"), rows)
