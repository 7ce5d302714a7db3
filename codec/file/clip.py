"""The input of the file encoder: the cropped video, and the first two passes over it.

Pictures are held if the clip is short; else each pass reads them anew.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES
from iwcodec.codec.errors import MediaError, NoFaceError
from iwcodec.codec.file.effort import EFFORTS, Effort
from iwcodec.codec.file.motion_pass import nodes
from iwcodec.codec.file.options import EncodeOptions, Progress, Tune
from iwcodec.codec.file.rate_control.face_check import CHECK_EVERY, FaceCheck
from iwcodec.codec.file.rate_control.shot_sources import required_sources
from iwcodec.codec.file.rate_control.source_selection import Survey, region_pictures, thumbnail
from iwcodec.codec.media.crop.face_detector import DETECT_EVERY, Face, FaceDetector
from iwcodec.codec.media.crop.square import Crop, crop_resize, parse_crop
from iwcodec.codec.media.crop.tracking import plan_crops
from iwcodec.codec.media.demux import BEST
from iwcodec.codec.media.shots import ShotDetector
from iwcodec.codec.media.types import MediaInfo, Picture, Tally, Tracks
from iwcodec.codec.media.video import at_constant_rate, probe, read_video
from iwcodec.codec.parallel import in_order
from iwcodec.models.runtime.types import Keypoints, Runtime

HELD_BYTES = 128 * 2**20
"""Size up to which the pictures of a clip are kept in memory: 26 s at 256x256 and 25 frames/s."""
MESSAGE_S = 2.0
"""Seconds of motion in one record: the granularity of seeking, and what a damaged record loses."""
HEADER_BYTES = 110
"""Approximate bytes of the container's header and footer."""
PROGRESS_EVERY = 25
"""Frames between two progress reports."""
JUMP = 0.1
"""Distance in sides that a crop moves between two frames only if it jumps."""
MOST_WRONG = 0.5
"""Share of frames whose keypoints miss the face, from which a clip is not tuned for the face: regions would bend it."""
MISSING_S, EARLY_SOUND_S, LATE_SOUND_S = 0.25, 0.1, 0.5
"""Seconds of missing pictures, and of sound before the first picture and after the last one, from which there is a
warning."""


@dataclass(frozen=True)
class Footage:
    """A video at a constant frame rate, with the crop of every frame."""

    path: Path
    info: MediaInfo
    crops: list[Crop]
    size: int
    """Side of the cropped pictures in pixels."""
    start_s: float = 0.0
    """Time of the first frame in the file."""
    tracks: Tracks = BEST
    shots: tuple[int, ...] = (0,)
    """Numbers of the first frames of all shots: after a cut, or where the crop jumps to another speaker."""
    warnings: tuple[str, ...] = ()
    """What of the input is not coded, one sentence each."""
    held: list[Picture] = field(default_factory=list, compare=False, repr=False)
    """All pictures, once they were read, of a short clip."""

    def read(self) -> Iterator[Picture]:
        """Read the cropped pictures (size, size, 3) from the file; if it changed in between, the shorter of the two
        lengths counts."""
        frames = at_constant_rate(read_video(self.path, self.start_s, self.tracks), self.info.fps, self.start_s)
        for frame, crop in zip(frames, self.crops, strict=False):
            yield crop_resize(frame, crop, self.size)

    def pictures(self) -> Iterator[Picture]:
        """The pictures that `read` gives, which must not be changed; those of a short clip are read once."""
        if self.held:
            yield from self.held
            return
        read, is_short = list[Picture](), 3 * self.size**2 * len(self.crops) <= HELD_BYTES
        for picture in self.read():
            if is_short:
                read.append(picture)
            yield picture
        self.held[:] = read


