"""The Triton kernel compiled for GPUs that need not be present."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_kernel_compiles_ahead_of_time_without_spills(tmp_path: Path, record_property) -> None:
    """In a separate process, because Triton's interpreter cannot compile. The resources are printed in the test summary
    (conftest.py)."""
    code = """
import json
from dataclasses import asdict
from iwcodec.models.network.triton_resources import resources
print(json.dumps([asdict(resources(capability, k)) for capability, k in ((80, 32), (90, 8))]))
"""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    for used in json.loads(done.stdout):
        record_property(
            "kernel",
            f"sm_{used['capability']} k = {used['k']:2}: {used['registers']} registers, "
            f"{used['spill_store_bytes'] + used['spill_load_bytes']} bytes spilled, "
            f"{used['shared_bytes']} bytes of shared memory",
        )
        assert used["spill_store_bytes"] == used["spill_load_bytes"] == 0
        assert 0 < used["registers"] <= 255
        assert 0 < used["shared_bytes"] <= 48 * 1024
        assert used["tensor_core_instructions"] > 0
        assert 100 < used["tile_instructions"] < 1000
        assert 100 < used["turn_instructions"] < 1000
