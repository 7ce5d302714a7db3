"""`iwcodec bench encode`: time of `encode` against the length of clips, and how well the progress foretells it."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.performance.memory import peak_mb
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile, all_pictures
from iwcodec.codec.file.options import EncodeKeywords, EncodeOptions
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.terminal import JSON, progress_bar
from iwcodec.models.runtime.types import Runtime

SETTINGS: dict[str, EncodeKeywords] = {
    "default": {},
    "bitrate": {"kbps": 4.0},
    "effort0": {"kbps": 4.0, "effort": 0},
    "effort1": {"kbps": 4.0, "effort": 1},
    "effort3": {"kbps": 4.0, "effort": 3},
    "quality": {"quality_db": 30.0},
    "psnr": {"kbps": 4.0, "tune": "psnr"},
}
"""Options of `encode` by the name of the setting."""
FORETOLD_FROM = 0.2
"""Share of the time from which the progress is judged."""


@dataclass(frozen=True)
class Encode:
    """One encode, without sound."""

    setting: str
    seconds: float
    per_second: float
    """Seconds for each second of the clip."""
    cpu_seconds: float
    """Of all threads."""
    foretold_error: float
    """Largest relative error of the whole time as the progress foretells it from FORETOLD_FROM of the time on."""
    peak_mb: float
    """Largest memory of the process so far, in MiB."""
    kbps: float
    sources: int
    variants: int
    psnr_db: float


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    settings: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(SETTINGS)}.")] = "default,bitrate",
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    threads: Annotated[int, typer.Option(help="Threads of each of the two frames in work.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Folder for encode.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Time of encode at several settings. Run it on a machine that does nothing else."""
    chosen = parse_settings(settings)
    runtime, measured = load_runtime_for(256, threads), dict[str, Any]()
    todo = clips or [sample_clip()]
    with progress_bar(as_json) as progress:
        for number, clip in enumerate(todo):
            encodes = measured[clip.stem] = list[dict[str, Any]]()
            for index, setting in enumerate(chosen):
                progress(f"{clip.stem}, {setting}", (number + index / len(chosen)) / len(todo))
                encodes.append(asdict(measure(clip, setting, crop, runtime)))
                results = {"what": "encode", **experiment.surroundings(), "clips": measured}
                experiment.save(results, out / "encode.json")
    experiment.publish(results, out / "encode.json", as_json, table(results, chosen))


def parse_settings(text: str) -> list[str]:
    """Comma-separated settings. Raises CodecError."""
    chosen = [word.strip() for word in text.split(",")]
    if unknown := [word for word in chosen if word not in SETTINGS]:
        raise CodecError(f"--settings knows {', '.join(SETTINGS)}, not {unknown[0]!r}.")
    return chosen


def measure(clip: Path, setting: str, crop: str, runtime: Runtime) -> Encode:
    """Encode a clip, decode it, and compare it with the original."""
    reports: list[tuple[float, float]] = []
    options = EncodeOptions(size=runtime.info.size, audio=False, crop=crop, overwrite=True)
    options = options.with_keywords(SETTINGS[setting])
    with TemporaryDirectory() as folder:
        target = Path(folder) / "clip.iwc"
        began, cpu = time.perf_counter(), time.process_time()

        def note(name: str, share: float) -> None:
            reports.append((time.perf_counter() - began, share))

        report = encode(clip, target, options, runtime, note)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = peak_mb()
        psnr_db = measured_psnr(clip, target, options, runtime)
    return Encode(
        setting,
        round(seconds, 2),
        round(seconds / report.duration_s, 3),
        round(cpu, 2),
        round(foretold_error(reports, seconds), 3),
        round(peak),
        report.kbps["video"],
        report.sources,
        report.variants,
        round(psnr_db, 3),
    )


def measured_psnr(clip: Path, target: Path, options: EncodeOptions, runtime: Runtime) -> float:
    """Mean PSNR of a coded clip."""
    originals = open_footage(clip, options, lambda name, share: None).pictures()
    with IwcFile(target, runtime) as file:
        return float(
            np.mean([psnr(decoded, original) for decoded, original in zip(all_pictures(file), originals, strict=False)])
        )


def foretold_error(reports: Sequence[tuple[float, float]], seconds: float) -> float:
    """Largest relative error of the time foretold by reports of (seconds, share done), between FORETOLD_FROM of the
    whole time and its end; 0 without any."""
    errors = [abs(at / share / seconds - 1) for at, share in reports if at >= FORETOLD_FROM * seconds and share > 0]
    return max(errors, default=0.0)


def table(results: dict[str, Any], chosen: Sequence[str]) -> Table:
    """Means over the clips for each setting."""
    rows = []
    for setting in chosen:
        encodes = [one for encodes in results["clips"].values() for one in encodes if one["setting"] == setting]
        ratios = [one["per_second"] for one in encodes]
        mean = {key: np.mean([one[key] for one in encodes]) for key in ("seconds", "kbps", "psnr_db", "foretold_error")}
        rows.append(
            [
                setting,
                f"{mean['seconds']:.1f}",
                f"{np.mean(ratios):.2f}",
                f"{max(ratios):.2f}",
                f"{mean['kbps']:.2f}",
                f"{mean['psnr_db']:.2f}",
                f"{max(one['foretold_error'] for one in encodes):.0%}",
            ]
        )
    headings = ["setting", "s", "s per s of clip", "most", "kbps", "PSNR, dB", "worst foretold"]
    return experiment.text_table(f"Encode, {len(results['clips'])} clips", headings, rows)
