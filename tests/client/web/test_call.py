"""The page of a call, in a real browser, on the real server: `iwcodec call` shows and hears it, and it shows and hears
`iwcodec call`."""

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.crop.square import Crop, crop_resize
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.models.runtime.load import load_runtime
from support.web.client import BROWSER, WEB, needs_browser, needs_build, needs_modules, web_server
from support.web.firefox import firefox, needs_firefox

pytestmark = [pytest.mark.realtime, pytest.mark.patient, needs_modules, needs_browser, needs_build]

MAX_SHIFT = 0.05
"""Largest cumulative layout shift while a call begins and somebody joins; 0.1 counts as good for a page."""
MIN_PSNR_DB = 25.0
"""Least PSNR of the browser's picture at the peer against the camera's nearest frame; 28 dB and more are usual."""


def joined(server: str, room: str = "talk", **options: Any) -> dict[str, Any]:
    """What call.mjs reports of a room."""
    request = json.dumps({"url": f"{server}/play/call.html#room={room}", "browser": BROWSER, **options})
    done = subprocess.run(["node", "tests/browser/call.mjs"], cwd=WEB, input=request, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@contextmanager
def python_client(server: str, *options: str, said: Path = Path(os.devnull)) -> Iterator[None]:
    """Run `iwcodec call` as Ada, which writes what it says to `said`; it leaves properly."""
    command = [sys.executable, "-m", "iwcodec", "call", f"{server}/r/talk", "--headless", "--name", "Ada", *options]
    with said.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as ada:
        try:
            yield
        finally:
            ada.send_signal(signal.SIGINT)


def write_camera(path: Path, pictures: list[Picture]) -> None:
    """Write pictures as the Y4M file that Chromium's fake camera repeats."""
    height, width = pictures[0].shape[:2]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip C420\n".encode())
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            file.write(b"FRAME\n" + frame.to_ndarray().tobytes())


def test_a_browser_is_seen_and_heard_and_sees_and_hears(face_clip: Path, tmp_path: Path) -> None:
    frames = itertools.islice(read_video(sample_clip()), 40)
    pictures = [crop_resize(frame.picture, Crop(140, 0, 360), 256) for frame in frames]
    write_camera(tmp_path / "camera.y4m", pictures)
    with (
        web_server() as server,
        python_client(
            server, "--video", str(face_clip), "--record", str(tmp_path / "eve.iwc"), said=tmp_path / "ada.txt"
        ),
    ):
        report = joined(server, camera=str(tmp_path / "camera.y4m"), frames=3, coded=12, seconds=2, timeoutMs=150_000)
    assert report["problems"] == []
    assert report["error"] == ""
    assert report["people"][0].startswith("You")
    assert report["people"][1].startswith("Ada")
    assert np.frombuffer(base64.b64decode(report["picture"]), np.uint8).std() > 20
    assert report["heard"]["totalAudioEnergy"] > 0
    assert f"Eve must see these words, too: {report['words'][1]}\n" in (tmp_path / "ada.txt").read_text()
    assert len(report["words"][1].split()) == 3
    assert report["shift"] < MAX_SHIFT
    assert report["focused"] == ["summary", "mute", "camera-off", "numbers", "copy", "leave"]
    assert (report["own"], report["mute"]) == ("camera off, muted", "Unmute")  # after keys m and v
    with IwcFile(tmp_path / "eve.iwc", load_runtime(threads=1)) as file:
        seen = [frame.picture for frame in itertools.islice(file.frames(), 0, 30, 6)]
        heard = max(np.abs(samples.astype(int)).max() for samples in file.samples())
    assert min(max(psnr(picture, shown) for picture in pictures) for shown in seen) > MIN_PSNR_DB
    assert heard > 1000  # the fake microphone beeps


def test_a_browser_that_cannot_send_watches_and_says_why(face_clip: Path) -> None:
    with web_server() as server, python_client(server, "--video", str(face_clip)):
        report = joined(server, frames=3, init="delete window.VideoEncoder", portrait=True, timeoutMs=150_000)
    assert report["problems"] == []
    assert "This browser cannot encode AV1" in report["cannot"]
    assert "You can watch and listen" in report["cannot"]
    assert report["people"][0].startswith("Ada")
    assert not report["isTooWide"]
    assert report["focused"] == ["numbers", "copy", "leave"]
    assert np.frombuffer(base64.b64decode(report["picture"]), np.uint8).std() > 20
    assert report["heard"]["totalAudioEnergy"] > 0


def test_an_address_without_a_room_says_so() -> None:
    with web_server() as server:
        assert "names no room" in joined(server, room="")["error"]


@needs_firefox
def test_firefox_without_devices_watches_and_listens(face_clip: Path) -> None:
    with web_server() as server, python_client(server, "--video", str(face_clip)), firefox() as page:
        page.open(f"{server}/play/call.html#room=talk")
        page.wait("document.querySelector('#cannot').textContent !== ''", 60)
        assert "You can watch and listen" in page.evaluate("document.querySelector('#cannot').textContent")
        page.evaluate("document.querySelector('#join').click()")
        page.wait("window.iwcodec.shown()[0] >= 3", 120)
        assert page.evaluate("document.querySelector('#people strong').textContent") == "Ada"
        assert page.evaluate("document.querySelector('#error').textContent") == ""
        assert page.evaluate("window.iwcodec.heard()")["totalAudioEnergy"] > 0
