"""Where the browser's client is, and what its tests need."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WEB = Path(__file__).parents[3] / "client" / "web"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_modules = pytest.mark.skipif(
    shutil.which("npm") is None or not (WEB / "node_modules").is_dir(), reason="needs npm, and `npm ci` in client/web"
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
needs_build = pytest.mark.skipif(not (WEB / "dist" / "index.html").is_file(), reason="needs `make web`")


@contextmanager
def web_server() -> Iterator[str]:
    """Run `iwcodec serve`; its address."""
    command = [sys.executable, "-m", "iwcodec", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = (line for line in process.stdout if '"serving"' in line)
            yield json.loads(next(lines))["address"]
        finally:
            process.terminate()
