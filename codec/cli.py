"""The `iwcodec` command."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from iwcodec import __version__
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install

app = typer.Typer(
    name="iwcodec",
    help="A talking-head video codec: a few source pictures, then 20 keypoints a frame.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True, highlight=False, markup=False, emoji=False)
"""Prints words as they are: names of files, and what installs an extra, have brackets."""
MISSED = 1.1
"""Times the bitrate asked for: more is said."""

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for machines.")]
FORCE = Annotated[bool, typer.Option("--force", "-f", help="Overwrite the output.")]


def main() -> None:
    """Entry point: every expected failure is one sentence and exit status 1."""
    # NumPy's products here are small: shared out among cores they take half as long again.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for point in wanted_by(sys.argv[1:], entry_points(group="iwcodec.commands")):
        register(point.name, point.load)
    try:
        app()
    except CodecError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("Stopped.", 130)


def wanted_by(words: list[str], points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """The other packages' commands that a command line may need: loading them all takes as long again."""
    asked = next((word for word in words if not word.startswith("-")), None)
    if asked in {info.name or info.callback.__name__ for info in app.registered_commands if info.callback}:
        return []
    return [point for point in points if point.name == asked] or list(points)


def register(name: str, load: Callable[[], Any], into: typer.Typer = app) -> None:
    """Add a sub-command of another package; one whose extras are missing says so when it is called."""
    try:
        command = load()
    except ImportError as error:
        missing = error.name or str(error)
        if missing.partition(".")[0] == __package__.partition(".")[0]:
            raise  # a mistake of ours, not a missing extra

        def command() -> None:
            raise CodecError(f"`iwcodec {name}` needs the Python package {missing}, which is not installed.")

    if isinstance(command, typer.Typer):
        into.add_typer(command, name=name)
    else:
        into.command(name)(command)


