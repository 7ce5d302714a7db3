"""One clip of `bench rd`: code it with a codec at a target rate, decode it and score it, or reuse an earlier point."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from shutil import copyfile
from typing import Any

import cv2
import numpy as np

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.metrics.lip_sync import levels
from iwcodec.benchmarks.metrics.scoring import Clip, Scorer, Scores
from iwcodec.benchmarks.quality.baselines import coded_sources, flow_oracle, nearest_copy
from iwcodec.benchmarks.quality.rd_results import CODECS, OURS, OURS_FACE, RIVALS, Point
from iwcodec.benchmarks.quality.rivals import encode_rival, rival_settings
from iwcodec.codec.cli.doctor import versions
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.encode import EncodeReport, encode
from iwcodec.codec.file.iwc_file import IwcFile, fill_gaps
from iwcodec.codec.file.options import EncodeOptions, Tune
from iwcodec.codec.media.audio.samples import read_samples
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.models.runtime.types import Runtime

KEPT_PICTURES = 3
"""Number of frames of each clip and point that --pictures keeps for the report."""


@dataclass(frozen=True)
class Plan:
    """What to measure. Results, and pictures if requested, are written to `folder`."""

    rates: tuple[float, ...]
    """Target rates in kbps."""
    codecs: tuple[str, ...]
    size: int
    """Pixels a side of the coded square."""
    crop: str
    folder: Path
    pictures: bool
    threads: int | None = None
    """Threads of the network."""


@dataclass
class Pool:
    """Points measured earlier, by digest of the clip's frames: the folder of their results file, and the point."""

    points: dict[str, list[tuple[Path, Point]]] = field(default_factory=dict)

    def add(self, results: dict[str, Any], folder: Path) -> None:
        for clip in results.get("clips", {}).values():
            self.points.setdefault(clip["frames_digest"], []).extend((folder, point) for point in clip["points"])

    def find(self, frames_digest: str, columns: set[str], **properties: Any) -> tuple[Path, Point] | None:
        """Of the points with these properties the one with most of the scores `columns`, and the latest of equals."""
        matching = [
            (folder, point)
            for folder, point in self.points.get(frames_digest, ())
            if all(point[key] == value for key, value in properties.items())
        ]
        return max(reversed(matching), key=lambda match: len(columns & match[1]["scores"].keys()), default=None)


@dataclass(frozen=True)
class Stream:
    """A clip as one codec coded it."""

    digest: str
    """Identifies the decoded pictures."""
    bytes: dict[str, int]
    pictures: Callable[[], Iterator[Picture]]
    sources: int | None = None


def recipe(codec: str, rate: float, size: int, runtime: Runtime) -> str:
    """Digest of everything that a point depends on, except the clip and (for our codec) the target rate."""
    if codec in RIVALS:
        name, shrink, skip = RIVALS[codec]
        text = repr((versions()["av"], size, shrink, skip, sorted(rival_settings(name, rate).items())))
    else:
        text = repr((experiment.codec_digest(runtime), size))
    return sha256(text.encode()).hexdigest()[:16]


def picture_name(point: Point) -> str:
    """Stem of a point's picture files under pictures/CLIP, without the frame number."""
    return f"{point['codec']}-{point['asked_kbps']:g}"


