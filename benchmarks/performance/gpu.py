"""What a GPU must tell about the network, in one run of less than ten minutes:

    python -m iwcodec.benchmarks.performance.gpu --out gpu.json

It needs a checkout with `src` on PYTHONPATH, PyTorch, Triton, NumPy, OpenCV, ONNX Runtime and safetensors; no network,
no PyAV, no installation. Every section (gpu_sections.py) runs in a process of its own and has a time budget: a crash, a
hang or a damaged CUDA context ends one section, and what it had measured is kept. The file is written anew after every
section. Floors (roofline.py) are computed from the rates that were measured in the same run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.performance.roofline import Peaks, roofline
from iwcodec.codec.errors import CodecError

BUDGETS = {"machine": 60, "limits": 45, "kernels": 120, "runtimes": 80, "attention": 150, "frames": 130}
"""Seconds of each section of gpu_sections.py with the start of Python and CUDA; less than ten minutes together."""
CPU_PATIENCE = 20
"""Factor of the budgets on a CPU, where Triton's kernel is interpreted and the machine may be shared."""

MODULE = "iwcodec.benchmarks.performance.gpu_sections"
"""Module that runs one section as a program."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit status: 1 if there is no such device or the file cannot be written."""
    parser = argparse.ArgumentParser(prog="iwcodec.benchmarks.performance.gpu", description=__doc__.partition(":")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file with all results [gpu.json]")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: small shapes, to try the measurements [cuda]"
    )
    parser.add_argument(
        "--only", choices=BUDGETS, nargs="+", default=list(BUDGETS), help="sections to run; others in the file stay"
    )
    options = parser.parse_args(arguments)
    try:
        run(options.out, options.device, options.only)
    except CodecError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(out: Path, device: str, only: Sequence[str]) -> dict[str, Any]:
    """Run the sections and save the results after each; sections of the same device that are in the file already and
    are not run again stay. Raises CodecError if there is no such device, or the file holds something else."""
    before = experiment.load(out) if out.exists() else {}
    kept = before.get("sections", {}) if before.get("device") == device else {}
    result: dict[str, Any] = {
        "command": f"python -m iwcodec.benchmarks.performance.gpu --device {device}",
        "commit": experiment.commit(),  # of the last run
        "processor": experiment.processor(),
        "what": "gpu",
        "device": device,
        **(
            {"caveat": "Run on a CPU with small shapes: no figure says anything about a GPU."}
            if device == "cpu"
            else {}
        ),
        "sections": {name: kept[name] for name in BUDGETS if name in kept and name not in only},
    }
    for name in BUDGETS:
        if name not in only and name != "machine":
            continue
        section = run_section(name, device, BUDGETS[name] * (CPU_PATIENCE if device == "cpu" else 1))
        if name == "machine":
            problem = section.get("error") or section["rows"][0].get("error")
            if problem:
                raise CodecError(f"The device {device} cannot be used: {problem}.")
        sections = {**result["sections"], name: {"commit": result["commit"], **section}}
        result["sections"] = {other: sections[other] for other in BUDGETS if other in sections}
        result["roofline"] = measured_roofline(result["sections"])
        experiment.save(result, out)
        failed = sum("error" in row for row in section["rows"])
        told = f"{name}: {len(section['rows'])} rows, {failed} failed, {section['seconds']} s"
        print(told + (f"; {section['error']}" if "error" in section else ""), flush=True)
    return result


def run_section(name: str, device: str, seconds: float) -> dict[str, Any]:
    """Run a section in a process of its own: its rows, its seconds, and an `error` if it did not end well."""
    command = [sys.executable, "-W", "ignore", "-m", MODULE, name, device]
    started, error = time.monotonic(), None
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as messages:
        try:
            done = subprocess.run(command, stdout=output, stderr=messages, timeout=seconds, check=False)
            if done.returncode:
                messages.seek(0)
                lines = messages.read().strip().splitlines() or ["no message"]
                error = f"ended with status {done.returncode}: {lines[-1]}"
        except subprocess.TimeoutExpired:
            error = f"stopped after {seconds:.0f} s"
        output.seek(0)
        rows = read_rows(output.read())
    section: dict[str, Any] = {"seconds": round(time.monotonic() - started, 1), "rows": rows}
    if not rows and error is None:
        error = "measured nothing"
    return section if error is None else {**section, "error": error}


def read_rows(text: str) -> list[dict[str, Any]]:
    """Rows of a section's JSON lines; a last line that was cut off, and whatever libraries print, is left out."""
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def measured_roofline(sections: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Floors of attention from the measured rates of copies and products; empty as long as one is missing."""
    described = sections["machine"]["rows"][0]
    limits = {(row["limit"], row.get("dtype")): row for row in sections.get("limits", {"rows": []})["rows"]}
    try:
        copy = next(row["gbs"] for (name, _), row in limits.items() if name.startswith("copy"))
        tensor, plain = (limits["product", dtype]["tflops"] for dtype in ("fp16", "fp32"))
        peaks = Peaks(tensor, plain, copy, described["processors"], 0, described["capability"])
    except (KeyError, StopIteration):
        return []
    return roofline(peaks)


if __name__ == "__main__":
    sys.exit(main())
