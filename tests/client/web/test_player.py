"""The player in a real browser, on the real server: it shows the pictures of the Python decoder."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import AudioPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.audio.opus_track import OpusWriter
from iwcodec.codec.media.types import AUDIO_RATE
from support.media.clips import tone
from support.web.client import BROWSER, WEB, needs_browser, needs_build, needs_modules, web_server

pytestmark = [pytest.mark.realtime, needs_modules, needs_browser, needs_build]

SAMPLE = WEB / "public" / "sample.iwc"
FRAMES = (0, 70, 199, 30)
"""One of each: the first, one that shows parts, the last, and one that is sought backwards."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with web_server() as address:
        yield address


def played(server: str, **options: Any) -> dict[str, Any]:
    """What player.mjs reports."""
    request = json.dumps({"url": f"{server}/play", "browser": BROWSER, **options})
    done = subprocess.run(["node", "tests/browser/player.mjs"], cwd=WEB, input=request, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_sample_shows_the_pictures_of_the_python_decoder(server: str, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.iwc"
    wrong.write_text("This is a text, not a talking head.")
    report = played(server, frames=FRAMES, wrong=str(wrong))
    assert report["problems"] == []
    assert report["error"] == ""
    assert report["wrong"] == "notes.iwc: This is not an .iwc file."
    with IwcFile(SAMPLE) as file:
        frames = {number: next(file.frames(number)).picture for number in FRAMES}
    for number, shown in zip(FRAMES, report["pictures"], strict=True):
        picture = np.frombuffer(base64.b64decode(shown), np.uint8).reshape(frames[number].shape)
        error = np.square(picture.astype(float) - frames[number]).mean()
        assert error < 255**2 / 10**4, f"frame {number} is below 40 dB"


def test_sound_plays_from_where_it_is_sought_to_its_end(server: str, tmp_path: Path) -> None:
    path, opus = tmp_path / "tone.iwc", OpusWriter()
    with ContainerReader(SAMPLE) as reader:
        header = reader.header.with_audio(opus.pre_skip, opus.packet_samples)
        samples = 20_000 * tone(header.frames / float(header.fps), AUDIO_RATE)
        sound = [*opus.encode(samples.astype(np.int16)), *opus.flush()]
        with ContainerWriter(path, header) as writer:
            for packet in reader.records():
                writer.write_source(packet) if isinstance(packet, SourcePacket) else writer.write_motion(packet)
            writer.write_audio(AudioPacket(0, tuple(sound)))
    report = played(server, file=str(path), **{"from": 8})
    assert report["problems"] == []
    assert "Sound" in report["facts"]
    assert 0 < report["sound"] <= len(sound) * opus.packet_samples - opus.pre_skip - 8 * AUDIO_RATE
