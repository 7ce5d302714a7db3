"""`iwcodec call` and `iwcodec devices`: options and output, with imports deferred to their use."""

import asyncio
import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.terminal import FORCE, JSON, console


@contextmanager
def extras() -> Iterator[None]:
    """Turn a missing package into a CodecError with the command that installs what calls need."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CodecError(f"Calls need the Python package {error.name}: {install('call')}.") from error


def call(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the room: https://HOST/r/ROOM.")],
    camera: Annotated[
        str | None, typer.Option(help="Camera to use: its number, or part of its name (see `iwcodec devices`).")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Send this video file, in a loop, instead of camera and microphone.")
    ] = None,
    no_video: Annotated[
        bool,
        typer.Option(
            "--no-video", help="Send no picture: watch and talk. No camera is opened; of a file, the sound is sent."
        ),
    ] = False,
    mic: Annotated[
        str | None, typer.Option(help="Microphone to use: its number, or part of its name (see `iwcodec devices`).")
    ] = None,
    speaker: Annotated[
        str | None, typer.Option(help="Loudspeaker to use: its number, or part of its name (see `iwcodec devices`).")
    ] = None,
    raw_mic: Annotated[
        bool,
        typer.Option("--raw-mic", help="Send the microphone without echo cancellation and noise suppression: music."),
    ] = False,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Neither send nor play sound.")] = False,
    max_kbps: Annotated[
        float | None,
        typer.Option(help="Send at most this much, to all together; sound takes 15 of it for each participant.", min=2),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.iwc",
            help="Record everybody: the first to be seen in this file, others in OUT-NAME.iwc.",
        ),
    ] = None,
    virtual_camera: Annotated[
        bool,
        typer.Option(
            "--virtual-camera",
            help="Offer the first participant whose picture arrives as a camera to other programs.",
        ),
    ] = False,
    headless: Annotated[
        bool, typer.Option("--headless", help="Run without window and loudspeaker; leave with Ctrl-C.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Your name, as the others see it.", show_default="your user name")
    ] = None,
    size: Annotated[
        int, typer.Option(help="Width and height of the picture in pixels; must be the same for everyone in the room.")
    ] = 256,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the invitation's token, which in the URL other users of this machine can see; or set "
            "IWCODEC_TOKEN."
        ),
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option(
            "--ca", metavar="FILE", help="PEM file that signed the server's certificate, if no authority did."
        ),
    ] = None,
    force: FORCE = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --headless: print statistics as a line of JSON every 5 seconds.")
    ] = False,
) -> None:
    """Join a video call in a room of an `iwcodec serve` server.

    Picture and sound travel directly between the participants, at a few kilobits per second each. The server only
    introduces them, and names STUN and TURN servers for those behind firewalls. Failed connections are retried with
    the next of these servers.

    Three words stand beside each name. If the other person reads out the same ones, nobody sits between the two of you,
    not even the server.

    Keys in the window: m mutes, v switches the camera off, i shows bit rates and delays, q leaves; c, a and s change to
    the next camera, microphone and loudspeaker. The host of a room by invitation locks and unlocks it with l, and
    removes somebody with k and a number.
    """
    if as_json and not headless:
        raise CodecError("--json needs --headless. In the window, press i to see the statistics.")
    with extras():
        from iwcodec.client.session import CallOptions, run_call
    if record is not None:
        from iwcodec.codec.media.writer import check_target

        if record.suffix.lower() != ".iwc":
            raise CodecError(f"The recording must end in .iwc, not {record.suffix or record.name!r}.")
        check_target(record, force)
    options = CallOptions(
        url,
        name or user_name(),
        camera,
        video,
        mic,
        not no_audio,
        record,
        virtual_camera,
        headless,
        size,
        as_json,
        read_token(token_file),
        authority,
        speaker,
        raw_mic,
        max_kbps,
        no_video,
    )
    asyncio.run(run_call(options))


def read_token(file: Path | None) -> str | None:
    """The invitation's token from the file, or from the environment. Raises CodecError if the file has none."""
    if file is None:
        return os.environ.get("IWCODEC_TOKEN") or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise CodecError(f"The token in {file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not token:
        raise CodecError(f"{file} holds no token.")
    return token


def user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "guest"


def devices(as_json: JSON = False) -> None:
    """List the cameras, microphones and loudspeakers of this machine.

    Select one with `iwcodec call --camera`, `--mic` or `--speaker`, by its number or by part of its name.
    """
    with extras():
        from iwcodec.client.audio.capture import list_microphones
        from iwcodec.client.audio.speaker import list_speakers
        from iwcodec.client.video import capture
    cameras, problem = capture.list_cameras(), None
    try:
        microphones, speakers = list_microphones(), list_speakers()
    except CodecError as error:
        microphones, speakers, problem = [], [], str(error)
    if as_json:
        listed = {"cameras": cameras, "microphones": microphones, "loudspeakers": speakers}
        print(json.dumps({kind: [asdict(device) for device in some] for kind, some in listed.items()}, indent=2))
        return
    for kind, some in (("camera", cameras), ("microphone", microphones), ("loudspeaker", speakers)):
        for device in some:
            console.print(f"{kind} {device.number}: {device.name}")
        if not some and (kind == "camera" or not problem):
            console.print(f"No {kind} was found.")
    if problem:
        console.print(problem, soft_wrap=True)
