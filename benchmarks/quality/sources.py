"""`iwcodec bench sources`: what the codec makes of a clip with so many sources, beside what they allow.

Whole clips through `encode` and back, every frame and every byte counted. Beside ours: copying the nearest of the same
sources as the receiver has them, and warping them by true flow (the oracle, on every ORACLE_STRIDEth frame).
"""

import json
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
from iwcodec.benchmarks.demo import coded_sources, labelled
from iwcodec.benchmarks.metrics.baselines import flow_oracle, nearest_copy
from iwcodec.codec.cli import JSON, console, progress_bar
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import EncodeOptions, Progress, frame_input
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.models.runtime.types import Runtime

ORACLE_STRIDE = 5
SHOWN = ("original", "iwcodec", "copy of a source", "oracle")
PAGE = 10
"""Clips whose worst frames are drawn."""


@dataclass(frozen=True)
class Coded:
    """Means over all frames of a clip (of the oracle: some), dB over RGB."""

    clip: str
    sources: int
    seconds: float
    kbps: dict[str, float]
    psnr_db: float
    copy_db: float
    oracle_db: float


@dataclass(frozen=True)
class Worst:
    """The frame of a clip that is rebuilt worst, by PSNR over RGB."""

    clip: str
    frame: int
    psnr_db: float
    pictures: tuple[Picture, ...]
    """Of SHOWN."""


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    sources: Annotated[str, typer.Option(help="Numbers of sources.")] = "1,3,8",
    effort: Annotated[int, typer.Option(help="As for encode.", min=0, max=3)] = 1,
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    size: Annotated[int, typer.Option(help="As for encode.")] = 256,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder for sources.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Rate and quality by number of sources, beside copying and the flow oracle; and a picture of the worst frames,
    with the people who are in the clips."""
    try:
        counts = [int(word) for word in sources.split(",")]
    except ValueError as error:
        raise CodecError(f"--sources takes numbers with commas between them, not {sources!r}.") from error
    runtime = load_runtime_for(size, threads)
    rows: list[Coded] = []
    worst: dict[int, list[Worst]] = {count: [] for count in counts}
    with progress_bar(as_json) as tell:
        todo = [(clip, count) for count in counts for clip in clips or [sample_clip()]]
        for number, (clip, count) in enumerate(todo):
            tell(f"{count} sources", number / len(todo))
            options = EncodeOptions(size, sources=count, crop=crop, audio=False, effort=effort, overwrite=True)
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
    if as_json:
        print(json.dumps(list(map(asdict, rows)), indent=1))
    else:
        console.print(table(rows))
        console.print(f"Results: {out / 'sources.json'}; the worst frames: {out / 'worst-N.jpg'}, N sources")


def measure(clip: Path, options: EncodeOptions, runtime: Runtime) -> tuple[Coded, Worst]:
    silent: Progress = lambda name, share: None  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "clip.iwc"
        report = encode(clip, target, options, runtime)
        video = frame_input(clip, options, silent)
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
    assert worst is not None  # no video is without a frame
    warped = next(iter(flow_oracle(worst.pictures[:1], library)))
    worst = replace(worst, pictures=(*worst.pictures, warped))
    seconds = report.duration_s
    row = Coded(clip.stem, report.sources, seconds, report.kbps, mean(ours), mean(copies), mean(oracles))
    return row, worst


def draw(path: Path, worst: Sequence[Worst]) -> None:
    """One row a clip, the worst first, PAGE at most, each picture under its name."""
    rows = []
    for one in sorted(worst, key=lambda one: one.psnr_db)[:PAGE]:
        names = (f"{one.clip}, frame {one.frame}", f"{SHOWN[1]}: {one.psnr_db:.1f} dB", *SHOWN[2:])
        rows.append(np.concatenate([labelled(p, name) for p, name in zip(one.pictures, names, strict=True)], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


def mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 2)


def table(rows: list[Coded]) -> Table:
    drawn = Table(title="Mean PSNR (RGB, dB)", title_justify="left")
    for heading in ("clip", "sources", "kbps", "iwcodec", "copy", "oracle"):
        drawn.add_column(heading, justify="left" if heading == "clip" else "right")
    for row in [*rows, *means(rows)]:
        values = (row.psnr_db, row.copy_db, row.oracle_db)
        drawn.add_row(row.clip, str(row.sources), f"{row.kbps['video']:.2f}", *(f"{value:.2f}" for value in values))
    return drawn


def means(rows: list[Coded]) -> list[Coded]:
    """One row for each number of sources, over all clips."""
    found = []
    for count in sorted({row.sources for row in rows}):
        of = [row for row in rows if row.sources == count]
        columns: dict[str, Any] = {
            key: mean([getattr(row, key) for row in of]) for key in ("seconds", "psnr_db", "copy_db", "oracle_db")
        }
        rates = {key: mean([row.kbps[key] for row in of]) for key in of[0].kbps}
        found.append(Coded("mean", count, kbps=rates, **columns))
    return found
