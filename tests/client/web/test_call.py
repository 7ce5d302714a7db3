"""The page that watches a call, in a real browser, on the real server: it shows and hears `iwcodec call`."""

import base64
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for needed in ("aiortc", "fastapi"):
    pytest.importorskip(needed)
from web_client import BROWSER, WEB, needs_browser, needs_build, needs_modules, web_server

pytestmark = [pytest.mark.realtime, pytest.mark.patient, needs_modules, needs_browser, needs_build]


def watched(server: str, room: str = "talk", **options: Any) -> dict[str, Any]:
    """What watch.mjs reports of a room."""
    request = json.dumps({"url": f"{server}/play/watch.html#room={room}", "browser": BROWSER, **options})
    done = subprocess.run(["node", "tests/watch.mjs"], cwd=WEB, input=request, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_call_is_seen_and_heard(face_clip: Path) -> None:
    with web_server() as server:
        command = [sys.executable, "-m", "iwcodec", "call", f"{server}/r/talk", "--video", str(face_clip)]
        with subprocess.Popen([*command, "--headless", "--name", "Ada"], stdout=subprocess.DEVNULL) as ada:
            try:
                report = watched(server, frames=3, timeoutMs=150_000)
            finally:
                ada.send_signal(signal.SIGINT)
    assert report["problems"] == []
    assert report["error"] == ""
    assert report["shown"][0] >= 3
    assert report["people"][0].startswith("Ada")
    picture = np.frombuffer(base64.b64decode(report["picture"]), np.uint8)
    assert picture.std() > 20
    assert report["heard"]["totalAudioEnergy"] > 0


def test_an_address_without_a_room_says_so() -> None:
    with web_server() as server:
        assert "names no room" in watched(server, room="", frames=1)["error"]
