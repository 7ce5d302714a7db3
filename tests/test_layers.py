"""Imports between packages point one way, and no group of modules imports itself in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("codec", "models", "client", "server", "benchmarks")
LAYERS = (
    ("models.fit_settings", "models.flow"),
    ("models.network",),
    ("models.baselines",),
    ("models.runtime",),
    ("models.export", "models.training"),
    (
        "codec.arguments",
        "codec.errors",
        "codec.extras",
        "codec.parallel",
        "codec.partial_file",
        "codec.progress",
        "codec.terminal",
        "codec.token_bucket",
    ),
    ("codec.bitstream", "codec.media"),
    ("codec.sources", "codec.motion", "codec.fit"),
    ("codec.decoder", "codec.encoder", "codec.shipped_model"),
    ("codec.file",),
    ("codec.batch", "codec.doctor", "codec.player"),
    ("codec.cli", "codec.model_commands"),
    ("client", "server"),
    ("benchmarks",),
)
"""From the lowest to the highest. A module imports from its own layer and those below."""
ABOVE = {"codec.model_commands": {"models.export", "models.training"}}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for package in PACKAGES for file in (ROOT / package).rglob("*.py")}


def imports(file: Path) -> Iterator[str]:
    """Modules of the project that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import hides where a module is from"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in (name.removeprefix("iwcodec.") for name in names if name.startswith("iwcodec.")):
            yield name if name in MODULES else name.rpartition(".")[0]


def layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    return -1


GRAPH = {module: {name for name in imports(file) if name in MODULES} for module, file in MODULES.items()}


def test_every_module_has_a_layer() -> None:
    packages = {name for names in LAYERS for name in names for name in (name, name.partition(".")[0])}
    assert [module for module in MODULES if layer(module) < 0 and module not in packages] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    allowed = ABOVE.get(module, set())
    assert [
        name for name in GRAPH[module] if layer(name) > layer(module) and name.rpartition(".")[0] not in allowed
    ] == []


def test_no_circles() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_import_names_follow_folders() -> None:
    """A plain clone shows each folder below src/iwcodec under the name that it is imported by."""
    for package in PACKAGES:
        assert (ROOT / "src/iwcodec" / package).resolve() == ROOT / package
