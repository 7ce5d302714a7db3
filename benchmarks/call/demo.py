"""`iwcodec demo-call`: hold a measured call on this machine, and show what it keeps of expressions beside SVT-AV1."""

import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from iwcodec.benchmarks.expression_sheet import av1_versions, expressive_moments, write_sheet
from iwcodec.client.commands import extras
from iwcodec.codec.media.types import Picture
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.terminal import JSON, console

if TYPE_CHECKING:
    from iwcodec.client.demo.measurement import Side


def command(
    out: Annotated[Path, typer.Option(help="Folder to write to; created if missing.")] = Path("demo-call"),
    clip: Annotated[
        Path | None, typer.Option(help="Video file that both clients send.", show_default="the bundled clip")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Duration of the call in seconds.", min=3, max=120)] = 12.0,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Call without sound.")] = False,
    as_json: JSON = False,
) -> None:
    """Try a call without camera, microphone or other people: a server and two clients on this machine.

    Prints delays and bit rates, and writes to the output folder: side_by_side.mp4 shows each camera beside
    what the other side saw at the same moment, so that the delay is visible; contact_sheet.png shows six
    such moments; expressions.jpg shows the strongest blinks, glances and vowels without the delay, beside SVT-AV1 at
    the same and at three times the rate; statistics.json has all measurements.
    """
    with extras():
        from iwcodec.client.demo.call import run_demo
        from iwcodec.client.demo.measurement import results_table
    statistics, sides = run_demo(out, clip, seconds, not no_audio, as_json)
    write_expressions(out / "expressions.jpg", *sides)
    if as_json:
        print(json.dumps(statistics, indent=2))
        return
    console.print(results_table(statistics))
    written = ", ".join(str(out / name) for name in ("side_by_side.mp4", "contact_sheet.png", "expressions.jpg"))
    console.print(f"Pictures: {written}", soft_wrap=True)


def write_expressions(path: Path, sender: "Side", receiver: "Side") -> None:
    """Write the sheet of what one side's camera saw and the other side was shown of it."""
    frames = [frame for frame in sender.sent if frame.captured_s >= sender.began_s]
    originals, times = [frame.picture for frame in frames], [frame.captured_s for frame in frames]
    shown = as_seen(times, receiver)
    fps = Fraction(max(1.0, (len(times) - 1) / max(1e-3, times[-1] - times[0]))).limit_denominator(1001)
    kbps = receiver.statistics()["picture_received_kbps"].get("total", 0.0)
    rivals = av1_versions(originals, fps, max(1.0, kbps))
    versions = [originals, shown, *(list(rival.pictures()) for rival in rivals)]
    labels = ["camera", f"call, {kbps:.1f} kbps", *(f"SVT-AV1, {rival.kbps:.1f} kbps" for rival in rivals)]
    moments = expressive_moments(originals, fps, load_runtime_for(len(originals[0]), threads=1))
    rows = [(moment.expression, [pictures[moment.frame] for pictures in versions]) for moment in moments]
    write_sheet(path, rows, labels)


def as_seen(times: list[float], receiver: "Side") -> list[Picture]:
    """Return for each time of capture the picture that the other side was shown of it."""
    captured = np.array([at_s - frame.delay_s for at_s, frame in receiver.seen])
    return [receiver.seen[int(np.abs(captured - at_s).argmin())][1].picture for at_s in times]
