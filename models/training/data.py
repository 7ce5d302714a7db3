"""Training samples from a folder of clips.

A clip is a video file or a folder of pictures. Its identity, by which samples are drawn, comes from `manifest.csv`
when there is one and otherwise from the layouts that public preprocessing leaves:

- TalkingHead-1KH: `.../VIDEO_0001_S10_E200_L1_T2_R3_B4.mp4`, identity VIDEO;
- VoxCeleb2: `.../id00012/VIDEO/00001.mp4`, or FOMM's `id00012#VIDEO#00001.mp4`, identity id00012;
- TED-talk: `VIDEO#start#end.mp4` (or a folder of pictures of that name), identity VIDEO, at whichever end it stands;
- anything else: the file's own name.

Splits come from the manifest too, or from folders called train, val, dev or test (SPLITS); where there are none of
these, a few identities are held out for validation.

`prepare` decodes each clip once into the cache as a memory-mapped array, and pre-codes its anchors (the frames that
may become sources) as JPEG would harm them; flows are computed when a pair is first drawn and kept beside it.
"""

import csv
import hashlib
import itertools
import os
import re
import uuid
import zlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from iwcodec.models.flow import FLOW_SIZE, GRID, UNSURE, Correspondence, correspond
from iwcodec.models.training.landmarks import LANDMARKS, find_landmarks, seen_through

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".mpg"}
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg"}
FRAMES = 120
"""Frames kept of a clip, evenly spaced."""
ANCHORS = 12
"""Frames of a clip that may be sources, evenly spaced."""

NEAR = 5
"""Frames, of those kept, within which one may be called near another."""

