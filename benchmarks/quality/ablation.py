"""`iwcodec bench ablation`: the paper's ablations as small trainings of equal budget.

"Implicit Warping for Animation with Image Sets", NeurIPS 2022: the residual of warped pixels and keys, and the extra
keys and values, each left out. All variants start from the same seed and see the same number of samples; with so short
a training the differences say which way each part pulls, not how far it would in the end.
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
    from iwcodec.models.training.train import TrainConfig

VARIANTS: dict[str, dict[str, bool]] = {
    "all parts": {},
    "no residual": {"residual": False},
    "no extra keys and values": {"extra": False},
    "neither": {"residual": False, "extra": False},
}
"""Name -> switches of ModelConfig."""
SOURCES = (1, 3)
FRAMES = 9
"""Of each val clip."""


@dataclass(frozen=True)
class Result:
    """dB over RGB, means over the val clips."""

    variant: str
    sources: int
    psnr_db: float
    base_db: float
    """Of the picture before the decoder's correction."""
    copy_db: float


def command(
    data: Annotated[Path, typer.Option(help="Folder of clips with a manifest.csv that names a val split.")],
    steps: Annotated[int, typer.Option(help="Training steps of each variant.", min=1)] = 1000,
    size: Annotated[int, typer.Option(help="Pixels a side: 64, 128 or 256.")] = 64,
    config: Annotated[str, typer.Option(help="Network: lite or paper.")] = "lite",
    cache: Annotated[Path | None, typer.Option(help="Decoded clips and flows, as for train.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Folder for ablation.json and a run folder each.")] = Path("bench"),
) -> None:
    """Train with and without the paper's parts, equally long, and compare on the val clips. Resumes when run again."""
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
    experiment.save(results, out / "ablation.json")
    console.print(table(results))
    console.print(f"Results: {out / 'ablation.json'}")


def run(data: Path, steps: int, size: int, config: str, cache: Path, folder: Path) -> dict[str, Any]:
    """Trains what is not trained yet. Raises ValueError for an unknown network or where there are no clips."""
    from iwcodec.models.training.train import train

    found: list[Result] = []
    for name, switches in VARIANTS.items():
        settings = plan(config, steps, size, switches)
        out = folder / f"{name.replace(' ', '-')}-{size}-{steps}"
        console.print(f"{name}:")
        # No worker process: one forked after OpenMP has run in this process, as judging makes it, may never start.
        if not train(settings, data, cache, out, workers=0).finished:
            raise KeyboardInterrupt  # it has saved what there is, and goes on from there
        found += judged(name, data, out, size)
    return {
        **experiment.surroundings(),
        "what": "ablation",
        "steps": steps,
        "size": size,
        "samples": steps * settings.stages[0].plan.groups * settings.stages[0].plan.driving,
        "results": [asdict(result) for result in found],
    }


def plan(config: str, steps: int, size: int, switches: dict[str, bool]) -> "TrainConfig":
    """One stage from nothing, taught as the first stage of the shipped weights, its learning rate annealed."""
    from dataclasses import replace

    from iwcodec.models.network.config import CONFIGS
    from iwcodec.models.training.data import SamplePlan
    from iwcodec.models.training.losses import LossWeights
    from iwcodec.models.training.train import Stage, TrainConfig

    if config not in CONFIGS:
        raise ValueError(f"there is no network {config!r}; there are {', '.join(CONFIGS)}")
    if size not in (64, 128, 256):
        raise ValueError(f"size must be 64, 128 or 256, not {size}")
    seen = max(size, 128)
    stage = Stage(
        name="ablation",
        steps=steps,
        plan=SamplePlan(size=seen, groups=4, driving=3, max_sources=3, coded=0.0),
        learning_rate=1e-3,
        shrink=seen // size,
        weights=LossWeights(match=0.3, place=0.5, choice=0.2),
        validate_every=steps + 1,
    )
    return TrainConfig(replace(CONFIGS[config], **switches), (stage,))  # type: ignore[arg-type]


def judged(name: str, data: Path, run_folder: Path, size: int) -> list[Result]:
    import numpy as np

    from iwcodec.models.training.data import find_clips
    from iwcodec.models.training.evaluate import evaluate, load_clip
    from iwcodec.models.training.export import load_checkpoint

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
    shown = Table(
        title=f"{results['steps']} steps at {results['size']}x{results['size']}, dB on val", title_justify="left"
    )
    for heading in ("", "sources", "dB", "before correction", "nearest source copied"):
        shown.add_column(heading, justify="right" if heading else "left")
    for row in results["results"]:
        figures = (f"{row[key]:.2f}" for key in ("psnr_db", "base_db", "copy_db"))
        shown.add_row(row["variant"], str(row["sources"]), *figures)
    return shown
