"""`iwcodec bench tables`: the paper's tables on our clips, with the network in PyTorch.

"Implicit Warping for Animation with Image Sets", NeurIPS 2022: reconstruction from 1, 2 and 3 sources, and dense
attention against top-k attention in quality and time. Sources are uncompressed and keypoints not quantised, so this
measures the network alone; `bench rd` measures the codec.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.metrics.bdrate import bootstrap
from iwcodec.benchmarks.quality.baselines import flow_oracle, nearest_copy
from iwcodec.codec.cli import JSON, console, progress_bar
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.options import EncodeOptions, Progress
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.models.runtime.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from torch import Tensor

    from iwcodec.models.network.attention import Extras
    from iwcodec.models.network.network import ImplicitWarp, Sources

    Attention = Callable[[Tensor, Tensor, Tensor, Extras], Tensor]

SOURCES = (1, 2, 3)
"""Numbers of sources to reconstruct from."""
KEPT = (1, 2, 4, 8, 16, 32)
"""k: keys per query (exact), or 2x2 blocks of keys per 2x2 block of queries (hierarchical)."""


@dataclass(frozen=True)
class Reconstruction:
    """PSNR over RGB of one clip, mean over the frames that are not sources."""

    clip: str
    sources: int
    psnr_db: float
    copy_db: float
    oracle_db: float


@dataclass(frozen=True)
class Sparsity:
    """Means over frames and clips; `same_db` is the PSNR against the picture from dense attention."""

    kind: str
    k: int | None
    psnr_db: float
    same_db: float
    attention_ms: float
    """Median time."""
    faster: float
    """Speed-up over dense attention, by medians."""


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    frames: Annotated[int, typer.Option(help="Evenly spaced frames of each clip for the first table.", min=5)] = 17,
    sparse_frames: Annotated[int, typer.Option(help="Frames of each clip for the second table.", min=1)] = 4,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    model: Annotated[str, typer.Option(help="Name of a shipped model.")] = DEFAULT_MODEL,
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    out: Annotated[Path, typer.Option(help="Folder for tables.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """The network alone: quality by number of sources, and top-k against dense attention in quality and time."""
    try:
        import torch

        from iwcodec.models.runtime.torch import load_network
    except ImportError as error:
        raise CodecError(f"bench tables needs {error.name}: {install('train')}.") from error
    try:
        network = load_network(model)
    except (FileNotFoundError, OSError) as error:
        raise CodecError(f"There is no model {model!r}.") from error
    torch.set_num_threads(threads)
    with progress_bar(as_json) as progress:
        results = run(network, clips or [sample_clip()], frames, sparse_frames, crop, progress)
    experiment.save({"what": "tables", "model": model, "threads": threads, **results}, out / "tables.json")
    if as_json:
        print(json.dumps(results, indent=1))
        return
    console.print(reconstruction_table(results))
    console.print(sparsity_table(results))
    console.print(f"Results: {out / 'tables.json'}")


def run(
    network: "ImplicitWarp", clips: list[Path], frames: int, sparse_frames: int, crop: str, progress: Progress
) -> dict[str, Any]:
    """Both tables, as in tables.json. Raises CodecError for two clips of one name."""
    if len({clip.stem for clip in clips}) < len(clips):
        raise CodecError("Two clips have the same name.")
    frames_of = {clip.stem: evenly_spaced_frames(clip, network.config.size, frames, crop) for clip in clips}
    reconstructions: list[Reconstruction] = []
    for number, (name, pictures) in enumerate(frames_of.items()):
        progress("1, 2 and 3 sources", number / len(frames_of))
        reconstructions += (reconstruction(network, name, pictures, count) for count in SOURCES)
    return {
        **experiment.surroundings(),
        "reconstruction": [asdict(row) for row in reconstructions],
        "sparsity": [asdict(row) for row in sparsity(network, list(frames_of.values()), sparse_frames, progress)],
    }


def evenly_spaced_frames(clip: Path, size: int, count: int, crop: str) -> NDArray[np.uint8]:
    """`count` evenly spaced frames of a clip (n, size, size, 3), including the first and the last.

    Raises CodecError for a clip with too few frames.
    """
    video = open_footage(clip, EncodeOptions(size, crop=crop), lambda name, share: None)
    total = len(video.crops)
    if total < len(SOURCES) + 1:
        raise CodecError(f"{clip.name} has {total} frames; {len(SOURCES) + 1} are needed.")
    chosen = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    return np.stack([picture for n, picture in enumerate(video.pictures()) if n in chosen])


def reconstruction(network: "ImplicitWarp", clip: str, pictures: NDArray[np.uint8], count: int) -> Reconstruction:
    """Frames reconstructed from `count` evenly spaced sources and fitted keypoints, and the baselines."""
    from iwcodec.models.training.evaluate import reconstruct, source_indices

    chosen = source_indices(len(pictures), count)
    rebuilt = reconstruct(network, pictures, chosen, network.config.size, fitted=True).pictures
    others = [n for n in range(len(pictures)) if n not in chosen]
    originals, sources = [pictures[n] for n in others], [pictures[n] for n in chosen]
    return Reconstruction(
        clip,
        count,
        mean_psnr(originals, (rebuilt[n] for n in others)),
        mean_psnr(originals, nearest_copy(originals, sources)),
        mean_psnr(originals, flow_oracle(originals, sources)),
    )


def mean_psnr(originals: list[Picture], pictures: Iterator[Picture]) -> float:
    """Mean over the frames of PSNR (RGB) in dB, rounded to 0.001."""
    return round(float(np.mean([psnr(a, b) for a, b in zip(originals, pictures, strict=True)])), 3)


def attentions(network: "ImplicitWarp") -> Iterator[tuple[str, int | None, "Attention"]]:
    """Dense first, then exact and hierarchical top-k for every k."""
    from functools import partial

    from iwcodec.models.network.attention import dense_attention, hierarchical_attention, topk_attention

    side = network.config.side
    yield "dense", None, dense_attention
    for k in KEPT:
        yield "exact top-k", k, partial(topk_attention, k=k)
    for k in KEPT:
        yield "hierarchical top-k", k, partial(hierarchical_attention, side=side, k=k)


def sparsity(
    network: "ImplicitWarp", clips: list[NDArray[np.uint8]], frames: int, progress: Progress
) -> list[Sparsity]:
    """Every kind of attention on the same queries, with 3 sources and frames half-way between them."""
    import torch

    samples = [sample for pictures in clips for sample in frames_between_sources(network, pictures, frames)]
    kinds = list(attentions(network))
    dense: list[Picture] = []
    rows: list[Sparsity] = []
    for number, (kind, k, attention) in enumerate(kinds):
        progress("dense against sparse", number / len(kinds))
        seconds, pictures = [], []
        for keypoints, sources, _ in samples:
            with torch.inference_mode():
                picture, spent = generate(network, keypoints, sources, attention)
            pictures.append(picture)
            seconds.append(spent)
        dense = dense or pictures
        median = float(np.median(seconds)) * 1000
        rows.append(
            Sparsity(
                kind,
                k,
                mean_psnr([original for _, _, original in samples], iter(pictures)),
                mean_psnr(dense, iter(pictures)),
                round(median, 2),
                round((rows[0].attention_ms if rows else median) / median, 2),
            )
        )
    return rows


def frames_between_sources(
    network: "ImplicitWarp", pictures: NDArray[np.uint8], frames: int
) -> Iterator[tuple["Tensor", "Sources", Picture]]:
    """(keypoints (1, K, 3), sources, original) of frames half-way between the sources."""
    import torch

    from iwcodec.models.network.layers import resize
    from iwcodec.models.training.evaluate import source_indices, to_tensor

    chosen = source_indices(len(pictures), max(SOURCES))
    others = [n for n in range(len(pictures)) if n not in chosen]
    picked = [others[(2 * n + 1) * len(others) // (2 * frames)] for n in range(min(frames, len(others)))]
    with torch.inference_mode():
        tensors = to_tensor(pictures)
        keypoints = network.detect(resize(tensors, network.config.detector_size))
        sources = network.encode_sources(tensors[chosen][None], keypoints[chosen][None])
    for n in picked:
        yield keypoints[n : n + 1], sources, pictures[n]


def generate(
    network: "ImplicitWarp", keypoints: "Tensor", sources: "Sources", attention: "Attention"
) -> tuple[Picture, float]:
    """ImplicitWarp.generate with another attention -> picture, and seconds of the attention alone."""
    from iwcodec.models.network.warp import place_columns
    from iwcodec.models.training.evaluate import to_pictures

    side = network.side(sources.pictures)
    queries, unit_queries = network.queries(keypoints, side)
    keys = network.keys(keypoints, sources, side)
    rows = place_columns(sources.rows, side)
    extras = network.extras(rows.shape[-1])
    started = time.perf_counter()
    attended = attention(queries, keys, rows, extras)
    seconds = time.perf_counter() - started
    return to_pictures(network.decode(attended, unit_queries, sources.pictures)[0])[0], seconds


def reconstruction_table(results: dict[str, Any]) -> Table:
    """Means over clips, with 95 % bootstrap intervals if there are several."""
    table = Table(title="PSNR of frames that are not sources, dB", title_justify="left")
    for heading in ("sources", "network", "copy of nearest source", "flow oracle"):
        table.add_column(heading, justify="right")
    for count in SOURCES:
        rows = [row for row in results["reconstruction"] if row["sources"] == count]
        cells = []
        for key in ("psnr_db", "copy_db", "oracle_db"):
            interval = bootstrap([row[key] for row in rows])
            spread = f" ({interval.low:.2f} to {interval.high:.2f})" if len(rows) > 1 else ""
            cells.append(f"{interval.mean:.2f}{spread}")
        table.add_row(str(count), *cells)
    return table


def sparsity_table(results: dict[str, Any]) -> Table:
    """Quality and time of every kind of attention."""
    table = Table(title="Attention, 3 sources", title_justify="left")
    for heading in ("", "k", "dB", "dB to dense", "ms", "times faster"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in results["sparsity"]:
        figures = (f"{row[key]:.2f}" for key in ("psnr_db", "same_db", "attention_ms", "faster"))
        table.add_row(row["kind"], str(row["k"] or ""), *figures)
    return table
