"""The `iwcodec` command line."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from iwcodec import __version__
from iwcodec.codec.cli.batch import jobs, run_jobs, shown_name
from iwcodec.codec.cli.model_commands import export, train
from iwcodec.codec.cli.terminal import FORCE, JSON, QUIET, answers, console, fail, progress_bar, show_json, warn
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.spool import is_stream, local_input, local_output


class Stopped(BaseException):
    """Ctrl-C, on its way past Typer, which would print "Aborted!"."""


class Commands(TyperGroup):
    """The sub-commands."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped from error


app = typer.Typer(
    name="iwcodec",
    cls=Commands,
    help="A talking-head video codec: it sends a few source pictures, then the motion of 20 keypoints per frame.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
BITRATE_TOLERANCE = 1.1
"""Factor by which the video may exceed --bitrate before that is reported."""


def main() -> None:
    """Entry point. A CodecError, or one of the system, becomes one line on stderr and exit status 1."""
    # Matrix products here are small: with several threads they take 50 % longer.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names of files may be no text
    for point in matching_commands(sys.argv[1:], entry_points(group="iwcodec.commands")):
        register(point.name, point.load)
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except CodecError as error:
        fail(str(error))
    except OSError as error:
        with suppress(OSError, ValueError):  # or Python would write what is left once more, in vain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror or error}.")
    except (KeyboardInterrupt, Stopped):
        fail("Stopped.", 130)


def matching_commands(arguments: list[str], points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """Return the entry points that a command line may need: the command it names, or all if it names none that is
    known. Loading all of them would double the start-up time."""
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command in {info.name or info.callback.__name__ for info in app.registered_commands if info.callback}:
        return []
    return [point for point in points if point.name == command] or list(points)


def register(name: str, load: Callable[[], Any], into: typer.Typer = app) -> None:
    """Add a sub-command. If `load` fails for a missing package, the command reports that when it is called."""
    try:
        command = load()
    except ImportError as error:
        missing = error.name or str(error)
        if missing.partition(".")[0] == __package__.partition(".")[0]:
            raise  # a bug of this package, not a missing extra

        def command() -> None:
            raise CodecError(f"`iwcodec {name}` needs the Python package {missing}, which is not installed.")

    if isinstance(command, typer.Typer):
        into.add_typer(command, name=name)
    else:
        into.command(name)(command)


def show_version(show: bool) -> None:
    """Print the version and exit, if `show`."""
    if show:
        print(f"iwcodec {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the `iwcodec` command itself."""


class Tune(StrEnum):
    """What the encoder spends bits on."""

    psnr = "psnr"
    face = "face"


def parse_sources(value: str) -> int | None:
    """Parse --sources; None for auto. Raises CodecError."""
    if value == "auto":
        return None
    from iwcodec.codec.file.options import MAX_SOURCES

    if not value.isdecimal() or len(value) > 9 or not 1 <= int(value) <= MAX_SOURCES:
        raise CodecError(f"--sources takes auto or a number from 1 to {MAX_SOURCES}, not {value!r}.")
    return int(value)


@app.command("encode")
def encode_command(
    sources_: Annotated[
        list[str],
        typer.Argument(
            metavar="IN...",
            help="A video in any format that FFmpeg reads: a file, a pipe, an http or https URL, or - for standard "
            "input. Several inputs need a folder to write to.",
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="OUT", help="The .iwc file to write, a folder, a pipe, or - for standard output."),
    ],
    size: Annotated[int, typer.Option(help="Width and height of the coded square in pixels: 256 or 512.")] = 256,
    sources: Annotated[
        str,
        typer.Option(
            help="Number of source pictures: auto, or 1 to 32. More look better and cost more bits; without --bitrate, "
            "a number sets no bound on the bitrate."
        ),
    ] = "auto",
    bitrate: Annotated[
        float | None,
        typer.Option(
            help="Upper bound on the bitrate of the video, without sound, in kbps. Default: as few as a good picture "
            "takes, at most 4 at 256 x 256 and 8 at 512 x 512.",
            min=1.0,
        ),
    ] = None,
    quality: Annotated[
        float | None,
        typer.Option(
            help="Mean PSNR in dB to reach at a low bitrate. The PSNR of the result is measured; up to three bitrates "
            "are tried.",
            min=15,
            max=50,
        ),
    ] = None,
    tune: Annotated[
        Tune,
        typer.Option(
            help="face spends part of the bits on variants of a source picture with other eyes and mouths: blinks and "
            "glances and speech come nearer to the speaker's, and no source is blurred, for about 0.8 dB of the whole "
            "picture. psnr spends all on the whole picture."
        ),
    ] = Tune.face,
    crop: Annotated[
        str,
        typer.Option(help="face follows the speaker; none takes the centre square; X,Y,SIDE is a square in pixels."),
    ] = "face",
    face: Annotated[
        str,
        typer.Option(
            metavar="largest|N|X,Y",
            help="Whose face to follow where there are several: the largest, the Nth from the left, or the one "
            "nearest to a point in pixels.",
        ),
    ] = "largest",
    start: Annotated[float, typer.Option(help="Seconds of the input to leave out at the beginning.", min=0.0)] = 0.0,
    duration: Annotated[float | None, typer.Option(help="Seconds of the input to code. Default: to its end.")] = None,
    video_track: Annotated[
        int | None, typer.Option(help="Number of the video track, from 1. Default: the best one.", min=1)
    ] = None,
    audio_track: Annotated[
        int | None, typer.Option(help="Number of the audio track, from 1. Default: the best one.", min=1)
    ] = None,
    effort: Annotated[
        int,
        typer.Option(
            help="0: a single pass, in half the clip's length on two cores, for 0.5 dB. 1: about its length. "
            "2: 1.3 times, trying several sources for each frame. 3: also correct the rebuilt frames, in 5 times, for "
            "0.1 dB.",
            min=0,
            max=3,
        ),
    ] = 2,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Leave out the sound.")] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Decode the result and report its PSNR, that of its worst second, and that of copying the nearest "
            "source. The first two are noted in the file, for `iwcodec info`.",
        ),
    ] = False,
    force: FORCE = False,
    quiet: QUIET = False,
    as_json: JSON = False,
) -> None:
    """Encode a talking-head video at a few kilobits per second.

    Detects the speaker's face and follows it with a square crop; a square video is coded whole. Shots without a face
    show the centre square. Takes about 1.3 times as long as the video plays on two cores (--effort 0: half as long).
    Ctrl-C writes nothing; the same command starts anew.
    """
    from iwcodec.codec.file.encode import encode
    from iwcodec.codec.file.options import EncodeOptions

    pairs = jobs(sources_, target, ".iwc")
    if len(pairs) == 1 and not is_stream(pairs[0][1]) and Path(pairs[0][1]).suffix.lower() != ".iwc":
        raise CodecError(f"The output must end in .iwc, not {Path(target).suffix or Path(target).name!r}.")
    options = EncodeOptions(
        size=size,
        sources=parse_sources(sources),
        kbps=bitrate,
        quality_db=quality,
        tune=tune.value,
        crop=crop,
        audio=not no_audio,
        effort=effort,
        verify=verify,
        overwrite=force,
        start_s=start,
        duration_s=duration,
        video_track=video_track,
        audio_track=audio_track,
        face=face,
    )

    def work(source: str, target: str) -> Any:
        with progress_bar(quiet or as_json) as progress, local_output(target, ".iwc") as path:
            report = encode(source, path, options, progress=progress)
        for line in report.warnings:
            warn(line)
        if bitrate is not None and report.kbps["video"] > bitrate * BITRATE_TOLERANCE:
            warn(f"The video takes {report.kbps['video']:.2f} kbps instead of the {bitrate:g} kbps asked for.")
        if not quiet and not as_json:
            console.print(encode_table(report, f"{shown_name(source)} -> {shown_name(target)}"))
        return report

    run_jobs(pairs, work, as_json)


def encode_table(report: Any, title: str) -> Table:
    """The result of an encoding."""
    table = Table(title=title, title_justify="left", show_header=False)
    sizes = report.bytes
    table.add_row(
        "video",
        f"{report.kbps['video']:.2f} kbps  "
        f"({report.frames} frames, {report.duration_s:.1f} s, {report.size}x{report.size})",
    )
    variants = f", and {report.variants} of other eyes and mouths" if report.variants else ""
    table.add_row("  sources", f"{sizes['sources']} bytes in {report.sources} pictures{variants}")
    table.add_row("  motion", f"{sizes['motion']} bytes ({report.kbps['motion']:.2f} kbps)")
    table.add_row("  container", f"{sizes['container']} bytes")
    table.add_row("sound", f"{sizes['audio']} bytes" if sizes["audio"] else "none")
    if report.psnr_db is not None:
        table.add_row("PSNR", f"{report.psnr_db:.2f} dB (copying the nearest source: {report.copy_psnr_db:.2f} dB)")
        table.add_row("worst second", f"{report.worst_psnr_db:.2f} dB, from {report.worst_at_s:.1f} s on")
    table.add_row("took", f"{report.seconds:.1f} s ({report.frames / report.seconds:.1f} frames/s)")
    return table


class Format(StrEnum):
    """What `decode` writes where no file name says it."""

    mp4 = "mp4"
    mov = "mov"
    webm = "webm"
    mkv = "mkv"
    y4m = "y4m"


@app.command("decode")
def decode_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="IN.iwc...",
            help="The file to decode, a URL, or - for standard input. Several inputs need a folder to write to.",
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="Its suffix selects the format: .mp4 or .mov (H.264, near-lossless), .webm (VP9), .mkv (lossless) or "
            ".y4m. Or a folder, a pipe, or - for standard output.",
        ),
    ],
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Format in a folder (default mp4), or in a pipe without a suffix and on stdout (default mkv).",
        ),
    ] = None,
    force: FORCE = False,
    quiet: QUIET = False,
    as_json: JSON = False,
) -> None:
    """Decode an .iwc file to a video that other programs play."""
    from iwcodec.codec.file.decode import decode

    pairs = jobs(sources, target, f".{(form or Format.mp4).value}")

    def work(source: str, target: str) -> Any:
        named = Path(target).suffix.lower().removeprefix(".")
        piped = form or (named if named in list(Format) else Format.mkv)
        with progress_bar(quiet or as_json) as progress, local_output(target, f".{piped}") as path:
            report = decode(source, path, force, progress=progress)
        if as_json:
            return report
        for line in report.damage:
            warn(line, "damaged")
        if report.truncated:
            warn(f"{shown_name(source)} ends early; its first {report.duration_s:.1f} s were decoded.", "truncated")
        if not quiet:
            console.print(
                f"{shown_name(target)}: {report.frames} frames, {report.duration_s:.1f} s, "
                f"{report.size}x{report.size}, {'with' if report.audio else 'no'} sound, "
                f"{report.frames / report.seconds:.1f} frames/s"
            )
        return report

    run_jobs(pairs, work, as_json)


