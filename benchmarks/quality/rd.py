"""`iwcodec bench rd`: rate against quality of every codec on the same pictures, in one run.

What is counted is payload: for iwcodec the sources, motion and container of the file it writes, for the others what
packets would carry (see rivals.py). Each codec is asked for each rate and reported with what it really spent.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from shutil import copyfile
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.demo import coded_sources
from iwcodec.benchmarks.metrics import baselines
from iwcodec.benchmarks.metrics.bdrate import Comparison, compare, frontier
from iwcodec.benchmarks.metrics.margins import Margin, margins
from iwcodec.benchmarks.metrics.scoring import METRICS, USUAL, Scorer, Scores, make_scorer
from iwcodec.benchmarks.quality.cached_runtime import CachedRuntime
from iwcodec.benchmarks.quality.rivals import RivalResult, encode_rival, rival_settings
from iwcodec.codec.cli import console
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import EncodeOptions, frame_input
from iwcodec.codec.file.encode import EncodeReport, encode
from iwcodec.codec.file.iwc_file import IwcFile, filled
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.models.runtime.types import Runtime

RATES = "2,3,4,6,8,12,20,40"
RIVALS = {
    "svtav1": ("svtav1", 1, 1),
    "svtav1-half": ("svtav1", 2, 2),
    "x265": ("x265", 1, 1),
    "vp9": ("vp9", 1, 1),
    "x264": ("x264", 1, 1),
}
"""Name -> codec, shrink, skip. At half the size and frame rate AV1 goes lower than at full size."""
OURS = "iwcodec"
BASELINES = ("copy", "oracle")
"""The nearest source copied, and the best any warp of the sources could do; both from the sources that iwcodec sent.
The copy counts the bytes of the sources, the oracle all that iwcodec spent."""
CODECS = (OURS, *RIVALS, *BASELINES)
ANCHORS = {"svtav1": ("svtav1",), "svtav1, better of full and half": ("svtav1", "svtav1-half")}
"""What BD figures are against -> codecs whose points make up its curve."""
LOW_RATES = (3.0, 12.0)
"""Rates asked for that the second set of BD figures is confined to."""
PICTURES = 3
"""Frames of each clip that --pictures keeps."""

Point = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is to be measured. `folder` is where results go; pictures too, where they are wanted."""

    rates: tuple[float, ...]
    codecs: tuple[str, ...]
    size: int
    crop: str
    folder: Path
    pictures: bool
    threads: int | None = None
    """Of the network."""


@dataclass
class Pool:
    """Points measured before, by frames: the folder of the results they are from, and the point."""

    points: dict[str, list[tuple[Path, Point]]] = field(default_factory=dict)

    def add(self, results: dict[str, Any], folder: Path) -> None:
        for clip in results.get("clips", {}).values():
            self.points.setdefault(clip["frames_digest"], []).extend((folder, point) for point in clip["points"])

    def find(self, frames: str, columns: set[str], **wanted: Any) -> tuple[Path, Point] | None:
        """Of the points with these properties one that has most of these scores, the latest of several."""
        fitting = [
            (folder, point)
            for folder, point in self.points.get(frames, ())
            if all(point[key] == value for key, value in wanted.items())
        ]
        return max(reversed(fitting), key=lambda found: len(columns & found[1]["scores"].keys()), default=None)


@dataclass(frozen=True)
class Stream:
    """A clip as one codec coded it."""

    digest: str
    bytes: dict[str, int]
    pictures: Callable[[], Iterator[Picture]]
    sources: int | None = None


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    rates: Annotated[str, typer.Option(help="Rates to ask for, in kbps.")] = RATES,
    codecs: Annotated[str, typer.Option(help="Which to run.")] = ",".join(CODECS),
    metrics: Annotated[str, typer.Option(help=f"Of {', '.join(METRICS)}; or all.")] = ",".join(USUAL),
    out: Annotated[Path, typer.Option(help="Folder for rd.json, which grows point by point.")] = Path("bench"),
    reuse: Annotated[
        list[Path] | None, typer.Option(help="Results whose points are taken over where nothing differs.")
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="Keep frames of every point, for the report.")] = False,
    size: Annotated[int, typer.Option(help="Pixels a side of the coded square.")] = 256,
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    threads: Annotated[int | None, typer.Option(help="Threads of the network; default as in the codec.", min=1)] = None,
) -> None:
    """Rate against quality: iwcodec, SVT-AV1, x265, VP9 and x264 in low delay, nearest-source copy, flow oracle.

    Stopped and run again, it goes on where it was; what has changed since (weights, settings, pictures) is done anew.
    """
    plan = Plan(parse_rates(rates), parse_codecs(codecs), size, crop, out, pictures, threads)
    scorer = make_scorer(list(METRICS) if metrics == "all" else metrics.split(","))
    for name, reason in scorer.missing.items():
        console.print(Text(f"without {name}:", "yellow"), reason)
    results = run(clips or [sample_clip()], plan, scorer, reuse or [])
    console.print(summary_table(results))
    for line in comparison_lines(results):
        console.print(line)
    console.print(f"Results: {out / 'rd.json'}; `iwcodec bench report {out / 'rd.json'}` draws them.")


