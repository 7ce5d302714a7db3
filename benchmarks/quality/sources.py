"""`iwcodec bench sources`: rate and quality by number of sources, beside the bounds that the same sources allow.

Whole clips are encoded and decoded; all frames and bytes count. The bounds (baselines.py) are copying the nearest
decoded source, and warping the sources by true flow (the oracle, on every ORACLE_STRIDE-th frame).
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.comparison_pictures import labelled_row
from iwcodec.benchmarks.quality.baselines import coded_sources, flow_oracle, nearest_copy
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.file.options import EncodeOptions, Progress
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.terminal import JSON, progress_bar
from iwcodec.models.runtime.types import Runtime

ORACLE_STRIDE = 5
"""The flow oracle is computed for every Nth frame."""
COLUMNS = ("original", "iwcodec", "copy of a source", "oracle")
"""Pictures of a row of the sheet of worst frames."""
MAX_ROWS = 10
"""Clips on the sheet of worst frames."""


@dataclass(frozen=True)
class Coded:
    """PSNR over RGB of a clip, mean over all frames (of the oracle over every ORACLE_STRIDE-th)."""

    clip: str
    sources: int
    seconds: float
    kbps: dict[str, float]
    psnr_db: float
    copy_db: float
    oracle_db: float


@dataclass(frozen=True)
class Worst:
    """The frame of a clip with the lowest PSNR over RGB."""

    clip: str
    frame: int
    psnr_db: float
    pictures: tuple[Picture, ...]
    """One per COLUMNS."""


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    sources: Annotated[str, typer.Option(help="Comma-separated numbers of sources.")] = "1,3,8",
    effort: Annotated[int, typer.Option(help="As for encode.", min=0, max=3)] = 2,
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    size: Annotated[int, typer.Option(help="As for encode.")] = 256,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder for sources.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Rate and quality by number of sources, beside copying and the flow oracle; and a sheet of the worst frames.

    The sheets, worst-N.jpg for N sources, show the people in the clips.
    """
    try:
        counts = [int(word) for word in sources.split(",")]
    except ValueError as error:
        raise CodecError(f"--sources takes comma-separated numbers, not {sources!r}.") from error
    runtime = load_runtime_for(size, threads)
    rows: list[Coded] = []
    worst: dict[int, list[Worst]] = {count: [] for count in counts}
    with progress_bar(as_json) as progress:
        todo = [(clip, count) for count in counts for clip in clips or [sample_clip()]]
        for number, (clip, count) in enumerate(todo):
            progress(f"{count} sources", number / len(todo))
            options = EncodeOptions(
                size, sources=count, crop=crop, tune="psnr", audio=False, effort=effort, overwrite=True
            )
            row, frame = measure(clip, options, runtime)
            rows.append(row)
            worst[count].append(frame)
            draw(out / f"worst-{count}.jpg", worst[count])
            results = {
                "what": "sources",
                "effort": effort,
                "size": size,
                **experiment.surroundings(),
                "clips": list(map(asdict, rows)),
            }
            experiment.save(results, out / "sources.json")
    experiment.publish(results, out / "sources.json", as_json, table(rows))


def measure(clip: Path, options: EncodeOptions, runtime: Runtime) -> tuple[Coded, Worst]:
    """Encode and decode a clip; returns its figures and its worst frame."""
    silent: Progress = lambda name, share: None  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "clip.iwc"
        report = encode(clip, target, options, runtime)
        video = open_footage(clip, options, silent)
        with IwcFile(target, runtime) as file:
            library = coded_sources(file)
            ours, copies, oracles = [], [], []
            worst: Worst | None = None
            for number, (frame, original) in enumerate(zip(file.frames(), video.pictures(), strict=True)):
                copy = next(iter(nearest_copy([original], library)))
                ours.append(psnr(frame.picture, original))
                copies.append(psnr(copy, original))
                if number % ORACLE_STRIDE == 0:
                    oracles.append(psnr(next(iter(flow_oracle([original], library))), original))
                if worst is None or ours[-1] < worst.psnr_db:
                    worst = Worst(clip.stem, number, ours[-1], (original, frame.picture, copy))
    assert worst is not None  # every video has a frame
    warped = next(iter(flow_oracle(worst.pictures[:1], library)))
    worst = replace(worst, pictures=(*worst.pictures, warped))
    seconds = report.duration_s
    row = Coded(clip.stem, report.sources, seconds, report.kbps, mean(ours), mean(copies), mean(oracles))
    return row, worst


def draw(path: Path, worst: Sequence[Worst]) -> None:
    """Write a sheet of up to MAX_ROWS worst frames, lowest PSNR first, each picture labelled."""
    rows = []
    for one in sorted(worst, key=lambda one: one.psnr_db)[:MAX_ROWS]:
        names = (f"{one.clip}, frame {one.frame}", f"{COLUMNS[1]}: {one.psnr_db:.1f} dB", *COLUMNS[2:])
        rows.append(labelled_row(one.pictures, names))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


def mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 2)


def table(rows: list[Coded]) -> Table:
    """One row per clip and number of sources, then the means."""
    texts = (
        [
            row.clip,
            str(row.sources),
            *(f"{v:.2f}" for v in (row.kbps["video"], row.psnr_db, row.copy_db, row.oracle_db)),
        ]
        for row in [*rows, *means(rows)]
    )
    headings = ("clip", "sources", "kbps", "iwcodec", "copy", "oracle")
    return experiment.text_table("Mean PSNR (RGB, dB)", headings, texts)


def means(rows: list[Coded]) -> list[Coded]:
    """Means over all clips, one row for each number of sources."""
    rows_of_means = []
    for count in sorted({row.sources for row in rows}):
        of = [row for row in rows if row.sources == count]
        columns: dict[str, Any] = {
            key: mean([getattr(row, key) for row in of]) for key in ("seconds", "psnr_db", "copy_db", "oracle_db")
        }
        rates = {key: mean([row.kbps[key] for row in of]) for key in of[0].kbps}
        rows_of_means.append(Coded("mean", count, kbps=rates, **columns))
    return rows_of_means
