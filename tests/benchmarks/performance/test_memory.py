"""Memory of the process."""

import numpy as np
import pytest

pytest.importorskip("psutil")

from iwcodec.benchmarks.performance.memory import peak_mb


def test_peak_is_at_least_what_was_allocated() -> None:
    kept = np.ones(30_000_000, np.uint8)
    assert peak_mb() > kept.nbytes / 2**20
