"""Preparing clips: each is decoded once into arrays in the cache, which are read through memory maps.

Optical flow is computed when a pair of frames is first sampled, and kept in the cache. Several processes may prepare
the same clips at once. Nothing is written through a memory map: on a full disk that kills the process (SIGBUS).
"""

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.models.flow import FLOW_SIZE, GRID, Correspondence, correspond
from iwcodec.models.training.data.clips import Clip
from iwcodec.models.training.data.frames import count_frames, evenly_spaced, read_frames, square
from iwcodec.models.training.data.landmarks import LANDMARKS, find_landmarks

FRAMES = 120
"""Largest number of frames kept of a clip, evenly spaced."""
ANCHORS = 12
"""Largest number of frames of a clip that may be sources (anchors), evenly spaced."""
SHORTEST = 8
"""Fewest frames of a clip, or of a part of it between cuts, that is used."""


@dataclass(frozen=True)
class Mapped:
    """A reference to a memory-mapped array by its file name, for pickling."""

    file: str

    def open(self) -> NDArray[np.uint8]:
        """Map the array again."""
        return np.load(self.file, mmap_mode="r")


@dataclass
class PreparedClip:
    """A clip in the cache: n frames and their flows to the anchors."""

    clip: Clip
    frames: NDArray[np.uint8]  # (n, size, size, 3), memory-mapped
    small: NDArray[np.uint8]  # (n, FLOW_SIZE, FLOW_SIZE, 3), memory-mapped
    anchors: list[int]
    flows: np.memmap  # uint8 (n, anchors, GRID, GRID, 5): float16 x, y and error
    has_flow: np.memmap  # uint8 (n, anchors): 1 where the flow has been computed
    landmarks: NDArray[np.float32]  # (n, P, 3), NaN where unknown
    groups: list[range]
    """Ranges of frames without a cut."""

    def __getstate__(self) -> dict[str, Any]:
        """Pickle memory-mapped arrays by file name, for loader processes."""
        return {k: Mapped(str(v.filename)) if isinstance(v, np.memmap) else v for k, v in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.open() if isinstance(value, Mapped) else value)

    def correspondence(self, frame: int, anchor: int) -> Correspondence:
        """Return the flow of a frame to an anchor from the cache; computed if needed, and kept unless the disk is full.
        Two workers that compute the same one write the same bytes."""
        if self.has_flow[frame, anchor]:
            packed = np.ascontiguousarray(self.flows[frame, anchor])
            return Correspondence(packed[..., :4].copy().view(np.float16), packed[..., 4])
        match = correspond(self.small[frame], self.small[self.anchors[anchor]])
        packed = np.concatenate([match.shift.view(np.uint8), match.error[..., None]], axis=-1)
        number = frame * len(self.anchors) + anchor
        with suppress(OSError):
            overwrite(self.flows, number, packed.tobytes())
            overwrite(self.has_flow, number, b"\1")
        return match


def overwrite(array: np.memmap, number: int, entry: bytes) -> None:
    """Write entry `number` of an array of equal entries into its file. Raises OSError."""
    with Path(str(array.filename)).open("r+b") as file:
        file.seek(array.offset + number * len(entry))
        file.write(entry)


def file_key(path: Path) -> str:
    """Cache key of a file. It depends on path, size and modification time, so a replaced file gets another key."""
    stat = path.stat()
    return hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:20]


def prepare(clip: Clip, cache: Path, size: int) -> PreparedClip | None:
    """Decode a clip at `size` pixels into the cache unless it is there, and open it. Returns None if it has fewer than
    SHORTEST frames."""
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"{file_key(clip.path)}-{size}"
    file, index = cache / f"{stem}.npy", cache / f"{stem}.idx.npy"
    if not (file.exists() and index.exists()):
        keep = evenly_spaced(count_frames(clip.path), FRAMES)
        if len(keep) < SHORTEST:
            return None
        write_once(file, lambda partial: save_frames(partial, clip.path, keep, size))
        write_once(index, lambda partial: np.save(partial, np.array(keep)))
    frames_map = np.load(file, mmap_mode="r")
    count = len(frames_map)
    if count < SHORTEST:
        return None
    anchors = evenly_spaced(count, ANCHORS)
    shape = (count, len(anchors), GRID, GRID, 5)
    flows = cached_array(cache / f"{stem}.flow.npy", shape)
    has_flow = cached_array(cache / f"{stem}.known.npy", shape[:2])
    small = cached_small(cache / f"{stem}.small.npy", frames_map)
    landmarks = cached_landmarks(cache / f"{stem}.landmarks.npy", frames_map)
    groups = [range(count)]
    if clip.cut is not None:
        after = int(np.searchsorted(np.load(index), clip.cut))
        groups = [g for g in (range(after), range(after, count)) if len(g) >= SHORTEST and any(a in g for a in anchors)]
    return PreparedClip(clip, frames_map, small, anchors, flows, has_flow, landmarks, groups)


def write_once(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file that other processes may write too: under a temporary name, then linked atomically into place.

    The first file stays, because it may already be mapped and written to. Raises OSError, naming the file."""
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.partial.npy")
    try:
        write(partial)
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:  # the file system has no hard links
            partial.replace(path)
    except OSError as error:
        raise OSError(f"{path.name} of the cache {path.parent} was not made: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def save_frames(file: Path, clip: Path, keep: list[int], size: int) -> None:
    """Write the frames with numbers `keep` one by one: long clips do not fit into memory."""
    with file.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(keep), size, size, 3)}
        np.lib.format.write_array_header_1_0(out, header)
        for _, picture in zip(keep, read_frames(clip, set(keep)), strict=True):
            out.write(square(picture, size).tobytes())


def cached_small(path: Path, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the frames at FLOW_SIZE, from the cache. Flows and small training pictures use them, because area resizing
    is slow."""
    if not path.exists():
        write_once(path, lambda partial: np.save(partial, np.stack([square(picture, FLOW_SIZE) for picture in frames])))
    return np.load(path, mmap_mode="r")


def cached_landmarks(path: Path, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return landmarks (n, P, 3), from the cache; all NaN, and not cached, if MediaPipe is not installed."""
    if path.exists():
        return np.load(path)
    landmarks = find_landmarks(frames)
    if landmarks is None:
        return np.full((len(frames), len(LANDMARKS), 3), np.nan, np.float32)
    write_once(path, lambda partial: np.save(partial, landmarks))
    return landmarks


def cached_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Open a memory-mapped uint8 array, created with zeros (sparse on disk)."""

    def zeros(partial: Path) -> None:
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape).flush()

    if not path.exists():
        write_once(path, zeros)
    return np.load(path, mmap_mode="r")
