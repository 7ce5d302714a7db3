"""The runner of the GPU's measurements: sections that fail do not take the others with them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iwcodec.benchmarks.performance import gpu
from iwcodec.benchmarks.performance.gpu_sections import SECTIONS
from iwcodec.codec.errors import CodecError

RESULT = Path(__file__).parents[3] / "benchmarks/results/gpu-cpu.json"
LIMITS = [
    {"limit": "copy on the device, bytes read and written", "p50": 1.0, "gbs": 4000.0},
    {"limit": "product", "dtype": "fp32", "tflops": 50.0},
    {"limit": "product", "dtype": "fp16", "tflops": 800.0},
]


def test_every_section_has_a_budget_and_together_they_take_less_than_ten_minutes() -> None:
    assert list(gpu.BUDGETS) == list(SECTIONS)
    assert sum(gpu.BUDGETS.values()) < 600


def test_committed_run_on_a_cpu_says_so_and_is_complete() -> None:
    result = json.loads(RESULT.read_text())
    assert result["device"] == "cpu"
    assert "no figure says anything about a GPU" in result["caveat"]
    assert list(result["sections"]) == list(SECTIONS)
    for section in result["sections"].values():
        assert "error" not in section
        assert not [row for row in section["rows"] if "error" in row]
    assert all(row["agrees"] for row in result["sections"]["kernels"]["rows"])
    assert all(row["psnr_to_onnx_db"] > 45 for row in result["sections"]["runtimes"]["rows"] if "sources" in row)


def test_rows_before_a_crash_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(
        "import sys; print('noise'); print('{\"n\": 1}', flush=True); print('{\"n\":'); sys.exit('out of memory')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu, "MODULE", "crashing")
    section = gpu.run_section("frames", "cpu", 60)
    assert section["rows"] == [{"n": 1}]
    assert section["error"] == "ended with status 1: out of memory"


def test_rows_before_the_end_of_the_budget_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], stdout: Any, timeout: float, **_: Any) -> None:
        stdout.write('{"n": 1}\n')
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    section = gpu.run_section("frames", "cuda", 90)
    assert section["rows"] == [{"n": 1}]
    assert section["error"] == "stopped after 90 s"


def stub_sections(monkeypatch: pytest.MonkeyPatch, sections: dict[str, dict[str, Any]]) -> None:
    empty: dict[str, Any] = {"seconds": 0, "rows": []}
    monkeypatch.setattr(
        gpu, "run_section", lambda name, device, seconds: sections.get(name, {**empty, "error": "none"})
    )


def test_floors_are_computed_from_the_measured_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    described = {"device": "GPU", "capability": 90, "processors": 132}
    machine = {"seconds": 1, "rows": [described]}
    stub_sections(monkeypatch, {"machine": machine, "limits": {"seconds": 1, "rows": LIMITS}})
    result = gpu.run(tmp_path / "gpu.json", "cuda", list(gpu.BUDGETS))
    assert json.loads((tmp_path / "gpu.json").read_text()) == result
    assert list(result["sections"]) == list(gpu.BUDGETS)
    assert result["sections"]["frames"]["error"] == "none"
    dense = next(row for row in result["roofline"] if (row["implementation"], row["sources"]) == ("dense", 3))
    assert dense["bound_by"] == "tensor cores"
    assert dense["floor_us"] == pytest.approx(dense["gflop"] / 800 * 1e3, rel=1e-3)


def test_sections_that_are_not_run_again_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    machine = {"seconds": 1, "rows": [{"device": "GPU", "capability": 90, "processors": 132}]}
    stub_sections(monkeypatch, {"machine": machine, "limits": {"seconds": 1, "rows": LIMITS}})
    gpu.run(out, "cuda", ["limits"])
    stub_sections(monkeypatch, {"machine": machine, "frames": {"seconds": 2, "rows": [{"callers": 1}]}})
    result = gpu.run(out, "cuda", ["frames"])
    assert list(result["sections"]) == ["machine", "limits", "frames"]
    assert result["sections"]["limits"]["rows"] == LIMITS
    assert result["roofline"]
    assert list(gpu.run(out, "cpu", ["frames"])["sections"]) == ["machine", "frames"]  # of another device


def test_without_limits_there_are_no_floors() -> None:
    sections = {"machine": {"rows": [{"capability": 90, "processors": 132}]}, "limits": {"rows": LIMITS[:2]}}
    assert gpu.measured_roofline(sections) == []


def test_a_missing_device_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub_sections(monkeypatch, {"machine": {"seconds": 1, "rows": [{"error": "RuntimeError: no NVIDIA driver"}]}})
    with pytest.raises(CodecError, match="no NVIDIA driver"):
        gpu.run(tmp_path / "gpu.json", "cuda", ["frames"])
    assert gpu.main(["--out", str(tmp_path / "gpu.json"), "--only", "frames"]) == 1
    assert capsys.readouterr().err == "The device cuda cannot be used: RuntimeError: no NVIDIA driver.\n"
    assert list(tmp_path.iterdir()) == []


def test_borrowed_machines_need_few_packages() -> None:
    """What the measurements import without PyTorch, on a machine without PyAV and the command line's packages."""
    code = (
        "import sys\n"
        "for name in ('av', 'constriction', 'msgpack', 'pygame', 'rich', 'typer'): sys.modules[name] = None\n"
        "import iwcodec.benchmarks.performance.gpu, iwcodec.benchmarks.performance.gpu_sections\n"
        "from iwcodec.benchmarks.performance.attention.cases import clip_pictures\n"
        "print(len(clip_pictures(32, 2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("5\n", "")
