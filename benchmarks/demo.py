"""`iwcodec demo`: the bundled clip through the codec, beside what else could be done with the bits."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks.experiment import save, surroundings
from iwcodec.benchmarks.quality.rivals import encode_rival
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.cli import console, progress_bar
from iwcodec.codec.file.clip import EncodeOptions, frame_input
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.media.writer import VideoWriter
from iwcodec.codec.sources.av1 import SourceDecoder

LABEL = 28
"""Height of the strip above each picture that says what it is."""
SHOWN = 6
"""Rows of the contact sheet."""
FLOOR_KBPS = 2.0
"""Asked of SVT-AV1, which then spends the least it can."""


@dataclass(frozen=True)
class Row:
    name: str
    kbps: float
    psnr_db: float


def command(
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("demo"),
    clip: Annotated[Path | None, typer.Option(help="Another clip than the bundled one.")] = None,
    sources: Annotated[int, typer.Option(help="Source pictures.", min=1, max=32)] = 3,
) -> None:
    """Encode and decode a clip; write side_by_side.mp4, contact_sheet.png and a table beside the rivals."""
    rows = run(out, clip or sample_clip(), sources)
    table = Table(title="Mean PSNR (RGB) over the clip", title_justify="left")
    for heading in ("", "kbps", "dB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        table.add_row(row.name, f"{row.kbps:.2f}", f"{row.psnr_db:.2f}")
    console.print(table)
    console.print(f"Pictures: {out / 'side_by_side.mp4'}, {out / 'contact_sheet.png'}")


def run(out: Path, clip: Path, sources: int) -> list[Row]:
    """Everything the demo writes; returns the table's rows."""
    out.mkdir(parents=True, exist_ok=True)
    coded = out / f"{clip.stem}.iwc"
    options = EncodeOptions(sources=sources, overwrite=True, audio=False)
    with progress_bar(False) as tell:
        report = encode(clip, coded, options, progress=tell)
        video = frame_input(clip, options, lambda name, share: None)
        originals = list(video.pictures())
        with IwcFile(coded) as file:
            library = coded_sources(file)
            ours = []
            for frame in file.frames():
                ours.append(frame.picture)
                tell("decoding", len(ours) / len(originals))
    copies = [max(library, key=lambda s: psnr(s, original)) for original in originals]
    rival = encode_rival("svtav1", originals, video.info.fps, FLOOR_KBPS)
    theirs = list(rival.pictures())
    halved = encode_rival("svtav1", originals, video.info.fps, report.kbps["video"], shrink=2, skip=2)
    enlarged = list(halved.pictures())
    rows = [
        Row(f"iwcodec, {report.sources} sources", report.kbps["video"], mean_psnr(ours, originals)),
        Row("copy of the nearest source", report.kbps["sources"], mean_psnr(copies, originals)),
        Row("SVT-AV1 low delay, lowest rate", rival.kbps, mean_psnr(theirs, originals)),
        Row("SVT-AV1 at half size and frame rate", halved.kbps, mean_psnr(enlarged, originals)),
    ]
    labels = ["original", *(f"{row.name}: {row.kbps:.1f} kbps, {row.psnr_db:.1f} dB" for row in rows)]
    columns = [originals, ours, copies, theirs, enlarged]
    write_side_by_side(out / "side_by_side.mp4", columns, labels, video.info.fps)
    write_contact_sheet(out / "contact_sheet.png", columns, labels)
    found = {**surroundings(), "encode": asdict(report), "rows": [asdict(row) for row in rows]}
    save(found, out / "demo.json")
    return rows


def coded_sources(file: IwcFile) -> list[Picture]:
    """The sources as the receiver has them."""
    decoder = SourceDecoder(file.header.size)
    return [decoder.add(packet.payload) for packet in file.reader.records() if isinstance(packet, SourcePacket)]


def mean_psnr(pictures: list[Picture], originals: list[Picture]) -> float:
    return round(float(np.mean([psnr(a, b) for a, b in zip(pictures, originals, strict=True)])), 2)


def labelled(picture: Picture, text: str) -> Picture:
    """The picture under a strip with its name; long names are set smaller."""
    width = picture.shape[1]
    strip = np.full((LABEL, width, 3), 245, np.uint8)
    # OpenCV 5 draws wider than it says.
    scale = min(0.45, 0.9 * 0.45 * (width - 8) / cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0])
    cv2.putText(strip, text, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def write_side_by_side(path: Path, columns: list[list[Picture]], labels: list[str], fps: Fraction) -> None:
    side = columns[0][0].shape[0]
    with VideoWriter(path, (side * len(columns), side + LABEL), fps) as writer:
        for frames in zip(*columns, strict=True):
            row = [labelled(picture, text) for picture, text in zip(frames, labels, strict=True)]
            writer.write(np.ascontiguousarray(np.concatenate(row, axis=1)))


def write_contact_sheet(path: Path, columns: list[list[Picture]], labels: list[str]) -> None:
    """SHOWN rows evenly spaced in time, the strip only above the first."""
    rows = []
    for n, frame in enumerate(spread(len(columns[0]))):
        pictures = [column[frame] for column in columns]
        if n == 0:
            pictures = [labelled(picture, text) for picture, text in zip(pictures, labels, strict=True)]
        rows.append(np.concatenate(pictures, axis=1))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def spread(count: int) -> Iterator[int]:
    """Frames between the ends, where no source is likely to be the frame itself."""
    for n in range(SHOWN):
        yield (2 * n + 1) * count // (2 * SHOWN)