class MeasuredClip:
    """A clip while it is measured: its pictures on disk (in a temporary folder), and its `record` of results."""

    def __init__(self, path: Path, plan: Plan, scorer: Scorer, pool: Pool, runtime: Runtime) -> None:
        self._path, self._plan, self._scorer, self._pool, self._runtime = path, plan, scorer, pool, runtime

    def __enter__(self) -> "MeasuredClip":
        self._folder = tempfile.TemporaryDirectory()
        video = open_footage(self._path, self._options(), lambda name, share: None)
        self._fps = video.info.fps
        self._originals = _on_disk(video.pictures(), Path(self._folder.name) / "originals.rgb")
        self._levels = levels(read_samples(self._path), len(self._originals), float(self._fps))
        self._coded: dict[tuple[float, Tune], tuple[EncodeReport, Path]] = {}
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
            self._write_pictures("original", self._originals)
        return self

    def __exit__(self, *_: object) -> None:
        del self._originals
        self._folder.cleanup()

    def add(self, codec: str, rate: float) -> None:
        """Add one point to the record, measured or reused."""
        columns, frames = self._scorer.columns, self.record["frames_digest"]
        made_by = recipe(codec, rate, self._plan.size, self._runtime)
        known = self._pool.find(frames, columns, codec=codec, asked_kbps=rate, recipe=made_by)
        if known is not None and columns <= known[1]["scores"].keys() and self._copy_pictures(*known, known[1]):
            point = known[1]
        else:
            stream = self._stream(codec, rate)
            head = {"codec": codec, "asked_kbps": rate, "recipe": made_by, "stream": stream.digest}
            same = self._pool.find(frames, columns, codec=codec, stream=stream.digest)
            point = self._score_stream(head, stream, same)
        others = [p for p in self.record["points"] if (p["codec"], p["asked_kbps"]) != (codec, rate)]
        self.record["points"] = sorted([*others, point], key=lambda p: (p["asked_kbps"], CODECS.index(p["codec"])))
        self._pool.points.setdefault(frames, []).append((self._plan.folder, point))

    def _score_stream(self, head: Point, stream: Stream, same: tuple[Path, Point] | None) -> Point:
        """Score a stream; scores of an identical stream (`same`) are reused.

        Below their lowest rate encoders repeat the same stream, and an added metric is the only one to compute.
        """
        scores = {} if same is None else same[1]["scores"]
        if same is not None and self._scorer.columns <= scores.keys():
            point = self._point(head, stream, scores)
            if self._copy_pictures(*same, point):
                return point
        return self._measure(head, stream, scores)

    def _copy_pictures(self, folder: Path, old: Point, new: Point) -> bool:
        """Copy the pictures of a reused point; False if they are requested and missing."""
        if not self._plan.pictures:
            return True
        before = _picture_folder(folder, self._path.stem) / picture_name(old)
        now = _picture_folder(self._plan.folder, self._path.stem) / picture_name(new)
        pairs = [(Path(f"{before}-{n}.png"), Path(f"{now}-{n}.png")) for n in range(KEPT_PICTURES)]
        if not all(source.is_file() for source, _ in pairs):
            return False
        for source, target in pairs:
            if source.resolve() != target.resolve():
                copyfile(source, target)
        return True

    def _measure(self, head: Point, stream: Stream, scores: Scores) -> Point:
        """Decode the stream and add the scores that `scores` lacks."""
        decoded = _on_disk(stream.pictures(), Path(self._folder.name) / "decoded.rgb")
        if len(decoded) != len(self._originals):
            raise RuntimeError(f"{head['codec']} gave {len(decoded)} pictures for {len(self._originals)}")
        scores = self._scorer(Clip(self._originals, decoded, float(self._fps), self._levels), scores)
        point = self._point(head, stream, scores)
        if self._plan.pictures:
            self._write_pictures(picture_name(point), decoded)
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
            return Stream(result.digest, {"video": sum(result.frame_bytes)}, result.pictures)
        report, file = self._encoded(rate, "face" if codec == OURS_FACE else "psnr")
        spent = {kind: report.bytes[kind] for kind in ("sources", "motion", "container")}
        if codec in (OURS, OURS_FACE):
            digest = sha256(file.read_bytes() + experiment.codec_digest(self._runtime).encode()).hexdigest()[:16]
            return Stream(digest, spent, lambda: self._decoded(file), report.sources)
        with IwcFile(file, self._runtime) as opened:
            sources = coded_sources(opened)
        digest = sha256(b"".join(source.tobytes() for source in sources)).hexdigest()[:16]
        if codec == "copy":
            only_sources = {"sources": spent["sources"]}
            return Stream(digest, only_sources, lambda: nearest_copy(self._originals, sources), report.sources)
        return Stream(digest, spent, lambda: flow_oracle(self._originals, sources), report.sources)

    def _encoded(self, rate: float, tune: Tune) -> tuple[EncodeReport, Path]:
        """Our codec's file at a target rate, encoded once for the codec and its baselines."""
        if (rate, tune) not in self._coded:
            file = Path(self._folder.name) / f"{tune}-{rate:g}.iwc"
            options = replace(self._options(rate), tune=tune)
            self._coded[rate, tune] = encode(self._path, file, options, self._runtime), file
        return self._coded[rate, tune]

    def _decoded(self, file: Path) -> Iterator[Picture]:
        with IwcFile(file, self._runtime) as opened:
            yield from fill_gaps(opened.frames(), len(self._originals))

    def _write_pictures(self, name: str, pictures: Sequence[Picture]) -> None:
        folder = _picture_folder(self._plan.folder, self._path.stem)
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(KEPT_PICTURES):
            picture = pictures[(2 * n + 1) * len(pictures) // (2 * KEPT_PICTURES)]
            cv2.imwrite(str(folder / f"{name}-{n}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _picture_folder(folder: Path, clip: str) -> Path:
    return folder / "pictures" / clip


def _on_disk(pictures: Iterator[Picture], file: Path) -> Any:
    """Write the pictures to a file and map it as one array (n, H, W, 3)."""
    count, shape = 0, (0, 0, 3)
    file.unlink(missing_ok=True)
    with file.open("wb") as out:
        for picture in pictures:
            out.write(picture.tobytes())
            count, shape = count + 1, (picture.shape[0], picture.shape[1], 3)
    return np.memmap(file, np.uint8, "r", shape=(count, *shape))
