"""Finding clips, their identities and their splits in a data folder.

A clip is a video file or a folder of pictures. Its identity comes from `manifest.csv` if there is one, and otherwise
from the layouts of public data sets:

- TalkingHead-1KH: `.../VIDEO_0001_S10_E200_L1_T2_R3_B4.mp4`, identity VIDEO;
- VoxCeleb2: `.../id00012/VIDEO/00001.mp4`, or FOMM's `id00012#VIDEO#00001.mp4`, identity id00012;
- TED-talk: `VIDEO#start#end.mp4` or `start#end#VIDEO.mp4` (or a folder of pictures of that name), identity VIDEO;
- anything else: the name of the file.

Splits come from the manifest, or from folders named as in SPLITS. Without either, a few identities are held out for
validation.
"""

import csv
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from iwcodec.models.training.data.frames import PICTURE_SUFFIXES

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".mpg"}
"""Suffixes of video files, in lower case."""
SPLITS = {"train": "train", "dev": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Folder names of public data sets and the splits they contain. VoxCeleb2 calls its training split dev."""
HELD_OUT = 30
"""Without named splits, one in this many identities is held out for validation."""
TALKING_HEAD_CLIPS = "cropped_clips"
"""Folder into which TalkingHead-1KH's script writes the clips."""
TALKING_HEAD_INTERMEDIATE = {"raw_videos", "1min_clips"}
"""Folders of intermediate results of that script: whole videos, and cuts that show more than one head."""


@dataclass(frozen=True)
class Clip:
    """A clip of a data folder."""

    name: str
    path: Path
    identity: str
    cut: int | None = None
    """Frame number of the clip's jump cut, if it has one; no sample crosses it."""


def find_clips(folder: Path, split: str | None = "train", size: int | None = None) -> list[Clip]:
    """Find the clips of `split`, or of all splits with None, by the folder's manifest.csv or else by its layout.

    A folder with a manifest may hold its clips in several sizes; `size` prefers clips of that many pixels. Raises
    ValueError if there are none."""
    manifest = folder / "manifest.csv"
    clips = from_manifest(folder, split, size) if manifest.exists() else from_layout(folder, split)
    if not clips:
        raise ValueError(f"no clips found in {folder}" + (f" for {split}" if split else ""))
    return clips


def from_manifest(folder: Path, split: str | None, size: int | None = None) -> list[Clip]:
    """Clips listed in manifest.csv: `clipsSIZE/ID.mp4` if that folder has any, else `clips/ID.mp4`. Frame numbers of
    jump cuts come from jumpcuts.csv."""
    sized = folder / f"clips{size}"
    available = {path.stem for path in sized.glob("*.mp4")}
    cuts = {}
    if (folder / "jumpcuts.csv").exists():
        with (folder / "jumpcuts.csv").open(newline="") as rows:
            cuts = {row["id"]: int(row["frame"]) for row in csv.DictReader(rows)}
    with (folder / "manifest.csv").open(newline="") as rows:
        return [
            Clip(
                row["id"],
                (sized if available else folder / "clips") / f"{row['id']}.mp4",
                row["identity"],
                cuts.get(row["id"]),
            )
            for row in csv.DictReader(rows)
            if (split is None or row["split"] == split) and (not available or row["id"] in available)
        ]


def from_layout(folder: Path, split: str | None = None) -> list[Clip]:
    """Clips of `split`, or all, by the layout of the folder.

    A data set with train and test but no val validates on test. If there is only train, or no folder names a split, a
    few identities are held out for val. An identity that occurs in another split is excluded from train."""
    paths = sorted(clip_paths(folder))
    clips = [Clip(str(p.relative_to(folder)), p, identity_of(p.relative_to(folder))) for p in paths]
    if split is None:
        return clips
    splits = assign_splits([(clip.identity, split_from_path(Path(clip.name))) for clip in clips])
    return [clip for clip, clip_split in zip(clips, splits, strict=True) if clip_split == split]


def clip_paths(folder: Path) -> set[Path]:
    """Videos and folders of pictures below `folder`, without the intermediate results of TalkingHead-1KH's script."""
    paths: set[Path] = set()
    with_clips: set[Path] = set()
    for path in folder.rglob("*"):
        if path.name == TALKING_HEAD_CLIPS and path.is_dir():
            with_clips.add(path.parent)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            paths.add(path.parent)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            paths.add(path)
    excluded = {parent / name for parent in with_clips for name in TALKING_HEAD_INTERMEDIATE}
    return {path for path in paths if path.is_relative_to(folder) and not excluded & {path, *path.parents}}


def split_from_path(path: Path) -> str | None:
    """Return the split named by the innermost such folder, or None; `path` is relative to the data folder."""
    named = (SPLITS.get(part.lower()) for part in reversed(path.parts[:-1]))
    return next((split for split in named if split), None)


def assign_splits(clips: list[tuple[str, str | None]]) -> list[str]:
    """Assign splits by the rules of `from_layout` to clips given as (identity, split named by a folder or None)."""
    named = {split for _, split in clips if split}
    to_val = {"test"} if "test" in named and "val" not in named else set()
    given = [(identity, "val" if split in to_val else split or "train") for identity, split in clips]
    if named <= {"train"}:
        validation = held_out({identity for identity, _ in given})
        return ["val" if identity in validation else split for identity, split in given]
    kept = {identity: split for identity, split in given if split != "train"}
    return [kept.get(identity, "train") if split == "train" else split for identity, split in given]


def held_out(identities: set[str]) -> set[str]:
    """Choose about one in HELD_OUT identities by hash: always the same ones, at least one of several and never all."""
    by_hash = sorted(identities, key=lambda identity: (zlib.crc32(identity.encode()), identity))
    chosen = {identity for identity in by_hash if zlib.crc32(identity.encode()) < 2**32 // HELD_OUT}
    if len(identities) < 2:
        return set()
    return chosen if chosen and chosen != identities else {by_hash[0]}


def identity_of(path: Path) -> str:
    """Identity of a clip by the layouts above; `path` is relative to the data folder."""
    voxceleb = re.search(r"(?:^|/)(id\d{5})(?:/|#)", path.as_posix())
    if voxceleb:
        return voxceleb[1]
    talking_head = re.match(r"(.+?)_\d{4}_S\d+_E\d+", path.name)
    if talking_head:
        return talking_head[1]
    parts = path.stem.split("#")
    # Frame numbers consist of digits alone; YouTube IDs practically never do.
    return next((part for part in (parts[0], parts[-1]) if part and not part.isdecimal()), parts[0])
