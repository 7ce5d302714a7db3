"""The browser's modules give the results of their Python twins: vitest, on what the Python side writes."""

import os
import subprocess
from pathlib import Path

from support.web.client import WEB, needs_modules
from support.web.vectors.write import write

pytestmark = needs_modules


def test_modules_agree_with_their_python_twins(tmp_path: Path) -> None:
    write(tmp_path)
    environment = {**os.environ, "IWCODEC_VECTORS": str(tmp_path)}
    done = subprocess.run(["npm", "test"], cwd=WEB, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_types_are_clean() -> None:
    done = subprocess.run(["npm", "run", "check"], cwd=WEB, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (WEB / "package-lock.json").read_text()
