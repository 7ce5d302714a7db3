"""`iwcodec bench attention`: the bundled result, and the provenance of results."""

import json
from pathlib import Path

from iwcodec.benchmarks.performance.attention import command as attention


def test_bundled_result_is_of_this_command() -> None:
    result = json.loads(attention.RESULT.read_text())
    assert result["command"].startswith("iwcodec bench attention")
    assert result["kernel"]["agrees"]
    assert Path(attention.RESULT).parent.name == "results"


def test_result_states_its_provenance() -> None:
    result = attention.machine(2)
    assert {"command", "commit", "machine", "versions"} <= result.keys()
    assert result["machine"]["processor"]
    assert (result["machine"]["device"], result["machine"]["threads"]) == ("cpu", 2)
    assert "torch" in result["versions"]