@dataclass(frozen=True)
class Clip:
    """The input of all further passes."""

    video: Footage
    survey: Survey
    runtime: Runtime
    options: EncodeOptions

    @property
    def message_frames(self) -> int:
        """Frames in one motion record."""
        return min(MAX_PACKET_FRAMES, max(1, round(MESSAGE_S * self.video.info.fps)))

    @property
    def seconds(self) -> float:
        return len(self.survey.keypoints) / float(self.video.info.fps)

    @property
    def effort(self) -> Effort:
        return EFFORTS[self.options.effort]

    @property
    def budget(self) -> float | None:
        """Bytes for sources and motion; None if no bitrate is given."""
        return None if self.options.kbps is None else self.bytes_at(self.options.kbps)

    def bytes_at(self, kbps: float) -> float:
        """Bytes for sources and motion at a bitrate, at least 1."""
        return max(1.0, kbps * 125 * self.seconds - HEADER_BYTES)


def read_clip(path: Path, runtime: Runtime, options: EncodeOptions, progress: Progress) -> Clip:
    """Run the first two passes. Raises MediaError, NoFaceError, CodecError."""
    footage = open_footage(path, options, progress)
    step = EFFORTS[options.effort].frame_step
    return Clip(footage, survey_clip(footage, runtime, progress, options.tune, step), runtime, options)


def open_footage(path: Path, options: EncodeOptions, progress: Progress) -> Footage:
    """First pass: count the frames, detect the face, and plan the crops.

    Raises MediaError, NoFaceError, CodecError (for a crop that is not in the picture).
    """
    info = probe(path, options.tracks)
    fixed = parse_crop(options.crop, info.width, info.height)
    face_needed = options.crop == "face"
    detector = FaceDetector() if face_needed else None
    faces: list[list[Face] | None] = []
    limit = None if options.duration_s is None else max(1, round(options.duration_s * info.fps))
    expected = min(limit or info.frames or 1, info.frames or 1)
    tally = Tally()
    frames = at_constant_rate(read_video(path, options.start_s, options.tracks, tally), info.fps, options.start_s)
    shots = ShotDetector(float(info.fps))

    def looked_at() -> Iterator[Picture | None]:
        """The pictures in which faces are looked for, None for the others."""
        last = None
        for number, picture in enumerate(islice(frames, limit)):
            cut = shots.add(picture, repeated=picture is last)
            last = picture
            yield picture if detector and (cut or number % DETECT_EVERY == 0) else None

    def detect(picture: Picture | None) -> list[Face] | None:
        return None if picture is None or detector is None else detector.detect(picture)

    for number, detected in enumerate(in_order(detect, looked_at())):
        faces.append(detected)
        if detected and fixed is not None:
            detector = None  # the crop of a square video is fixed; one face proves that there is a speaker
        if number % PROGRESS_EVERY == 0:
            progress("looking for the speaker" if face_needed else "reading", min(1.0, number / expected))
    if not faces:
        raise MediaError(f"{path} has no picture after {options.start_s:g} s: it is {tally.end_s:.1f} s long.")
    if face_needed and not any(faces):
        raise NoFaceError(f"No face was found in {path.name}; use --crop none or --crop X,Y,SIDE to code it anyway.")
    cuts, rate, choice = shots.shots(), float(info.fps), options.face_choice
    crops = [fixed] * len(faces) if fixed else plan_crops(faces, info.width, info.height, rate, choice, cuts)
    warnings = input_warnings(path, info, tally, options, whole=limit is None or len(faces) < limit)
    first_frames = tuple(sorted({*cuts, *crop_jumps(crops)}))
    return Footage(path, info, crops, options.size, options.start_s, options.tracks, first_frames, warnings)


def crop_jumps(crops: Sequence[Crop]) -> list[int]:
    """Frames at which the crop jumps instead of moving."""
    return [n for n, (a, b) in enumerate(pairwise(crops), 1) if max(abs(a.x - b.x), abs(a.y - b.y)) > JUMP * a.side]