SPLITS = {"train": "train", "dev": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What the folders of public layouts hold. VoxCeleb2's dev is what one trains on; its test, as TED-talk's, stands in
for val where a data set has no val (see `from_layout`)."""
HELD_OUT = 30
"""Where no folder says so, one identity of so many is kept for validation."""
CLIPS_OF_TALKING_HEAD = "cropped_clips"
STEPS_TO_CLIPS = {"raw_videos", "1min_clips"}
"""What TalkingHead-1KH's script leaves beside its clips: the whole videos, and cuts that show more than one head."""

SHORTEST = 8
"""Frames below which a clip, or a stretch of one between cuts, is left out."""


@dataclass(frozen=True)
class Clip:
    name: str
    path: Path
    identity: str
    cut: int | None = None
    """Frame of the one jump cut, if the clip has one: no pair crosses it."""


def find_clips(folder: Path, split: str | None = "train", size: int | None = None) -> list[Clip]:
    """All clips of `split` below `folder` (None: of all splits), by its manifest.csv or else by its layout; of `size`
    pixels where a manifest's folder has such. Raises ValueError when there are none."""
    manifest = folder / "manifest.csv"
    clips = from_manifest(folder, split, size) if manifest.exists() else from_layout(folder, split)
    if not clips:
        raise ValueError(f"no clips found in {folder}" + (f" for {split}" if split else ""))
    return clips


def from_manifest(folder: Path, split: str | None, size: int | None = None) -> list[Clip]:
    """Clips are `clips/ID.mp4`. Those that are also there in another size are `clips512/ID.mp4`, say."""
    sized = folder / f"clips{size}"
    there = {path.stem for path in sized.glob("*.mp4")}
    cuts = {}
    if (folder / "jumpcuts.csv").exists():
        with (folder / "jumpcuts.csv").open(newline="") as rows:
            cuts = {row["id"]: int(row["frame"]) for row in csv.DictReader(rows)}
    with (folder / "manifest.csv").open(newline="") as rows:
        return [
            Clip(
                row["id"],
                (sized if there else folder / "clips") / f"{row['id']}.mp4",
                row["identity"],
                cuts.get(row["id"]),
            )
            for row in csv.DictReader(rows)
            if (split is None or row["split"] == split) and (not there or row["id"] in there)
        ]


def from_layout(folder: Path, split: str | None = None) -> list[Clip]:
    """Clips of `split`, or all. Where folders say train and test, but not val, test is what validates; where no folder
    says anything, or there is train alone, a few identities of what there is are held out of it. No identity is in
    train if it is in another split."""
    found = sorted(clip_paths(folder))
    clips = [Clip(str(p.relative_to(folder)), p, identity_of(p.relative_to(folder))) for p in found]
    if split is None:
        return clips
    splits = splits_of([(clip.identity, named_split(Path(clip.name))) for clip in clips])
    return [clip for clip, its in zip(clips, splits, strict=True) if its == split]


def clip_paths(folder: Path) -> set[Path]:
    """Videos and folders of pictures below `folder`, without the steps that TalkingHead-1KH's script left."""
    found: set[Path] = set()
    with_clips: set[Path] = set()
    for path in folder.rglob("*"):
        if path.name == CLIPS_OF_TALKING_HEAD and path.is_dir():
            with_clips.add(path.parent)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            found.add(path.parent)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            found.add(path)
    steps = {parent / name for parent in with_clips for name in STEPS_TO_CLIPS}
    return {path for path in found if path.is_relative_to(folder) and not steps & {path, *path.parents}}


def named_split(path: Path) -> str | None:
    """What the innermost folder named after a split says; `path` is relative to the data folder."""
    named = (SPLITS.get(part.lower()) for part in reversed(path.parts[:-1]))
    return next((split for split in named if split), None)


def splits_of(clips: list[tuple[str, str | None]]) -> list[str]:
    """Identities of clips, and the splits that their folders name -> the splits they are in; see `from_layout`."""
    named = {split for _, split in clips if split}
    to_val = {"test"} if "test" in named and "val" not in named else set()
    given = [(identity, "val" if split in to_val else split or "train") for identity, split in clips]
    if named <= {"train"}:
        apart = held_out({identity for identity, _ in given})
        return ["val" if identity in apart else split for identity, split in given]
    kept = {identity: split for identity, split in given if split != "train"}
    return [kept.get(identity, "train") if split == "train" else split for identity, split in given]


def held_out(identities: set[str]) -> set[str]:
    """About one of HELD_OUT, the same ones whenever asked, at least one of several and never all."""
    by_hash = sorted(identities, key=lambda identity: (zlib.crc32(identity.encode()), identity))
    chosen = {identity for identity in by_hash if zlib.crc32(identity.encode()) < 2**32 // HELD_OUT}
    if len(identities) < 2:
        return set()
    return chosen if chosen and chosen != identities else {by_hash[0]}


def identity_of(path: Path) -> str:
    """Identity by the layouts named above; `path` is relative to the data folder."""
    voxceleb = re.search(r"(?:^|/)(id\d{5})(?:/|#)", path.as_posix())
    if voxceleb:
        return voxceleb[1]
    talking_head = re.match(r"(.+?)_\d{4}_S\d+_E\d+", path.name)
    if talking_head:
        return talking_head[1]
    parts = path.stem.split("#")
    # Frame numbers are digits alone, which ids of YouTube all but never are.
    return next((part for part in (parts[0], parts[-1]) if part and not part.isdecimal()), parts[0])


def count_frames(path: Path) -> int:
    """Of a video file, which is decoded for it (what files say of themselves is not to be relied on), or of a folder of
    pictures."""
    if path.is_dir():
        return len(pictures_in(path))
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def read_frames(path: Path, wanted: Container[int] | None = None) -> Iterator[NDArray[np.uint8]]:
    """RGB frames of a video file or of a folder of pictures; of these numbers alone, where there are some.

    Raises ValueError or OSError for what is no video or picture."""
    if path.is_dir():
        for number, picture in enumerate(pictures_in(path)):
            if wanted is None or number in wanted:
                yield read_picture(picture)
        return
    import av

    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if wanted is None or number in wanted:
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)


def read_picture(path: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path} is not a picture that can be read")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def evenly_spaced(count: int, most: int) -> list[int]:
    """Numbers of up to `most` of `count` frames, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Centre square, resized."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = picture[top : top + side, left : left + side]
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) if side != size else picture


@dataclass(frozen=True)
class Mapped:
    """A memory-mapped array by its file."""

    file: str

    def open(self, writable: bool) -> NDArray[np.uint8]:
        return np.load(self.file, mmap_mode="r+" if writable else "r")


@dataclass
class PreparedClip:
    clip: Clip
    frames: NDArray[np.uint8]  # (n, size, size, 3), memory-mapped
    small: NDArray[np.uint8]  # (n, FLOW_SIZE, FLOW_SIZE, 3), memory-mapped
    anchors: list[int]
    flows: NDArray[np.uint8]  # (n, anchors, GRID, GRID, 5), memory-mapped: float16 x, y and error
    known: NDArray[np.uint8]  # (n, anchors)
    landmarks: NDArray[np.float32]  # (n, P, 3), NaN where nothing is known
    groups: list[range]
    """Runs of frames without a cut between them."""

    def __getstate__(self) -> dict[str, Any]:
        """For loader processes: memory-mapped arrays go by name, not by value."""
        return {k: Mapped(str(v.filename)) if isinstance(v, np.memmap) else v for k, v in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            writable = name in ("flows", "known")
            setattr(self, name, value.open(writable) if isinstance(value, Mapped) else value)

    def correspondence(self, frame: int, anchor: int) -> Correspondence:
        """From the cache, or computed now and kept (two workers may both compute: same bytes)."""
        if self.known[frame, anchor]:
            packed = np.ascontiguousarray(self.flows[frame, anchor])
            return Correspondence(packed[..., :4].copy().view(np.float16), packed[..., 4])
        found = correspond(self.small[frame], self.small[self.anchors[anchor]])
        self.flows[frame, anchor, ..., :4] = found.shift.view(np.uint8)
        self.flows[frame, anchor, ..., 4] = found.error
        self.known[frame, anchor] = 1
        return found


def identity(path: Path) -> str:
    """Of a file as it is now: another folder's clip of the same name is another one, and so is what replaced it."""
    found = path.stat()
    return hashlib.sha256(f"{path.resolve()} {found.st_size} {found.st_mtime_ns}".encode()).hexdigest()[:20]


def prepare(clip: Clip, cache: Path, size: int) -> PreparedClip | None:
    """Decode into the cache unless it is there; None when the clip has too few frames to pair. Other processes may be
    doing the same."""
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"{identity(clip.path)}-{size}"
    file, index = cache / f"{stem}.npy", cache / f"{stem}.idx.npy"
    if not (file.exists() and index.exists()):
        keep = evenly_spaced(count_frames(clip.path), FRAMES)
        if len(keep) < SHORTEST:
            return None
        publish(file, lambda partial: save_frames(partial, clip.path, keep, size))
        publish(index, lambda partial: np.save(partial, np.array(keep)))
    frames_map = np.load(file, mmap_mode="r")
    count = len(frames_map)
    if count < SHORTEST:
        return None
    anchors = evenly_spaced(count, ANCHORS)
    shape = (count, len(anchors), GRID, GRID, 5)
    flows = cached_array(cache / f"{stem}.flow.npy", shape)
    known = cached_array(cache / f"{stem}.known.npy", shape[:2])
    small = cached_shrunk(cache / f"{stem}.small.npy", frames_map)
    landmarks = cached_landmarks(cache / f"{stem}.landmarks.npy", frames_map)
    groups = [range(count)]
    if clip.cut is not None:
        after = int(np.searchsorted(np.load(index), clip.cut))
        groups = [g for g in (range(after), range(after, count)) if len(g) >= SHORTEST and any(a in g for a in anchors)]
    return PreparedClip(clip, frames_map, small, anchors, flows, known, landmarks, groups)


def publish(path: Path, write: Callable[[Path], None]) -> None:
    """Have a file written that other processes may be writing too: under a name of its own, then put in place whole.
    The first one stays, because it may be mapped already, and written to."""
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.partial.npy")
    try:
        write(partial)
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save_frames(file: Path, clip: Path, keep: list[int], size: int) -> None:
    """Frame by frame: whole clips of many seconds do not fit into memory."""
    frames = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(len(keep), size, size, 3))
    for row, picture in zip(frames, read_frames(clip, set(keep)), strict=True):
        row[:] = square(picture, size)
    frames.flush()


