"""The command that installs an extra names where the package is from."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from iwcodec.codec import extras
from iwcodec.codec.extras import install, requirement


def test_a_checkout_is_installed_from_its_path() -> None:
    assert (Path(requirement()) / "pyproject.toml").exists()
    assert install("call") == f"pip install '{requirement()}[call]'"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"url": "file:///home/me/iwcodec", "dir_info": {}}, "iwcodec[call] @ file:///home/me/iwcodec"),
        (
            {"url": "https://example.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "1a2b"}},
            "iwcodec[call] @ git+https://example.org/a.git@1a2b",
        ),
        ({"url": "https://example.org/a.whl", "archive_info": {}}, "iwcodec[call] @ https://example.org/a.whl"),
        (None, "iwcodec[call]"),  # from an index
    ],
)
def test_elsewhere_it_is_installed_from_where_it_came(
    origin: dict[str, object] | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "CHECKOUT", tmp_path)
    text = None if origin is None else json.dumps(origin)
    monkeypatch.setattr(extras, "distribution", lambda name: SimpleNamespace(read_text=lambda file: text))
    assert install("call") == f"pip install '{expected}'"
