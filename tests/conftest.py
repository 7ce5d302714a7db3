"""Fixtures shared by several test files."""

import itertools
import os
from pathlib import Path

import pytest

from media_fixtures import CLIP_FRAMES

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # must be there before Triton is imported for the first time


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the compiled attention kernel needs, also where tests ran in other processes."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [str(value) for report in reports for name, value in report.user_properties if name == "kernel"]
    if lines:
        terminalreporter.section("attention kernel, compiled ahead of time")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of the bundled sample at 24 frames/s, with a tone as sound."""
    from iwcodec.codec.media.video import read_video, sample_clip
    from media_fixtures import tone, write_clip

    pictures = [frame.picture for frame in itertools.islice(read_video(sample_clip()), CLIP_FRAMES)]
    path = tmp_path_factory.mktemp("clips") / "face.mp4"
    return write_clip(path, pictures, fps=24, sound=tone(CLIP_FRAMES / 24))


@pytest.fixture(scope="session")
def iwc_file(face_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`face_clip`, encoded."""
    from iwcodec.codec.file.clip import EncodeOptions
    from iwcodec.codec.file.encode import encode

    path = tmp_path_factory.mktemp("coded") / "face.iwc"
    encode(face_clip, path, EncodeOptions(sources=2))
    return path
