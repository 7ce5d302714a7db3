"""`iwcodec bench tables`: the paper's tables on our clips, with the network in PyTorch.

"Implicit Warping for Animation with Image Sets", NeurIPS 2022: reconstruction from 1, 2 and 3 sources. Sources are
uncompressed and keypoints not quantised, so this measures the network alone; `bench rd` measures the codec, `bench
attention` top-k against dense attention.
"""

from collections.abc import Iterator
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
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.options import EncodeOptions, Progress
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.terminal import JSON, progress_bar
from iwcodec.models.runtime.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from iwcodec.models.network.network import ImplicitWarp

SOURCES = (1, 2, 3)
"""Numbers of sources to reconstruct from."""


@dataclass(frozen=True)
class Reconstruction:
    """PSNR over RGB of one clip, mean over the frames that are not sources."""

    clip: str
    sources: int
    psnr_db: float
    copy_db: float
    oracle_db: float


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    frames: Annotated[int, typer.Option(help="Evenly spaced frames of each clip.", min=5)] = 17,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    model: Annotated[str, typer.Option(help="Name of a shipped model.")] = DEFAULT_MODEL,
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    out: Annotated[Path, typer.Option(help="Folder for tables.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Quality of the network alone by number of sources, beside copying and the flow oracle."""
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
        results = run(network, clips or [sample_clip()], frames, crop, progress)
    results = {"what": "tables", "model": model, "threads": threads, **results}
    experiment.publish(results, out / "tables.json", as_json, reconstruction_table(results))


def run(network: "ImplicitWarp", clips: list[Path], frames: int, crop: str, progress: Progress) -> dict[str, Any]:
    """The table, as in tables.json. Raises CodecError for two clips of one name."""
    if len({clip.stem for clip in clips}) < len(clips):
        raise CodecError("Two clips have the same name.")
    frames_of = {clip.stem: evenly_spaced_frames(clip, network.config.size, frames, crop) for clip in clips}
    reconstructions: list[Reconstruction] = []
    for number, (name, pictures) in enumerate(frames_of.items()):
        progress("1, 2 and 3 sources", number / len(frames_of))
        reconstructions += (reconstruction(network, name, pictures, count) for count in SOURCES)
    return {**experiment.surroundings(), "reconstruction": [asdict(row) for row in reconstructions]}


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


def reconstruction_table(results: dict[str, Any]) -> Table:
    """Means over clips, with 95 % bootstrap intervals if there are several."""
    rows = []
    for count in SOURCES:
        of = [row for row in results["reconstruction"] if row["sources"] == count]
        cells = []
        for key in ("psnr_db", "copy_db", "oracle_db"):
            interval = bootstrap([row[key] for row in of])
            spread = f" ({interval.low:.2f} to {interval.high:.2f})" if len(of) > 1 else ""
            cells.append(f"{interval.mean:.2f}{spread}")
        rows.append([str(count), *cells])
    headings = ("sources", "network", "copy of nearest source", "flow oracle")
    return experiment.text_table("PSNR of frames that are not sources, dB", headings, rows)
