"""The endurance call: its summary, and a short real call."""

import json
from pathlib import Path

import pytest

for needed in ("websockets", "fastapi", "psutil"):
    pytest.importorskip(needed)

import typer
from typer.testing import CliRunner

from iwcodec.benchmarks.call import endurance
from iwcodec.codec.errors import CodecError


def report(at_s: float, memory_mb: float, waiting: int) -> dict[str, object]:
    return {
        "at_s": at_s,
        "memory_mb": memory_mb,
        "handles": 14,
        "threads": 30,
        "cpu_s": at_s / 2,
        "delay_ms": 100.0 + waiting,
        "frames_per_s": 25.0,
        "sources": 3,
        "sent_kbps": {"total": 10.0},
        "queued": {"frames_to_show": waiting},
        "dropped": {},
    }


def test_leak_and_growing_queue_show_in_the_windows() -> None:
    reports = [report(100 + 5 * n, 400 + n, n) for n in range(36)]
    parts = endurance.windows(reports, 100, 180)
    assert [part["from_min"] for part in parts] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert [part["memory_mb"] for part in parts] == sorted(part["memory_mb"] for part in parts)
    assert parts[-1]["queued_most"] == {"frames_to_show": 35}
    assert parts[0]["cores"] == 0.5
    assert endurance.table("Ada", parts).row_count == 10


@pytest.mark.realtime
@pytest.mark.patient
def test_two_clients_talk(face_clip: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(endurance.command)
    out = tmp_path / "endurance.json"
    result = CliRunner().invoke(app, [str(face_clip), "--minutes", "0.5", "--out", str(out)])
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    for client in written["clients"].values():
        assert client["exit_status"] == 0
        last = client["windows"][-1]
        assert last["frames_per_s"] > 1
        assert last["sources"] >= 1
        assert last["sent_kbps"] < 60
        assert last["memory_mb"] > 50
    assert written["server"]["last"]["handles"] >= 3


def test_client_that_ends_is_reported() -> None:
    class Gone:
        returncode = 3

        def poll(self) -> int:
            return 3

    client = endurance.Client(Gone())
    with pytest.raises(CodecError, match="Ada left the call with exit status 3"):
        endurance.wait([client, client], 1.0, None, lambda share: None)
