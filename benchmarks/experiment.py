"""Provenance of results (machine, versions, commit, command), and their JSON files.

PyAV, rich and the command line are imported where they are used: gpu.py saves results on machines without them.
"""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwcodec.codec.errors import CodecError
from iwcodec.models.runtime.types import Runtime

if TYPE_CHECKING:
    from rich.table import Table

MAX_LINE = 480
"""Longest line of a results file, in characters, unless a single value is longer."""


def surroundings() -> dict[str, Any]:
    """The keys that every results file starts with: how and on which machine it was made."""
    import av

    from iwcodec.codec.doctor import versions

    libraries = {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}
    return {
        "command": command_line(),
        "commit": commit(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "versions": {**versions(), **libraries},
    }


def command_line() -> str:
    """The command as typed, without folders, which mean nothing elsewhere."""
    return " ".join(["iwcodec", *(Path(word).name if "/" in word else word for word in sys.argv[1:])])


def commit() -> str | None:
    """Commit of the working copy that the package runs from, with "+" if tracked files differ; None outside of one."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        name = _git("rev-parse", "--short", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    return None


def _git(*words: str) -> str:
    folder = Path(__file__).parent
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def processor() -> str:
    """Model name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@cache
def codec_files() -> list[Path]:
    """The code and tables that determine coded bits and decoded pictures."""
    from iwcodec import codec, models

    code, inference = Path(codec.__path__[0]), Path(models.__path__[0])
    of_models = [*sorted((inference / "runtime").glob("*.py")), inference / "fit_settings.py", inference / "flow.py"]
    return [*sorted(code.rglob("*.py")), *sorted(code.glob("data/*.npz")), *of_models]


def _sources_digest() -> bytes:
    digest = hashlib.sha256()
    for file in codec_files():
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.digest()


def codec_digest(runtime: Runtime) -> str:
    """Digest of the weights and of the code that determines coded bits and decoded pictures."""
    graphs = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in model_files(runtime))
    return hashlib.sha256(_sources_digest() + runtime.info.digest + graphs).hexdigest()[:16]


def model_files(runtime: Runtime) -> list[Path]:
    """Weights and graphs of the runtime's model, including those of its base model."""
    from iwcodec.models.runtime.weights import WEIGHTS, read_weights_file

    names = [runtime.info.model_id]
    if (WEIGHTS / f"{names[0]}.safetensors").exists() and (base := read_weights_file(names[0]).base) is not None:
        names.append(base)
    return sorted(file for name in names for file in WEIGHTS.glob(f"{name}.*"))


def text_table(title: str, headings: Iterable[str], rows: Iterable[Iterable[str]]) -> "Table":
    """A table to print; its first column is aligned left, the others right."""
    from rich.table import Column, Table

    first, *others = headings
    table = Table(first, *(Column(name, justify="right") for name in others), title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def publish(results: dict[str, Any], path: Path | None, as_json: bool, *tables: "Table") -> None:
    """Save results, unless `path` is None, and print them: as JSON on stdout, or as tables with the file's name."""
    if path is not None:
        save(results, path)
    if as_json:
        print(json.dumps(results, indent=1))
        return
    from iwcodec.codec.terminal import console

    for table in tables:
        console.print(table)
    if path is not None:
        console.print(f"Results: {path}")


def load(path: Path) -> dict[str, Any]:
    """Read a results file. Raises CodecError if it is missing or not a JSON object."""
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise CodecError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise CodecError(f"{path} is not JSON: {error}.") from error
    if not isinstance(results, dict):
        raise CodecError(f"{path} holds no results.")
    return results


def save(results: dict[str, Any], path: Path) -> None:
    """Write a results file atomically, so that an interruption leaves the last complete state. Raises CodecError."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(layout(results) + "\n")
        part.replace(path)
    except OSError as error:
        raise CodecError(f"{path} cannot be written: {error.strerror}.") from error


def layout(value: Any, indent: str = "") -> str:
    """JSON that keeps on one line what fits there, so that one changed figure changes one line of a diff."""
    line = json.dumps(value)
    if len(line) <= MAX_LINE or not isinstance(value, dict | list):
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(str(key))}: {layout(item, deeper)}" for key, item in value.items()]
    else:
        lines = [deeper + layout(item, deeper) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(lines) + "\n" + indent + closing