def parse_rates(text: str) -> tuple[float, ...]:
    try:
        rates = sorted({float(word) for word in text.split(",")})
    except ValueError as error:
        raise CodecError(f"--rates takes numbers with commas between them, not {text!r}.") from error
    if not all(1 <= rate <= 100_000 for rate in rates):
        raise CodecError("--rates are from 1 to 100000 kbps.")
    return tuple(rates)


def parse_codecs(text: str) -> tuple[str, ...]:
    names = text.split(",")
    unknown = [name for name in names if name not in CODECS]
    if unknown:
        raise CodecError(f"There is no codec {unknown[0]!r}; there are {', '.join(CODECS)}.")
    return tuple(name for name in CODECS if name in names)


def run(clips: Sequence[Path], plan: Plan, scorer: Scorer, reuse: Sequence[Path] = ()) -> dict[str, Any]:
    """Measures what is not yet known and returns the results, which are also in `plan.folder`/rd.json.

    Raises CodecError for a clip that cannot be read or two of one name, and whatever `encode` raises.
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
    runtime = CachedRuntime(load_runtime_for(plan.size, plan.threads))
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
    with _progress(len(clips) * len(plan.rates) * len(plan.codecs)) as tell:
        for clip in clips:
            with _Clip(clip, plan, scorer, pool, runtime) as measured:
                old = results["clips"].get(clip.stem)
                if old is not None and old["frames_digest"] == measured.record["frames_digest"]:
                    measured.record["points"] = old["points"]
                results["clips"][clip.stem] = measured.record
                for codec, rate in ((codec, rate) for rate in plan.rates for codec in plan.codecs):
                    tell(f"{clip.stem[:24]} {codec} {rate:g}")
                    measured.add(codec, rate)
                    experiment.save(results, target)
    results["comparisons"] = comparisons(results)
    experiment.save(results, target)
    return results


def settings(plan: Plan) -> dict[str, Any]:
    """Options of every rival, by the rate asked for."""
    return {
        name: {"shrink": shrink, "skip": skip, "options": {f"{r:g}": rival_settings(codec, r) for r in plan.rates}}
        for name, (codec, shrink, skip) in RIVALS.items()
    }


def still_valid(results: dict[str, Any], plan: Plan, runtime: Runtime) -> dict[str, Any]:
    """The clips of an earlier run with the points that would come out the same again."""
    clips = {}
    for name, clip in results.get("clips", {}).items():
        points = [p for p in clip["points"] if p["recipe"] == recipe(p["codec"], p["asked_kbps"], plan.size, runtime)]
        if points:
            clips[name] = {**clip, "points": points}
    return clips


def recipe(codec: str, rate: float, size: int, runtime: Runtime) -> str:
    """Differs wherever something differs that a point depends on, but for the pictures and the rate."""
    if codec in RIVALS:
        name, shrink, skip = RIVALS[codec]
        text = repr((experiment.versions()["av"], size, shrink, skip, sorted(rival_settings(name, rate).items())))
    else:
        text = repr((experiment.codec_digest(runtime), size))
    return sha256(text.encode()).hexdigest()[:16]


class _Clip:
    """One clip's pictures on disk while it is measured, and what is known of it so far."""

    def __init__(self, path: Path, plan: Plan, scorer: Scorer, pool: Pool, runtime: Runtime) -> None:
        self._path, self._plan, self._scorer, self._pool, self._runtime = path, plan, scorer, pool, runtime

    def __enter__(self) -> "_Clip":
        self._folder = tempfile.TemporaryDirectory()
        video = frame_input(self._path, self._options(), lambda name, share: None)
        self._fps = video.info.fps
        self._originals = _spool(video.pictures(), Path(self._folder.name) / "originals.rgb")
        self._coded: dict[float, tuple[EncodeReport, Path]] = {}
        count = len(self._originals)
        self.record: dict[str, Any] = {
            "frames": count,
            "fps": str(self._fps),
            "seconds": round(count / float(self._fps), 3),
            "frames_digest": sha256(self._originals).hexdigest()[:16],
            "may_be_shown": self._path.resolve() == sample_clip().resolve(),
            "points": [],
        }
        if self._plan.pictures:
            self._keep("original", self._originals)
        return self

    def __exit__(self, *_: object) -> None:
        del self._originals
        self._folder.cleanup()

    def add(self, codec: str, rate: float) -> None:
        """Measures, or takes over, one point."""
        columns, frames = self._scorer.columns, self.record["frames_digest"]
        made = recipe(codec, rate, self._plan.size, self._runtime)
        known = self._pool.find(frames, columns, codec=codec, asked_kbps=rate, recipe=made)
        if known is not None and columns <= known[1]["scores"].keys() and self._take_pictures(*known, known[1]):
            point = known[1]
        else:
            stream = self._stream(codec, rate)
            head = {"codec": codec, "asked_kbps": rate, "recipe": made, "stream": stream.digest}
            point = self._of_stream(head, stream, self._pool.find(frames, columns, codec=codec, stream=stream.digest))
        others = [p for p in self.record["points"] if (p["codec"], p["asked_kbps"]) != (codec, rate)]
        self.record["points"] = sorted([*others, point], key=lambda p: (p["asked_kbps"], CODECS.index(p["codec"])))
        self._pool.points.setdefault(frames, []).append((self._plan.folder, point))

    def _of_stream(self, head: Point, stream: Stream, same: tuple[Path, Point] | None) -> Point:
        """With the scores of the same stream where it was measured before: at their floor encoders repeat, and where a
        metric is added only that one is measured."""
        scores = {} if same is None else same[1]["scores"]
        if same is not None and self._scorer.columns <= scores.keys():
            point = self._point(head, stream, scores)
            if self._take_pictures(*same, point):
                return point
        return self._measure(head, stream, scores)

    def _take_pictures(self, folder: Path, old: Point, new: Point) -> bool:
        """Copies the pictures of a point measured before; False where they are wanted and not there."""
        if not self._plan.pictures:
            return True
        before = _picture_folder(folder, self._path.stem) / picture_name(old)
        now = _picture_folder(self._plan.folder, self._path.stem) / picture_name(new)
        pairs = [(Path(f"{before}-{n}.png"), Path(f"{now}-{n}.png")) for n in range(PICTURES)]
        if not all(source.is_file() for source, _ in pairs):
            return False
        for source, target in pairs:
            if source.resolve() != target.resolve():
                copyfile(source, target)
        return True

    def _measure(self, head: Point, stream: Stream, scores: Scores) -> Point:
        """Adds the scores that are not there yet."""
        decoded = _spool(stream.pictures(), Path(self._folder.name) / "decoded.rgb")
        if len(decoded) != len(self._originals):
            raise RuntimeError(f"{head['codec']} gave {len(decoded)} pictures for {len(self._originals)}")
        scores = self._scorer(self._originals, decoded, float(self._fps), scores)
        point = self._point(head, stream, scores)
        if self._plan.pictures:
            self._keep(picture_name(point), decoded)
        return point

    def _point(self, head: Point, stream: Stream, scores: Scores) -> Point:
        kbps = round(sum(stream.bytes.values()) * 8 / 1000 / self.record["seconds"], 4)
        sources = {} if stream.sources is None else {"sources": stream.sources}
        return {**head, "kbps": kbps, "bytes": stream.bytes, **sources, "scores": scores}

    def _options(self, rate: float | None = None) -> EncodeOptions:
        return EncodeOptions(self._plan.size, kbps=rate, crop=self._plan.crop, audio=False, overwrite=True)

    def _stream(self, codec: str, rate: float) -> Stream:
        if codec in RIVALS:
            name, shrink, skip = RIVALS[codec]
            result = encode_rival(name, self._originals, self._fps, rate, shrink, skip)
            return _rival_stream(result)
        report, file = self._encoded(rate)
        if codec == OURS:
            digest = sha256(file.read_bytes() + experiment.codec_digest(self._runtime).encode()).hexdigest()[:16]
            spent = {kind: report.bytes[kind] for kind in ("sources", "motion", "container")}
            return Stream(digest, spent, lambda: self._decoded(file), report.sources)
        with IwcFile(file, self._runtime) as opened:
            sources = coded_sources(opened)
        digest = sha256(b"".join(source.tobytes() for source in sources)).hexdigest()[:16]
        if codec == "copy":
            spent, function = {"sources": report.bytes["sources"]}, baselines.nearest_copy
            return Stream(digest, spent, lambda: function(self._originals, sources), report.sources)
        spent = {kind: report.bytes[kind] for kind in ("sources", "motion", "container")}
        return Stream(digest, spent, lambda: baselines.flow_oracle(self._originals, sources), report.sources)

    def _encoded(self, rate: float) -> tuple[EncodeReport, Path]:
        if rate not in self._coded:
            file = Path(self._folder.name) / f"{rate:g}.iwc"
            self._coded[rate] = encode(self._path, file, self._options(rate), self._runtime), file
        return self._coded[rate]

    def _decoded(self, file: Path) -> Iterator[Picture]:
        with IwcFile(file, self._runtime) as opened:
            yield from filled(opened.frames(), len(self._originals))

    def _keep(self, name: str, pictures: Sequence[Picture]) -> None:
        folder = _picture_folder(self._plan.folder, self._path.stem)
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(PICTURES):
            picture = pictures[(2 * n + 1) * len(pictures) // (2 * PICTURES)]
            cv2.imwrite(str(folder / f"{name}-{n}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def picture_name(point: Point) -> str:
    """Of the files under pictures/CLIP, before the frame's number."""
    return f"{point['codec']}-{point['asked_kbps']:g}"


def _picture_folder(folder: Path, clip: str) -> Path:
    return folder / "pictures" / clip


def _rival_stream(result: RivalResult) -> Stream:
    return Stream(result.digest, {"video": sum(result.frame_bytes)}, result.pictures)


def _spool(pictures: Iterator[Picture], file: Path) -> Any:
    """The pictures as one array (n, H, W, 3) that lives on disk."""
    count, shape = 0, (0, 0, 3)
    file.unlink(missing_ok=True)
    with file.open("wb") as out:
        for picture in pictures:
            out.write(picture.tobytes())
            count, shape = count + 1, (picture.shape[0], picture.shape[1], 3)
    return np.memmap(file, np.uint8, "r", shape=(count, *shape))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Yields tell(what is begun); each call counts the one before as done."""
    columns = (TextColumn("{task.description:<40}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total)
        begun = 0

        def tell(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, completed=begun)
            begun += 1

        yield tell


def rates_of(results: dict[str, Any]) -> list[float]:
    """All rates asked for."""
    return sorted({point["asked_kbps"] for clip in results["clips"].values() for point in clip["points"]})


def codecs_of(results: dict[str, Any]) -> list[str]:
    """All codecs that there are points of, in the order of CODECS."""
    found = {point["codec"] for clip in results["clips"].values() for point in clip["points"]}
    return [codec for codec in CODECS if codec in found]


def curve(results: dict[str, Any], codecs: Sequence[str], column: str, low: bool = False) -> dict[str, Any]:
    """Clip -> (kbps, quality) points of these codecs together, where the column has a figure."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, clip in results["clips"].items():
        found[name] = [
            (point["kbps"], point["scores"][column])
            for point in clip["points"]
            if point["codec"] in codecs
            and point["scores"].get(column) is not None
            and (not low or LOW_RATES[0] <= point["asked_kbps"] <= LOW_RATES[1])
        ]
    return found


def comparisons(results: dict[str, Any]) -> list[dict[str, Any]]:
    """BD figures of every codec against the ANCHORS, over all rates and over LOW_RATES, for psnr_rgb and vmaf."""
    there = codecs_of(results)
    rows = []
    for anchor, members in ANCHORS.items():
        for column in ("psnr_rgb", "vmaf"):
            for codec in there:
                if codec in members or column not in results["metrics"] or not set(members) <= set(there):
                    continue
                for low in (False, True):
                    row = _compared(curve(results, members, column, low), curve(results, [codec], column, low))
                    if row is not None:
                        rates = list(LOW_RATES) if low else None
                        rows.append({"codec": codec, "anchor": anchor, "metric": column, "rates": rates, **row})
    return rows


def _compared(anchor: dict[str, Any], test: dict[str, Any]) -> dict[str, Any] | None:
    """None where no clip has two useful points of both."""
    enough = [clip for clip in anchor if min(len(frontier(anchor[clip])), len(frontier(test[clip]))) >= 2]
    if not enough:
        return None
    each = {clip: compare({clip: anchor[clip]}, {clip: test[clip]}) for clip in enough}
    together = compare({clip: anchor[clip] for clip in enough}, {clip: test[clip] for clip in enough})
    return {
        "bd_rate_percent": _interval(together, "rate"),
        "bd_quality": _interval(together, "quality"),
        "clips": {clip: [_mean(one, "rate"), _mean(one, "quality")] for clip, one in each.items()},
        "left_out": {
            "too few points": sorted(set(anchor) - set(enough)),
            "no common quality": together.no_common_quality,
            "no common rate": together.no_common_rate,
        },
    }


def _mean(comparison: Comparison, kind: str) -> float | None:
    interval = getattr(comparison, kind)
    return None if interval is None else round(interval.mean, 3)


def _interval(comparison: Comparison, kind: str) -> dict[str, float] | None:
    """Mean and 95 % bootstrap interval over clips."""
    found = getattr(comparison, kind)
    if found is None:
        return None
    return {
        "mean": round(found.mean, 3),
        "low": round(found.low, 3),
        "high": round(found.high, 3),
        "clips": found.count,
    }


def margins_of(results: dict[str, Any], column: str) -> list[Margin]:
    """Of our curve over the better of the last of ANCHORS' codecs that are there, where more is better."""
    ours = {
        name: {
            point["asked_kbps"]: (point["kbps"], point["scores"][column])
            for point in clip["points"]
            if point["codec"] == OURS and point["scores"].get(column) is not None
        }
        for name, clip in results["clips"].items()
    }
    *_, members = ANCHORS.values()
    return margins(ours, [curve(results, [codec], column) for codec in members if codec in codecs_of(results)])


def mean_points(results: dict[str, Any], codec: str, column: str) -> list[tuple[float, float, float]]:
    """(asked, mean kbps, mean quality) over the clips, by the rate asked for; only rates that every clip has."""
    rows = []
    for rate in rates_of(results):
        points = [
            point
            for clip in results["clips"].values()
            for point in clip["points"]
            if point["codec"] == codec and point["asked_kbps"] == rate and point["scores"].get(column) is not None
        ]
        if points and len(points) == len(results["clips"]):
            kbps = float(np.mean([point["kbps"] for point in points]))
            rows.append((rate, kbps, float(np.mean([point["scores"][column] for point in points]))))
    return rows


def summary_table(results: dict[str, Any]) -> Table:
    """kbps spent and dB of every codec at every rate asked for, means over the clips."""
    column = "psnr_rgb" if "psnr_rgb" in results["metrics"] else results["metrics"][0]
    clips = len(results["clips"])
    title = f"{column} over kbps spent, mean of {clips} clip{'s' * (clips > 1)}"
    table = Table(title=title, title_justify="left", padding=(0, 0, 0, 1), show_lines=True)
    table.add_column("asked")
    for rate in rates_of(results):
        table.add_column(f"{rate:g}", justify="right")
    for codec in codecs_of(results):
        found = {rate: (kbps, quality) for rate, kbps, quality in mean_points(results, codec, column)}
        cells = (found.get(rate) for rate in rates_of(results))
        table.add_row(codec, *("" if cell is None else f"{cell[1]:.2f}\n{cell[0]:.1f}" for cell in cells))
    return table


def comparison_lines(results: dict[str, Any]) -> Iterator[str]:
    for row in results["comparisons"]:
        if row["codec"] != OURS:
            continue
        where = f" over {row['rates'][0]:g}-{row['rates'][1]:g} kbps" if row["rates"] else ""
        for name, unit in (
            ("bd_rate_percent", f" % rate at equal {row['metric']}"),
            ("bd_quality", f" {row['metric']} at equal rate"),
        ):
            found = row[name]
            if found is None:
                said = f"no common range for {row['metric']}"
            else:
                said = f"{found['mean']:+.2f}{unit}"
                if found["clips"] > 1:
                    said += f" ({found['low']:+.2f} to {found['high']:+.2f}, {found['clips']} clips)"
            yield f"{OURS} against {row['anchor']}{where}: {said}"