def input_warnings(path: Path, info: MediaInfo, tally: Tally, options: EncodeOptions, whole: bool) -> tuple[str, ...]:
    """What of the input could not be read or is not coded. `whole`: it was read to its end."""
    warnings = []
    expected_s = max(0.0 if info.leaps else info.stated_s or 0.0, info.duration_s or 0.0)
    if whole and expected_s - tally.end_s > max(MISSING_S, 1.5 / info.fps):
        warnings.append(
            f"{path.name} should be {expected_s:.1f} s long; only {tally.end_s:.1f} s of pictures could be read. "
            "It may be cut short or damaged."
        )
    if info.leaps:
        times = "once" if info.leaps == 1 else f"{info.leaps} times"
        warnings.append(f"The clock of {path.name} leaps {times}; its parts are joined without a gap.")
    if tally.damaged:
        total = tally.pictures + tally.damaged
        warnings.append(f"{tally.damaged} of about {total} pictures of {path.name} are damaged.")
    early = -info.audio.start_s if info.audio is not None and options.audio and not options.start_s else 0.0
    if early > EARLY_SOUND_S:
        warnings.append(f"The sound of {path.name} begins {early:.1f} s before its pictures; that part is left out.")
    if options.audio and info.sound_is_unknown:
        warnings.append(f"The sound of {path.name} has a format that cannot be decoded; it is left out.")
    late = (info.sound_end_s or 0.0) - tally.end_s
    if whole and options.audio and info.audio is not None and late > LATE_SOUND_S:
        warnings.append(f"The sound of {path.name} goes on for {late:.1f} s after its pictures; that part is left out.")
    return tuple(warnings)


def survey_clip(footage: Footage, runtime: Runtime, progress: Progress, tune: Tune = "psnr", step: int = 1) -> Survey:
    """Second pass: keypoints and thumbnails of every frame, and small pictures of its eyes and mouth if it is tuned for
    the face and its keypoints are on it. Keypoints are detected in every `step`-th frame of a group of frames and in
    its last one, and interpolated between these."""
    thumbnails, keypoints, corrected, regions = (_Rows(len(footage.crops)) for _ in range(4))
    check = FaceCheck() if tune == "face" else None

    def seen(pictures: list[Picture]) -> list[list[NDArray[Any]]]:
        """What is kept of the pictures, one list for each kind."""
        found = interpolated({n: runtime.detect(pictures[n]) for n in nodes(len(pictures), step)})
        small = [thumbnail(picture) for picture in pictures]
        if check is None:
            return [found, small]
        right = check.corrected(pictures, found)
        return [found, small, right, [region_pictures(*of_frame) for of_frame in zip(pictures, right, strict=True)]]

    done = 0
    for kept in in_order(seen, _groups(footage.pictures(), CHECK_EVERY * step - step + 1)):
        for rows, of_group in zip((keypoints, thumbnails, corrected, regions), kept, strict=False):
            rows.extend(of_group)
        done += len(kept[0])
        progress("finding keypoints", done / len(footage.crops))
    shots = [shot for shot in footage.shots if shot < len(thumbnails.all)]
    required = required_sources(thumbnails.all, shots, float(footage.info.fps))
    if check is None or check.wrong_share > MOST_WRONG:
        return Survey(thumbnails.all, keypoints.all, None, required)
    return Survey(thumbnails.all, keypoints.all, regions.all, required, corrected.all)


def interpolated(known: dict[int, Keypoints]) -> list[Keypoints]:
    """The keypoints (K, 3) of all frames, from those of some, by ascending number from 0 on, the last among them."""
    found = [known[0]]
    for (first, a), (last, b) in pairwise(known.items()):
        found += [a + (b - a) * np.float32((n - first) / (last - first)) for n in range(first + 1, last)] + [b]
    return found


def _groups(pictures: Iterable[Picture], length: int) -> Iterator[list[Picture]]:
    coming = iter(pictures)
    while group := list(islice(coming, length)):
        yield group


class _Rows:
    """Arrays of one shape, collected in one block: small ones between the large ones of pictures would keep the heap
    from being used again."""

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._block: NDArray[Any] = np.empty(0)

    def extend(self, rows: Sequence[NDArray[Any]]) -> None:
        if not self._count:
            self._block = np.empty((self._most, *rows[0].shape), rows[0].dtype)
        self._block[self._count : self._count + len(rows)] = rows
        self._count += len(rows)

    @property
    def all(self) -> NDArray[Any]:
        """(n, ...)."""
        return self._block[: self._count]
