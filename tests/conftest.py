"""Fixtures shared by several test files."""

import asyncio
import inspect
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import pytest

from support.media.clips import CLIP_FPS, CLIP_FRAMES

if TYPE_CHECKING:
    from iwcodec.models.runtime.types import Runtime

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # must be set before Triton is first imported
with suppress(ImportError):
    from hypothesis import settings

    settings.register_profile("without deadlines", deadline=None)  # which a busy machine misses
    settings.load_profile("without deadlines")


NEEDS = {
    "benchmarks/call": ("aiortc",),
    "benchmarks/performance/attention": ("torch",),
    "client": ("aiortc",),
    "client/demo": ("fastapi", "uvicorn", "websockets"),
    "client/room": ("filelock", "websockets"),
    "client/web": ("fastapi",),
    "models/baselines": ("torch",),
    "models/export": ("onnx", "torch"),
    "models/network": ("torch",),
    "server": ("fastapi", "httpx", "prometheus_client", "pydantic", "uvicorn", "websockets"),
}
"""Folder -> optional packages without which its tests are skipped."""
LONGEST_S = 120.0
"""Time-out in seconds of a coroutine test on the real clock."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on a new event loop: on a simulated clock if it is marked `simulated`. Fixtures that are
    asynchronous context managers are entered on that loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def test() -> None:
        async with AsyncExitStack() as stack:
            for name, value in arguments.items():
                if isinstance(value, AbstractAsyncContextManager):
                    arguments[name] = await stack.enter_async_context(value)
            await pyfuncitem.obj(**arguments)

    if pyfuncitem.get_closest_marker("simulated"):
        from iwcodec.benchmarks.call.simulation import simulate

        simulate(test())
    else:
        asyncio.run(asyncio.wait_for(test(), LONGEST_S))
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report what the compiled attention kernel needs, and what skipped tests lack. With pytest-xdist, the controller
    reports for all workers."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [str(value) for report in reports for name, value in report.user_properties if name == "kernel"]
    if lines:
        terminalreporter.section("attention kernel, compiled ahead of time")
        terminalreporter.write_line("\n".join(lines))
    missing = Counter(missing_requirement(report) for report in terminalreporter.getreports("skipped"))
    if missing:
        names = ", ".join(f"{name} ({count})" for name, count in missing.most_common())
        terminalreporter.section("skipped tests")
        terminalreporter.write_line(f"skipped: {missing.total()} tests, for want of: {names}")
        terminalreporter.write_line("A file whose tests all need the same thing counts as one test.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only tests with a marker are wanted, do not import files that do not name it: importing them all takes
    longer than many of those tests."""
    marker = re.match("patient|realtime", config.getoption("markexpr"))
    if marker is None or collection_path.suffix != ".py":
        return None
    return f"pytest.mark.{marker[0]}" not in collection_path.read_text(encoding="utf-8") or None


class OptionalModule(pytest.Module):
    """A module that is skipped where a package is missing that its folder needs."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        for folder, packages in NEEDS.items():
            if self.path.is_relative_to(Path(__file__).parent / folder):
                for package in packages:
                    pytest.importorskip(package)
        return super().collect()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return OptionalModule.from_parent(parent, path=module_path)


def missing_requirement(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Name of what a skipped test lacks: "torch" for "could not import 'torch'", "coturn" for "coturn is not
    installed", "/dev/full" for "needs /dev/full"; other reasons as they are."""
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    patterns = (r"could not import '([\w.]+)'", r"(.+) is not installed", r"needs (.+)", r"no (.+)")
    matches = (re.match(pattern, reason) for pattern in patterns)
    return next((match[1] for match in matches if match), reason)


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first CLIP_FRAMES frames of the bundled clip at CLIP_FPS, with a tone as sound."""
    from iwcodec.codec.media.video import read_video, sample_clip
    from support.media.clips import tone, write_clip

    pictures = [frame.picture for frame in itertools.islice(read_video(sample_clip()), CLIP_FRAMES)]
    path = tmp_path_factory.mktemp("clips") / "face.mp4"
    return write_clip(path, pictures, fps=CLIP_FPS, sound=tone(CLIP_FRAMES / CLIP_FPS))


@pytest.fixture(scope="session")
def blind_runtime() -> "Runtime":
    """The shipped model, which reconstructs black pictures: for files whose quality does not matter. What an encoder
    tries is reconstructed, and takes three quarters of its time."""
    from iwcodec.codec.shipped_model import load_runtime

    runtime = load_runtime(kind="onnx", threads=1)
    runtime.reconstruct = lambda *_: np.zeros((256, 256, 3), np.uint8)
    return runtime


@pytest.fixture(scope="session")
def iwc_file(face_clip: Path, blind_runtime: "Runtime", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`face_clip`, encoded with two sources and without skip mode: decoding reconstructs all frames but the sources."""
    from iwcodec.codec.file.encode import encode
    from iwcodec.codec.file.options import EncodeOptions

    path = tmp_path_factory.mktemp("coded") / "face.iwc"
    with mock.patch("iwcodec.codec.file.skip.MIN_DB", math.inf):
        encode(face_clip, path, EncodeOptions(sources=2, effort=0), blind_runtime)
    return path


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keypoints of files are not fitted. With the stub network a fit takes most of the time and changes nothing."""
    from support.codec.stub_runtime import FileFit

    monkeypatch.setattr("iwcodec.codec.file.passes.fit_for", lambda effort: FileFit())
    monkeypatch.setattr("iwcodec.codec.file.rate_control.excerpt.quick_fit", FileFit)
