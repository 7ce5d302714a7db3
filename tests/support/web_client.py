"""Where the browser's client is, and what its tests need."""

import shutil
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "client" / "web"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_modules = pytest.mark.skipif(
    shutil.which("npm") is None or not (WEB / "node_modules").is_dir(),
    reason="needs npm, and `npm ci` in client/web",
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
needs_build = pytest.mark.skipif(not (WEB / "dist" / "index.html").is_file(), reason="needs `make web`")
