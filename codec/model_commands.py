"""The commands `train` and `export`, which need PyTorch."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.terminal import JSON, console, show_json


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="A TOML file, or one of the shipped: lite, lite512, paper."),
    ],
    data: Annotated[Path, typer.Option(help="Folder of clips, as in TalkingHead-1KH, VoxCeleb2 or TED-talk.")],
    out: Annotated[Path, typer.Option(help="Run folder for checkpoint, log and pictures. An existing run is resumed.")],
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded clips and flows; default OUT/cache.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda. With torchrun: one process per device.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Number of CPU threads.", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="Number of processes that load data.", min=0)] = 1,
    as_json: JSON = False,
) -> None:
    """Train the network on a folder of clips. Ctrl-C saves a checkpoint; the same command resumes from it."""
    try:
        import torch

        from iwcodec.models.training import train as training
        from iwcodec.models.training.config import load_config
    except ImportError as error:
        raise CodecError(f"Training needs {error.name}: {install('train')}.") from error
    torch.set_num_threads(threads)
    shipped = Path(training.__file__).parents[1] / "configs" / f"{config}.toml"
    try:
        settings = load_config(shipped if shipped.exists() and not config.exists() else config)
        report = training.train(settings, data, cache or out / "cache", out, device, workers)
    except (ValueError, OSError, ImportError) as error:
        raise CodecError(str(error)) from error
    if os.environ.get("RANK", "0") == "0":  # only the first of several processes reports
        show_trained(report, as_json)


def show_trained(report: Any, as_json: bool) -> None:
    """Print the report of a training run."""
    if as_json:
        show_json(report)
        return
    done = "trained" if report.finished else f"stopped in stage {report.stage}; the same command resumes"
    console.print(f"{report.checkpoint}: {done}, {report.steps} steps in {report.seconds:.0f} s")


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="The checkpoint.pt of a run folder.")],
    model: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model, for example lite-256.")],
    folder: Annotated[Path, typer.Option(help="Folder to write weights and graphs to.")] = Path("weights"),
    size: Annotated[int | None, typer.Option(help="Width and height of its pictures in pixels.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Model in the same folder that this one extends by up blocks only.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write the weights (safetensors) and ONNX graphs of a trained network, and check that PyTorch and ONNX agree.

    With --base, only the up blocks are written; the rest is shared with the base model's files.
    """
    try:
        from iwcodec.models.export import export as exporting
    except ImportError as error:
        raise CodecError(f"Exporting needs {error.name}: {install('train')}.") from error
    try:
        report = exporting.export(exporting.load_checkpoint(checkpoint, size), model, folder, base)
    except (ValueError, OSError, KeyError) as error:
        raise CodecError(f"{checkpoint.name} cannot be exported: {error}") from error
    if as_json:
        show_json(report)
        return
    parts = ", ".join(f"{name} {value:.1e}" for name, value in report.differences.items())
    console.print(f"{model} written to {folder}; largest differences between PyTorch and ONNX: {parts}")
