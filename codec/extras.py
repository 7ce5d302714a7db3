"""The command that installs what an extra of the package adds."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = str(CHECKOUT) if (CHECKOUT / "pyproject.toml").exists() else "iwcodec"
"""What pip installs the package from: the checkout that it runs from, where it does."""


def install(extra: str) -> str:
    return f"pip install '{PACKAGE}[{extra}]'"
