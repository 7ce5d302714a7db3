"""`iwcodec bench rd`: rate against quality of every codec on the same pictures, in one run.

Only payload counts: for iwcodec the sources, motion and container of the file it writes, for the others what packets
would carry (see rivals.py). Each codec is given each target rate and reported at the rate it really spent.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.metrics.scoring import DEFAULT_METRICS, METRICS, Scorer, make_scorer
from iwcodec.benchmarks.quality.rd_clip import MeasuredClip, Plan, Pool, recipe
from iwcodec.benchmarks.quality.rd_results import (
    CODECS,
    OURS,
    RIVALS,
    codecs_of,
    comparisons,
    main_column,
    mean_points,
    rates_of,
)
from iwcodec.benchmarks.quality.rivals import rival_settings
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.terminal import console
from iwcodec.models.runtime.types import Runtime

RATES = "2,3,4,6,8,12,20,40"
"""Default target rates in kbps."""


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    rates: Annotated[str, typer.Option(help="Target rates, in kbps.")] = RATES,
    codecs: Annotated[str, typer.Option(help="Codecs to run.")] = ",".join(CODECS),
    metrics: Annotated[str, typer.Option(help=f"Of {', '.join(METRICS)}; or all.")] = ",".join(DEFAULT_METRICS),
    out: Annotated[Path, typer.Option(help="Folder for rd.json, which is saved after every point.")] = Path("bench"),
    reuse: Annotated[
        list[Path] | None, typer.Option(help="Results files whose points are reused where nothing has changed.")
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="Keep frames of every point for the report.")] = False,
    size: Annotated[int, typer.Option(help="Pixels a side of the coded square.")] = 256,
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    threads: Annotated[int | None, typer.Option(help="Network threads; default: as in the codec.", min=1)] = None,
) -> None:
    """Rate against quality: iwcodec, SVT-AV1, x265, VP9 and x264 in low delay, nearest-source copy, flow oracle.

    An interrupted run resumes when started again; points whose weights, settings or pictures changed are measured anew.
    """
    plan = Plan(parse_rates(rates), parse_codecs(codecs), size, crop, out, pictures, threads)
    scorer = make_scorer(list(METRICS) if metrics == "all" else metrics.split(","))
    for name, reason in scorer.missing.items():
        console.print(Text(f"without {name}:", "yellow"), reason)
    results = run(clips or [sample_clip()], plan, scorer, reuse or [])
    console.print(summary_table(results))
    for line in comparison_lines(results):
        console.print(line)
    console.print(f"Results: {out / 'rd.json'}; plot them with `iwcodec bench report {out / 'rd.json'}`.")


def parse_rates(text: str) -> tuple[float, ...]:
    """Comma-separated rates in kbps, ascending and without duplicates. Raises CodecError."""
    try:
        rates = sorted({float(word) for word in text.split(",")})
    except ValueError as error:
        raise CodecError(f"--rates takes comma-separated numbers, not {text!r}.") from error
    if not all(1 <= rate <= 100_000 for rate in rates):
        raise CodecError("--rates must be from 1 to 100000 kbps.")
    return tuple(rates)


def parse_codecs(text: str) -> tuple[str, ...]:
    """Comma-separated names of CODECS, in their order. Raises CodecError."""
    names = text.split(",")
    unknown = [name for name in names if name not in CODECS]
    if unknown:
        raise CodecError(f"There is no codec {unknown[0]!r}; there are {', '.join(CODECS)}.")
    return tuple(name for name in CODECS if name in names)


def run(clips: Sequence[Path], plan: Plan, scorer: Scorer, reuse: Sequence[Path] = ()) -> dict[str, Any]:
    """Measure the points that are not known yet; returns the results, which are also saved in `plan.folder`/rd.json.

    `reuse` are further results files. Raises CodecError for an unreadable clip or two clips of one name, and whatever
    `encode` raises.
    """
    names = [clip.stem for clip in clips]
    if len(set(names)) < len(names):
        raise CodecError("Two of the clips have the same name.")
    target = plan.folder / "rd.json"
    pool = Pool()
    before = experiment.load(target) if target.exists() else {}
    pool.add(before, plan.folder)
    for path in reuse:
        pool.add(experiment.load(path), path.parent)
    runtime = load_runtime_for(plan.size, plan.threads)
    results: dict[str, Any] = {
        **experiment.surroundings(),
        "what": "rd",
        "model": {"id": runtime.info.model_id, "digest": runtime.info.digest.hex()},
        "size": plan.size,
        "metrics": sorted(scorer.columns),
        "missing_metrics": scorer.missing,
        "settings": settings(plan),
        "clips": still_valid(before, plan, runtime),
    }
    with _progress_bar(len(clips) * len(plan.rates) * len(plan.codecs)) as progress:
        for clip in clips:
            with MeasuredClip(clip, plan, scorer, pool, runtime) as measured:
                old = results["clips"].get(clip.stem)
                if old is not None and old["frames_digest"] == measured.record["frames_digest"]:
                    measured.record["points"] = old["points"]
                results["clips"][clip.stem] = measured.record
                for codec, rate in ((codec, rate) for rate in plan.rates for codec in plan.codecs):
                    progress(f"{clip.stem[:24]} {codec} {rate:g}")
                    measured.add(codec, rate)
                    experiment.save(results, target)
    results["comparisons"] = comparisons(results)
    experiment.save(results, target)
    return results


def settings(plan: Plan) -> dict[str, Any]:
    """Encoder options of every rival by target rate."""
    return {
        name: {"shrink": shrink, "skip": skip, "options": {f"{r:g}": rival_settings(codec, r) for r in plan.rates}}
        for name, (codec, shrink, skip) in RIVALS.items()
    }


def still_valid(results: dict[str, Any], plan: Plan, runtime: Runtime) -> dict[str, Any]:
    """The clips of an earlier run, with the points that would come out the same today."""
    clips = {}
    for name, clip in results.get("clips", {}).items():
        points = [p for p in clip["points"] if p["recipe"] == recipe(p["codec"], p["asked_kbps"], plan.size, runtime)]
        if points:
            clips[name] = {**clip, "points": points}
    return clips


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """Yields a function to call with the name of each step as it starts; the step before is then complete."""
    columns = (TextColumn("{task.description:<40}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total)
        started = 0

        def progress(name: str) -> None:
            nonlocal started
            bar.update(task, description=name, completed=started)
            started += 1

        yield progress


def summary_table(results: dict[str, Any]) -> Table:
    """Quality and kbps spent of every codec at every target rate, means over the clips."""
    column = main_column(results)
    clips = len(results["clips"])
    title = f"{column} over kbps spent, mean of {clips} clip{'s' * (clips > 1)}"
    table = Table(title=title, title_justify="left", padding=(0, 0, 0, 1), show_lines=True)
    table.add_column("target")
    for rate in rates_of(results):
        table.add_column(f"{rate:g}", justify="right")
    for codec in codecs_of(results):
        points = {rate: (kbps, quality) for rate, kbps, quality in mean_points(results, codec, column)}
        cells = (points.get(rate) for rate in rates_of(results))
        table.add_row(codec, *("" if cell is None else f"{cell[1]:.2f}\n{cell[0]:.1f}" for cell in cells))
    return table


def comparison_lines(results: dict[str, Any]) -> Iterator[str]:
    """BD figures of our codec, one sentence each."""
    for row in results["comparisons"]:
        if row["codec"] != OURS:
            continue
        where = f" over {row['rates'][0]:g}-{row['rates'][1]:g} kbps" if row["rates"] else ""
        for name, unit in (
            ("bd_rate_percent", f" % rate at equal {row['metric']}"),
            ("bd_quality", f" {row['metric']} at equal rate"),
        ):
            delta = row[name]
            if delta is None:
                text = f"no common range for {row['metric']}"
            else:
                text = f"{delta['mean']:+.2f}{unit}"
                if delta["clips"] > 1:
                    text += f" ({delta['low']:+.2f} to {delta['high']:+.2f}, {delta['clips']} clips)"
            yield f"{OURS} against {row['anchor']}{where}: {text}"
