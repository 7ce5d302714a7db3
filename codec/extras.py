"""The pip command that installs the package again with an optional extra."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
"""The checkout that the package runs from, if it has a pyproject.toml."""


def requirement(extra: str = "") -> str:
    """Return what pip must install to get this package from where it came, with an extra if given.

    That is the checkout, or the path or URL that pip recorded (PEP 610), or the name if it was installed from an index.
    """
    extras = f"[{extra}]" if extra else ""
    if (CHECKOUT / "pyproject.toml").exists():
        return f"{CHECKOUT}{extras}"
    try:
        origin = json.loads(distribution("iwcodec").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    url, version_control = origin.get("url"), origin.get("vcs_info")
    if version_control:
        url = f"{version_control['vcs']}+{url}@{version_control['commit_id']}"
    return f"iwcodec{extras} @ {url}" if url else f"iwcodec{extras}"


def install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{requirement(extra)}'"
