"""ROBUSTNESS.md names tests that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


def named_tests() -> Iterator[tuple[Path, str]]:
    """(file, function) of the last column of every table."""
    for line in (TESTS.parent / "benchmarks" / "ROBUSTNESS.md").read_text().splitlines():
        file = None
        for quoted in re.findall(r"`([^`]+)`", line.rsplit(" | ", 1)[-1]) if line.startswith("| ") else ():
            place, _, name = quoted.rpartition(": ")
            if place:
                file = TESTS / place.rpartition("/")[0] / f"test_{place.rpartition('/')[2]}.py"
            if file is not None:
                yield file, f"test_{name}"


def test_every_test_that_is_named_exists() -> None:
    found = list(named_tests())
    assert len(found) > 70
    texts = {file: file.read_text() for file, _ in found}
    missing = [(file.name, name) for file, name in found if f"def {name}(" not in texts[file]]
    assert missing == []
