"""Fixtures shared by several test files."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
