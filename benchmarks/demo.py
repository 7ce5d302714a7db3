"""`iwcodec demo`: code a clip, and compare the result with SVT-AV1 and with copying the nearest source picture."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from iwcodec.benchmarks.comparison_pictures import write_animation, write_contact_sheet, write_side_by_side
from iwcodec.benchmarks.experiment import save, surroundings, text_table
from iwcodec.benchmarks.expression_sheet import av1_versions, expressive_moments, write_sheet
from iwcodec.benchmarks.quality.baselines import coded_sources, nearest_copy
from iwcodec.benchmarks.quality.rivals import encode_rival
from iwcodec.codec.extras import install
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.encode import EncodeReport, encode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.terminal import console, progress_bar

MIN_RIVAL_KBPS = 2.0
"""Bit rate requested from SVT-AV1 at full size, in kbps; it spends the least it can, which is more."""


@dataclass(frozen=True)
class Row:
    """One codec's rate and mean PSNR over RGB."""

    name: str
    kbps: float
    psnr_db: float


def command(
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("demo"),
    clip: Annotated[Path | None, typer.Option(help="A video of one face; default: the bundled clip.")] = None,
    sources: Annotated[int, typer.Option(help="Source pictures to send.", min=1, max=32)] = 3,
) -> None:
    """Code the bundled clip and compare it with SVT-AV1: rates, PSNR, a side-by-side video and an animation.

    expressions.jpg shows the strongest blinks, glances and vowels beside SVT-AV1 at the same and at three times the
    rate.
    """
    path = clip or sample_clip()
    report, rows = run(out, path, sources)
    noun = "picture" if report.sources == 1 else "pictures"
    console.print(
        f"Encoded {path.name} ({report.duration_s:.1f} s) as {report.sources} source {noun} "
        f"({report.kbps['sources']:.2f} kbps) and the motion of 20 keypoints ({report.kbps['motion']:.2f} kbps):",
        soft_wrap=True,
    )
    texts = ((row.name, f"{row.kbps:.2f}", f"{row.psnr_db:.2f}") for row in rows)
    console.print(text_table("Mean PSNR (RGB) over the clip", ("", "kbps", "dB"), texts))
    coded = out / f"{path.stem}.iwc"
    for line in (
        f"All versions side by side:   {out / 'side_by_side.mp4'}, {out / 'contact_sheet.png'}",
        f"Original, iwcodec, SVT-AV1:  {out / 'demo.webp'} (opens in any browser)",
        f"Blinks, glances and vowels:  {out / 'expressions.jpg'}",
        f"The coded clip:              {coded} ({coded.stat().st_size} bytes)",
        "",
        "Try next:",
        f"  iwcodec play {coded}",
        f"  iwcodec demo --clip my-video.mp4 --sources {min(32, 2 * sources)}",
        "  iwcodec encode my-video.mp4 my-video.iwc; iwcodec decode my-video.iwc decoded.mp4",
        f"  iwcodec demo-call    # two clients and a server on this machine; needs {install('call,server')}",
    ):
        console.print(line, soft_wrap=True)


def run(out: Path, clip: Path, sources: int) -> tuple[EncodeReport, list[Row]]:
    """Code the clip and write the comparison into `out`; returns the encoder's report and the table's rows."""
    out.mkdir(parents=True, exist_ok=True)
    coded = out / f"{clip.stem}.iwc"
    options = EncodeOptions(sources=sources, overwrite=True, audio=False)
    runtime = load_runtime_for(options.size, threads=1)
    with progress_bar(False) as progress:
        report = encode(clip, coded, options, runtime, progress)
        video = open_footage(clip, options, lambda name, share: None)
        originals = list(video.pictures())
        with IwcFile(coded) as file:
            library = coded_sources(file)
            ours = []
            for frame in file.frames():
                ours.append(frame.picture)
                progress("decoding", len(ours) / len(originals))
        progress("comparing with SVT-AV1", 0.0)
        copies = list(nearest_copy(originals, library))
        av1 = encode_rival("svtav1", originals, video.info.fps, MIN_RIVAL_KBPS)
        full_size = list(av1.pictures())
        progress("comparing with SVT-AV1", 0.5)
        av1_half, av1_triple = av1_versions(originals, video.info.fps, report.kbps["video"])
        half_size, triple = list(av1_half.pictures()), list(av1_triple.pictures())
        rows = [
            Row(f"iwcodec, {report.sources} sources", report.kbps["video"], mean_psnr(ours, originals)),
            Row("copy of the nearest source", report.kbps["sources"], mean_psnr(copies, originals)),
            Row("SVT-AV1 low delay, lowest rate", av1.kbps, mean_psnr(full_size, originals)),
            Row("SVT-AV1 at half size and frame rate", av1_half.kbps, mean_psnr(half_size, originals)),
        ]
        progress("writing the pictures", 0.0)
        labels = ["original", *(f"{row.name}: {row.kbps:.1f} kbps, {row.psnr_db:.1f} dB" for row in rows)]
        columns = [originals, ours, copies, full_size, half_size]
        write_side_by_side(out / "side_by_side.mp4", columns, labels, video.info.fps)
        write_contact_sheet(out / "contact_sheet.png", columns, labels)
        progress("writing the pictures", 0.5)
        short = ["original", f"iwcodec, {rows[0].kbps:.1f} kbps", f"SVT-AV1, {av1.kbps:.1f} kbps (its lowest)"]
        write_animation(out / "demo.webp", [originals, ours, full_size], short, video.info.fps)
        progress("looking for expressions", 0.0)
        labels = [*short[:2], *(f"SVT-AV1, {version.kbps:.1f} kbps" for version in (av1_half, av1_triple))]
        compared = originals, ours, half_size, triple
        moments = expressive_moments(originals, video.info.fps, runtime)
        shown = [(moment.expression, [pictures[moment.frame] for pictures in compared]) for moment in moments]
        write_sheet(out / "expressions.jpg", shown, labels)
    results = {**surroundings(), "encode": asdict(report), "rows": [asdict(row) for row in rows]}
    save(results, out / "demo.json")
    return report, rows


def mean_psnr(pictures: list[Picture], originals: list[Picture]) -> float:
    """Mean over the frames of PSNR (RGB) in dB, rounded to 0.01."""
    return round(float(np.mean([psnr(a, b) for a, b in zip(pictures, originals, strict=True)])), 2)
