"""Whoever lacks something is told to install it from where the package is from."""

from pathlib import Path

from iwcodec.codec.extras import PACKAGE, install


def test_from_this_checkout():
    assert (Path(PACKAGE) / "pyproject.toml").exists()
    assert install("call") == f"pip install '{PACKAGE}[call]'"
