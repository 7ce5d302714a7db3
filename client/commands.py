"""`iwcodec call`, `iwcodec devices` and `iwcodec demo-call`: their options. What they need is loaded when they run."""

import asyncio
import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from iwcodec.codec.cli import FORCE, JSON, console
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install


@contextmanager
def extras() -> Iterator[None]:
    """Raises CodecError, with the command that mends it, where the packages that calls need are not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CodecError(f"Calls need the Python package {error.name}: {install('call')}.") from error


def call(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of a room: https://HOST/r/ROOM.")],
    camera: Annotated[
        str | None, typer.Option(help="Number or part of the name; `iwcodec devices` lists them.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A video file, looped, in place of camera and microphone.")] = None,
    mic: Annotated[str | None, typer.Option(help="Number or part of the name of the microphone.")] = None,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="No sound, either way.")] = False,
    record: Annotated[Path | None, typer.Option(metavar="OUT.iwc", help="Record who is seen first.")] = None,
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Show who is seen first to other programs, as a camera.")
    ] = False,
    headless: Annotated[bool, typer.Option("--headless", help="No window, no loudspeaker; Ctrl-C leaves.")] = False,
    name: Annotated[str | None, typer.Option(help="How the others see you; by default your user name.")] = None,
    size: Annotated[int, typer.Option(help="Pixels a side of the picture; the same for all in the room.")] = 256,
    force: FORCE = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Without a window: a JSON object on stdout every 5 seconds, for machines.")
    ] = False,
) -> None:
    """Join a call. Picture and sound go directly between the people in the room, a few kilobits a second each.

    Of the STUN and TURN servers that the room names, each attempt to connect uses one of either kind, the next attempt
    the next one.

    In the window: m mutes, v turns the camera off, i shows rates and delays, q leaves.
    """
    if as_json and not headless:
        raise CodecError("--json goes with --headless: a window shows the figures itself (i).")
    with extras():
        from iwcodec.client.session import CallOptions, take_part
    if record is not None:
        from iwcodec.codec.media.writer import check_target

        if record.suffix.lower() != ".iwc":
            raise CodecError(f"The recording must end in .iwc, not {record.suffix or record.name!r}.")
        check_target(record, force)
    options = CallOptions(
        url, name or user_name(), camera, video, mic, not no_audio, record, virtual_camera, headless, size, as_json
    )
    asyncio.run(take_part(options))


def user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "guest"


def devices(as_json: JSON = False) -> None:
    """List cameras and microphones, as `iwcodec call` takes them."""
    with extras():
        from iwcodec.client.video import capture
    cameras, told = capture.list_cameras(), None
    try:
        microphones = capture.list_microphones()
    except CodecError as error:
        microphones, told = [], str(error)
    if as_json:
        found = {"cameras": cameras, "microphones": microphones}
        print(json.dumps({kind: [asdict(device) for device in some] for kind, some in found.items()}, indent=2))
        return
    for kind, some in (("camera", cameras), ("microphone", microphones)):
        for device in some:
            console.print(f"{kind} {device.number}: {device.name}")
        if not some:
            console.print(told if told and kind == "microphone" else f"No {kind} was found.")


def demo_call(
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("demo-call"),
    clip: Annotated[Path | None, typer.Option(help="Another clip than the bundled one.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of the call.", min=3, max=120)] = 12.0,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="No sound.")] = False,
    as_json: JSON = False,
) -> None:
    """A call between two clients through a server, all on this machine; writes what each side saw.

    OUT gets side_by_side.mp4 (each camera, and what the other side saw at the same moment, so that the delay shows),
    contact_sheet.png and statistics.json.
    """
    with extras():
        from iwcodec.client import demo
    statistics = demo.run(out, clip, seconds, not no_audio, as_json)
    if as_json:
        print(json.dumps(statistics, indent=2))
        return
    console.print(demo.table(statistics))
    console.print(f"Pictures: {out / 'side_by_side.mp4'}, {out / 'contact_sheet.png'}", soft_wrap=True)