def fail(message: str, status: int = 1) -> None:
    console.print(Text("error:", "red"), message, soft_wrap=True)
    sys.exit(status)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Yields tell(name of the pass, share done); silent for --json and where stderr is no terminal."""
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(name: str, share: float) -> None:
            if name not in tasks:
                for task in tasks.values():
                    bar.update(task, completed=1.0)
                tasks[name] = bar.add_task(name, total=1.0)
            bar.update(tasks[name], completed=share)

        yield tell


def show_json(report: Any) -> None:
    print(json.dumps({key: value for key, value in asdict(report).items() if value is not None}, indent=2))


def version(value: bool) -> None:
    if value:
        print(f"iwcodec {__version__}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def parse_sources(value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdigit() or not 1 <= int(value) <= 32:
        raise CodecError(f"--sources takes auto or a number from 1 to 32, not {value!r}.")
    return int(value)


@app.command("encode")
def encode_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Any video that FFmpeg reads.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.iwc")],
    size: Annotated[int, typer.Option(help="Pixels a side of the coded square.")] = 256,
    sources: Annotated[
        str, typer.Option(help="Source pictures: auto, or 1 to 32. More cost more, and look better.")
    ] = "auto",
    bitrate: Annotated[float | None, typer.Option(help="Bound on the video's bitrate in kbps.", min=1.0)] = None,
    quality: Annotated[
        float | None,
        typer.Option(
            help="Mean PSNR in dB, at the least bitrate at which it can be had. Tries several.", min=15, max=50
        ),
    ] = None,
    crop: Annotated[str, typer.Option(help="face follows the speaker; none takes the centre; or X,Y,SIDE.")] = "face",
    effort: Annotated[
        int,
        typer.Option(
            help="0 finds the motion as quickly as a call does; 1 tries several sources for every frame; 2 and 3 also "
            "correct what is rebuilt: about 1.6 and 2.2 times as long, for a little.",
            min=0,
            max=3,
        ),
    ] = 1,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Leave the sound out.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode again and report PSNR beside copying the nearest source.")
    ] = False,
    force: FORCE = False,
    as_json: JSON = False,
) -> None:
    """Encode a talking-head video into a few kilobits a second.

    The speaker's face is found and followed by a square crop; a square video is coded whole.
    """
    from iwcodec.codec.file.clip import EncodeOptions
    from iwcodec.codec.file.encode import encode

    if target.suffix.lower() != ".iwc":
        raise CodecError(f"The output must end in .iwc, not {target.suffix or target.name!r}.")
    options = EncodeOptions(
        size=size,
        sources=parse_sources(sources),
        kbps=bitrate,
        quality_db=quality,
        crop=crop,
        audio=not no_audio,
        effort=effort,
        verify=verify,
        overwrite=force,
    )
    with progress_bar(as_json) as tell:
        report = encode(source, target, options, progress=tell)
    if bitrate is not None and report.kbps["video"] > bitrate * MISSED:
        console.print(f"{bitrate:g} kbps were asked for; it took {report.kbps['video']:.2f}.")
    if as_json:
        show_json(report)
        return
    table = Table(title=f"{source.name} -> {target.name}", title_justify="left", show_header=False)
    spent = report.bytes
    table.add_row(
        "video",
        f"{report.kbps['video']:.2f} kbps  "
        f"({report.frames} frames, {report.duration_s:.1f} s, {report.size}x{report.size})",
    )
    table.add_row("  sources", f"{spent['sources']} bytes in {report.sources} pictures")
    table.add_row("  motion", f"{spent['motion']} bytes ({report.kbps['motion']:.2f} kbps)")
    table.add_row("  container", f"{spent['container']} bytes")
    table.add_row("sound", f"{spent['audio']} bytes" if spent["audio"] else "none")
    if report.psnr_db is not None:
        table.add_row("PSNR", f"{report.psnr_db:.2f} dB (copying the nearest source: {report.copy_psnr_db:.2f} dB)")
    table.add_row("took", f"{report.seconds:.1f} s ({report.frames / report.seconds:.1f} frames/s)")
    console.print(table)


@app.command("decode")
def decode_command(
    source: Annotated[Path, typer.Argument(metavar="IN.iwc")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help=".mp4 (H.264, near-transparent), .mkv (lossless) or .y4m.")
    ],
    force: FORCE = False,
    as_json: JSON = False,
) -> None:
    """Decode an .iwc file; the suffix of OUT decides how it is stored."""
    from iwcodec.codec.file.decode import decode

    with progress_bar(as_json) as tell:
        report = decode(source, target, force, progress=tell)
    if as_json:
        show_json(report)
        return
    for line in report.damage:
        console.print(Text("damaged:", "yellow"), line)
    if report.truncated:
        told = f"{source.name} ends early; {report.duration_s:.1f} s were there."
        console.print(Text("truncated:", "yellow"), told)
    console.print(
        f"{target.name}: {report.frames} frames, {report.duration_s:.1f} s, {report.size}x{report.size}, "
        f"{'with' if report.audio else 'no'} sound, {report.frames / report.seconds:.1f} frames/s"
    )


@app.command("info")
def info_command(source: Annotated[Path, typer.Argument(metavar="IN.iwc")], as_json: JSON = False) -> None:
    """Say what an .iwc file holds, without decoding it."""
    from iwcodec.codec.bitstream.info import inspect

    report = inspect(source)
    if as_json:
        show_json(report)
        return
    table = Table(title=source.name, title_justify="left", show_header=False)
    for key, value in asdict(report).items():
        table.add_row(key, json.dumps(value) if isinstance(value, dict | list) else str(value))
    console.print(table)


@app.command("play")
def play_command(source: Annotated[Path, typer.Argument(metavar="IN.iwc")], as_json: JSON = False) -> None:
    """Play an .iwc file in a window. Space pauses, left and right seek 5 s, q or Esc quits."""
    from iwcodec.codec.player import play

    report = play(source)
    if as_json:
        show_json(report)
    elif report.late:
        console.print(f"{report.late} of {report.late + report.shown} frames came too late to be shown.")


@app.command("doctor")
def doctor_command(as_json: JSON = False) -> None:
    """Report device, runtime, measured speed, versions, and the command that mends what is missing."""
    from iwcodec.codec.doctor import examine

    report = examine()
    if as_json:
        show_json(report)
        return
    table = Table(title="iwcodec doctor", title_justify="left", show_header=False)
    for name, value in {**report.machine, **report.versions, **report.speed}.items():
        table.add_row(name, str(value))
    console.print(table)
    for line in report.missing:
        console.print(Text("missing:", "yellow"), line)


@app.command("train")
def train_command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A TOML file, or a shipped one: lite, lite512, paper.")
    ],
    data: Annotated[Path, typer.Option(help="Folder of clips; TalkingHead-1KH, VoxCeleb2 and TED-talk layouts work.")],
    out: Annotated[Path, typer.Option(help="Run folder: checkpoint, log, pictures. The same folder again resumes.")],
    cache: Annotated[Path | None, typer.Option(help="Decoded clips and flows; by default OUT/cache.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda. With torchrun, one process a device.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="Processes that load data.", min=0)] = 1,
    as_json: JSON = False,
) -> None:
    """Train the network on a folder of clips. Ctrl-C saves; the same command goes on where it stopped."""
    try:
        import torch

        from iwcodec.models.training import train
    except ImportError as error:
        raise CodecError(f"Training needs {error.name}: {install('train')}.") from error
    torch.set_num_threads(threads)
    shipped = Path(train.__file__).parents[1] / "configs" / f"{config}.toml"
    try:
        settings = train.load_config(shipped if shipped.exists() and not config.exists() else config)
        report = train.train(settings, data, cache or out / "cache", out, device, workers)
    except (ValueError, OSError, ImportError) as error:
        raise CodecError(str(error)) from error
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first speaks
        show_trained(report, as_json)


def show_trained(report: Any, as_json: bool) -> None:
    if as_json:
        show_json(report)
        return
    done = "trained" if report.finished else f"stopped in stage {report.stage}; the same command goes on"
    console.print(f"{report.checkpoint}: {done}, {report.steps} steps in {report.seconds:.0f} s")


@app.command("export")
def export_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="checkpoint.pt of a run folder.")],
    model: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model, for example lite-256.")],
    folder: Annotated[Path, typer.Option(help="Where the weights and graphs go.")] = Path("weights"),
    size: Annotated[int | None, typer.Option(help="Pixels a side of the pictures it will make.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Model in the same folder that this one only adds up blocks to.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write safetensors and ONNX graphs of a trained network, and check that torch and ONNX agree.

    With --base only the up blocks are written; the base's files serve for the rest.
    """
    try:
        from iwcodec.models.training import export
    except ImportError as error:
        raise CodecError(f"Exporting needs {error.name}: {install('train')}.") from error
    try:
        report = export.export(export.load_checkpoint(checkpoint, size), model, folder, base)
    except (ValueError, OSError, KeyError) as error:
        raise CodecError(f"{checkpoint.name} cannot be exported: {error}") from error
    if as_json:
        show_json(report)
        return
    parts = ", ".join(f"{name} {value:.1e}" for name, value in report.differences.items())
    console.print(f"{model} written to {folder}; largest differences of torch and ONNX: {parts}")
