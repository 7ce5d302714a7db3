"""`iwcodec bench attention`: check and time every attention that runs on a CPU, and its quality in dB.

Quality is that of the network alone: uncompressed sources, unquantised keypoints, the bundled clip. Times are of the
attention alone, from queries and keys to attended rows. gpu.py measures on a GPU; the floors here are arithmetic from
the published peaks of some, and marked so (roofline.py).
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.performance.attention.cases import SOURCES, clip_pictures, implementations
from iwcodec.benchmarks.performance.attention.kernel import kernel
from iwcodec.benchmarks.performance.attention.measures import precision, quality, times
from iwcodec.benchmarks.performance.roofline import PEAKS, roofline
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.terminal import console, progress_bar
from iwcodec.models.runtime.weights import DEFAULT_MODEL, read_info

RESULT = Path(__file__).parents[2] / "results" / "attention.json"
"""The bundled result, which is the default output."""


def command(
    out: Annotated[Path, typer.Option(help="JSON with all results.")] = RESULT,
    model: Annotated[str, typer.Option(help="Weights to measure with.")] = DEFAULT_MODEL,
    frames: Annotated[int, typer.Option(help="Driving frames.", min=1, max=100)] = 6,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1, max=64)] = 2,
) -> None:
    """Check and time dense, top-k and hierarchical attention on the CPU, and measure what each costs in dB.

    On a GPU: `python -m iwcodec.benchmarks.performance.gpu`.
    """
    if find_spec("torch") is None:
        raise CodecError(f"`iwcodec bench attention` needs PyTorch: {install('train')}.")
    with progress_bar(False) as progress:
        result = run(model, frames, threads, progress)
    experiment.save(result, out)
    show(result)
    console.print(f"Results: {out}")


def run(model: str, frames: int, threads: int, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """All measurements, as in attention.json."""
    import torch

    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is first imported
    torch.set_num_threads(threads)
    from iwcodec.models.runtime.torch import load_network

    network = load_network(model).requires_grad_(False)
    pictures = clip_pictures(network.config.size, frames)
    with torch.inference_mode():
        attentions = implementations(network, threads)
        return {
            **machine(threads),
            "what": "attention",
            "model": {"id": model, "digest": read_info(model).digest.hex()},
            "grid": network.config.side,
            "quality": quality(network, pictures, attentions, progress),
            "times_ms": times(network, pictures, attentions, progress),
            "precision": precision(network, pictures, progress),
            "kernel": kernel(network, pictures, progress),
            "roofline": {name: roofline(peaks) for name, peaks in PEAKS.items()},
        }


def machine(threads: int) -> dict[str, Any]:
    """Provenance as in every result, plus threads, and the load average at the start."""
    provenance = experiment.surroundings()
    own = {
        "threads": threads,
        "others_load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "device": "cpu",
    }
    return {**provenance, "machine": {**provenance["machine"], **own}}


def show(result: dict[str, Any]) -> None:
    """Print times and quality with SOURCES sources, and the check of the kernel."""
    spent = {(t["implementation"], t["k"]): t["p50"] for t in result["times_ms"] if t["sources"] == SOURCES}
    table = Table(title=f"Attention with {SOURCES} sources, {result['machine']['device']}", title_justify="left")
    for heading in ("", "k", "ms", "dB against dense"):
        table.add_column(heading, justify="left" if not heading else "right")
    for score in result["quality"]:
        key = score["implementation"], score["k"]
        table.add_row(key[0], str(key[1] or "all"), f"{spent[key]:.1f}", f"{score['against_dense_db']:+.3f}")
    console.print(table)
    checked = result["kernel"]
    if "agrees" in checked:
        verdict = "agrees" if checked["agrees"] else "DISAGREES"
        gaps = ", ".join(f"{name} {gap:.1e}" for name, gap in checked["difference_from_definition"].items())
        console.print(f"Triton kernel ({checked['checked_on']}) {verdict} with the definition: {gaps}")