@app.command("info")
def info_command(
    source: Annotated[
        str, typer.Argument(metavar="IN.iwc", help="The file to describe, a URL, or - for standard input.")
    ],
    as_json: JSON = False,
) -> None:
    """Describe an .iwc file without decoding it: model, frames, sources, bytes and bitrates."""
    from iwcodec.codec.bitstream.info import inspect

    with local_input(source) as path:
        report = inspect(path)
    if as_json:
        show_json(report)
        return
    table = Table(title=shown_name(source), title_justify="left", show_header=False)
    for key, value in {**asdict(report), "quality": quality_text(report.quality)}.items():
        table.add_row(key, json.dumps(value) if isinstance(value, dict | list) else str(value))
    answers.print(table)


def quality_text(quality: dict[str, float] | None) -> str:
    """What `info` says of the quality of a file."""
    if quality is None:
        return "not measured (encode with --verify)"
    worst = f"{quality['worst_psnr_db']:.2f} dB from {quality['worst_at_s']:.1f} s on"
    return f"{quality['psnr_db']:.2f} dB PSNR, in the worst second {worst}"


@app.command("play")
def play_command(
    source: Annotated[str, typer.Argument(metavar="IN.iwc", help="The file to play, a URL, or - for standard input.")],
    as_json: JSON = False,
) -> None:
    """Play an .iwc file in a window. Space pauses, left and right seek 5 s, q or Esc quits."""
    from iwcodec.codec.cli.player import play

    with local_input(source) as path:
        report = play(path)
    if as_json:
        show_json(report)
    elif report.late:
        console.print(f"{report.late} of {report.late + report.shown} frames were decoded too late to be shown.")


@app.command("doctor")
def doctor_command(as_json: JSON = False) -> None:
    """Report this machine, measured speed and versions, and the commands that install what is missing or optional."""
    from iwcodec.codec.cli.doctor import examine

    report = examine()
    if as_json:
        show_json(report)
        return
    table = Table(title="iwcodec doctor", title_justify="left", show_header=False)
    for name, value in {**report.machine, **report.versions, **report.speed}.items():
        table.add_row(name, str(value))
    answers.print(table)
    for line in report.missing:
        answers.print(Text("missing:", "yellow"), line, soft_wrap=True)
    for line in report.optional:
        answers.print("not installed, optional:", line, soft_wrap=True)


for command in (train, export):
    app.command()(command)