def cached_shrunk(path: Path, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames at FLOW_SIZE: flows and small training pictures need no more, and area resizing takes long."""
    if not path.exists():
        publish(path, lambda partial: np.save(partial, np.stack([square(picture, FLOW_SIZE) for picture in frames])))
    return np.load(path, mmap_mode="r")


def cached_landmarks(path: Path, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Landmarks (n, P, 3), found once; all NaN, and nothing kept, where they cannot be looked for."""
    if path.exists():
        return np.load(path)
    found = find_landmarks(frames)
    if found is None:
        return np.full((len(frames), len(LANDMARKS), 3), np.nan, np.float32)
    publish(path, lambda partial: np.save(partial, found))
    return found


def cached_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A writable memory-mapped uint8 array, created as zeros (sparse on disk)."""

    def zeros(partial: Path) -> None:
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape).flush()

    if not path.exists():
        publish(path, zeros)
    return np.load(path, mmap_mode="r+")


@dataclass(frozen=True)
class SamplePlan:
    """What a batch looks like."""

    size: int
    groups: int
    """Clips in a batch."""
    driving: int
    """Driving frames of each, sharing the sources."""
    max_sources: int = 4
    zoom: float = 0.3
    """Largest share of the side that cropping takes away."""
    wander: float = 0.06
    """Largest extra shift and scale of each picture on its own."""
    coded: float = 0.5
    """Chance that the sources of a sample carry compression damage."""
    near: float = 0.0
    """Chance that the driving frames lie within NEAR frames of a source, through the same window: a speaker who sits
    still, or whom a source already shows, must be left as he is."""


class Samples(IterableDataset[dict[str, Tensor]]):
    """Endless batches: clips drawn by identity, sources far apart in time, all augmented alike.

    Yields float pictures `driving` (B, D, 3, H, W), `sources` (B, S, 3, H, W) in 0..1, `shift` (B, D, S, GRID, GRID, 2)
    and `error` (B, D, S, GRID, GRID): grey levels, UNSURE where the flow is not to be trusted; `driving_landmarks`
    (B, D, P, 3) and `source_landmarks` (B, S, P, 3), NaN where unknown.

    Batch n follows from the seed and n alone, however many processes load: a run that goes on with batch `first` sees
    what it would have seen.
    """

    def __init__(self, clips: list[PreparedClip], plan: SamplePlan, seed: int, first: int = 0) -> None:
        by_identity: dict[str, list[PreparedClip]] = {}
        for clip in clips:
            by_identity.setdefault(clip.clip.identity, []).append(clip)
        self.identities = list(by_identity.values())
        self.plan = plan
        self.seed = seed
        self.first = first

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        cv2.setNumThreads(1)
        # An identity with many clips counts for more, but only by the square root of their number.
        odds = np.sqrt([len(clips) for clips in self.identities])
        odds /= odds.sum()
        # DataLoader takes one batch of each process in turn.
        own, every = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in itertools.count(self.first + own, every):
            rng = np.random.default_rng([self.seed, number])
            sources = int(rng.integers(1, self.plan.max_sources + 1))
            samples: list[dict[str, Any]] = []
            while len(samples) < self.plan.groups:
                clips = self.identities[rng.choice(len(odds), p=odds)]
                sample = self.draw(clips[rng.integers(len(clips))], sources, rng)
                if sample is not None:
                    samples.append(sample)
            yield {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}

    def draw(self, clip: PreparedClip, sources: int, rng: np.random.Generator) -> dict[str, Any] | None:
        group = clip.groups[rng.integers(len(clip.groups))]
        anchors = [i for i, frame in enumerate(clip.anchors) if frame in group]
        if len(anchors) < sources:
            return None
        chosen = spread(anchors, sources, rng)
        near = rng.random() < self.plan.near
        around = [f for f in group if abs(f - clip.anchors[chosen[0]]) <= NEAR] if near else group
        frames = rng.choice(around, size=self.plan.driving, replace=len(around) < self.plan.driving)
        mirror = bool(rng.integers(2))
        colour = colour_change(rng)
        window = random_window(self.plan.zoom, rng)
        wander = 0.0 if near else self.plan.wander
        views_d = [jitter_window(window, wander, rng) for _ in frames]
        views_s = [jitter_window(window, wander, rng) for _ in chosen]
        damage = int(rng.integers(15, 50)) if rng.random() < self.plan.coded else None
        shown = clip.small if self.plan.size <= FLOW_SIZE else clip.frames
        pictures = [self.view(shown[f], v, mirror, colour, None) for f, v in zip(frames, views_d, strict=True)]
        anchors_seen = [
            self.view(shown[clip.anchors[a]], v, mirror, colour, damage) for a, v in zip(chosen, views_s, strict=True)
        ]
        matches = [
            [
                view_correspondence(clip.correspondence(int(f), a), vd, vs, mirror)
                for a, vs in zip(chosen, views_s, strict=True)
            ]
            for f, vd in zip(frames, views_d, strict=True)
        ]
        return {
            "driving": np.stack(pictures),
            "sources": np.stack(anchors_seen),
            "driving_landmarks": np.stack(
                [seen_through(clip.landmarks[f], v, mirror) for f, v in zip(frames, views_d, strict=True)]
            ),
            "source_landmarks": np.stack(
                [seen_through(clip.landmarks[clip.anchors[a]], v, mirror) for a, v in zip(chosen, views_s, strict=True)]
            ),
            "shift": np.stack([np.stack([m[0] for m in row]) for row in matches]),
            "error": np.stack([np.stack([m[1] for m in row]) for row in matches]),
        }

    def view(
        self,
        picture: NDArray[np.uint8],
        window: NDArray[np.float32],
        mirror: bool,
        colour: NDArray[np.float32],
        damage: int | None,
    ) -> NDArray[np.float32]:
        """A window (cx, cy, half) of a picture in [-1, 1] units -> float32 (3, size, size)."""
        size, side = self.plan.size, picture.shape[0]
        scale = window[2] * side / size
        origin = (window[:2] - window[2] + 1) * side / 2
        matrix = np.array([[scale, 0, origin[0] + 0.5 * scale - 0.5], [0, scale, origin[1] + 0.5 * scale - 0.5]])
        source = picture
        if scale >= 1.5:  # shrink by area first: plain bilinear sampling would alias
            shrink = int(scale + 0.5)
            source = cv2.resize(picture, (side // shrink, side // shrink), interpolation=cv2.INTER_AREA)
            matrix = np.array(
                [
                    [scale / shrink, 0, (matrix[0, 2] + 0.5) / shrink - 0.5],
                    [0, scale / shrink, (matrix[1, 2] + 0.5) / shrink - 0.5],
                ]
            )
        out = cv2.warpAffine(
            source,
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        if damage is not None:
            out = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, damage])[1], cv2.IMREAD_COLOR)
        values = out.astype(np.float32) * (colour[0] / 255) + colour[1]
        if mirror:
            values = values[:, ::-1]
        return np.ascontiguousarray(values.clip(0, 1).transpose(2, 0, 1))


def spread(anchors: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """`count` of the anchors, one from each of `count` equal stretches of time, in random order."""
    edges = np.linspace(0, len(anchors), count + 1).round().astype(int)
    chosen = [anchors[rng.integers(a, b)] for a, b in itertools.pairwise(edges)]
    return [chosen[i] for i in rng.permutation(count)]


def colour_change(rng: np.random.Generator) -> NDArray[np.float32]:
    """Per-channel gain and offset (2, 3), the same for all pictures of a sample."""
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    return np.stack([gain, np.full(3, rng.uniform(-0.06, 0.06))]).astype(np.float32)


def random_window(zoom: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(cx, cy, half side) of a crop in [-1, 1] units."""
    half = 1 - rng.uniform(0, zoom)
    centre = rng.uniform(-(1 - half), 1 - half, 2)
    return np.array([*centre, half], np.float32)


def jitter_window(window: NDArray[np.float32], wander: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A small camera move of its own for one picture, half of the time."""
    if rng.random() < 0.5:
        return window
    moved = window + np.array([*rng.uniform(-wander, wander, 2), 0], np.float32)
    moved[2] *= 1 + rng.uniform(-wander, wander)
    return moved.astype(np.float32)


def view_correspondence(
    match: Correspondence, driving: NDArray[np.float32], source: NDArray[np.float32], mirror: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A correspondence of whole frames, as the two windows see it: shift (GRID, GRID, 2), error (GRID, GRID)."""
    axis = (np.arange(GRID, dtype=np.float32) + 0.5) * (2 / GRID) - 1
    own = np.stack(np.meshgrid(axis, axis), axis=-1)
    in_frame = driving[:2] + driving[2] * own
    at = ((in_frame + 1) * (GRID / 2) - 0.5).astype(np.float32)
    shift = cv2.remap(
        match.shift.astype(np.float32),
        at[..., 0],
        at[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    error = cv2.remap(
        match.error,
        at[..., 0],
        at[..., 1],
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=UNSURE,
    )
    place = (in_frame + shift - source[:2]) / source[2]
    outside = (np.abs(place) > 1).any(-1) | (np.abs(in_frame) > 1).any(-1)
    error = np.where(outside, UNSURE, error).astype(np.float32)
    shift = (place - own).astype(np.float32)
    if mirror:
        shift, error = shift[:, ::-1] * np.array([-1, 1], np.float32), error[:, ::-1]
    return np.ascontiguousarray(shift), np.ascontiguousarray(error)
