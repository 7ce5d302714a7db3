"""A video that is to become a file, and what the first two passes over it find. Never a whole video in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iwcodec.codec.bitstream.packets import MAX_FRAMES
from iwcodec.codec.errors import MediaError, NoFaceError
from iwcodec.codec.file.source_plan import PRESETS, Presets
from iwcodec.codec.file.source_selection import Survey, thumbnail
from iwcodec.codec.media import crop_tracking as framing
from iwcodec.codec.media import video as media
from iwcodec.codec.media.face_detector import FaceDetector
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Runtime

EFFORT_PRESETS: tuple[Presets, ...] = ((4, 8), PRESETS, PRESETS, (0, 2))
"""For each effort, SVT-AV1's: where sources are few 0.1 s each, 0.5 s for 8 % fewer bytes, and 1.4 s for 11 %; where
they are many 6 ms, 18 ms for 0.9 dB more, and 50 ms for 1.2 dB."""
CHUNK_S = 2.0
"""Seconds of motion in one record: what seeking starts from, and what a damaged record loses."""
HEADER_BYTES = 110
"""Of the container: header and footer, roughly."""
Progress = Callable[[str, float], None]
"""Called with the name of the pass and the share of it that is done, 0..1."""


@dataclass(frozen=True)
class EncodeOptions:
    size: int = 256
    sources: int | None = None
    """None chooses."""
    kbps: float | None = None
    """Bound on the video's bitrate, kept by the number and the quality of the sources, and how finely motion is coded;
    where the number is given, by the others."""
    quality_db: float | None = None
    """Mean PSNR to be had at the least bitrate."""
    crop: str = "face"
    audio: bool = True
    audio_bitrate: int = 12_000
    effort: int = 1
    """0 fits the keypoints to the real motion as calls do; 1 tries several sources, and takes its time; 2 and 3 look at
    what will be rebuilt, and correct it: see clip_coding.LOOKS."""
    verify: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Footage:
    """A video on a regular grid, with the crop of every frame."""

    path: Path
    info: media.MediaInfo
    crops: list[framing.Crop]
    size: int

    def pictures(self) -> Iterator[Picture]:
        frames = media.at_constant_rate(media.read_video(self.path), self.info.fps)
        # The first pass counted the frames, and a file may have changed since: the shorter wins.
        for picture, crop in zip(frames, self.crops, strict=False):
            yield framing.crop_resize(picture, crop, self.size)


@dataclass(frozen=True)
class Clip:
    """What the passes over a video have in common: what it shows, and what is to become of it."""

    video: Footage
    survey: Survey
    runtime: Runtime
    options: EncodeOptions

    @property
    def message_frames(self) -> int:
        """Frames whose motion is one record."""
        return min(MAX_FRAMES, max(1, round(CHUNK_S * self.video.info.fps)))

    @property
    def seconds(self) -> float:
        return len(self.survey.keypoints) / float(self.video.info.fps)

    @property
    def presets(self) -> Presets:
        return EFFORT_PRESETS[self.options.effort]

    @property
    def budget(self) -> float | None:
        """Bytes that sources and motion may take; None where no bitrate is given."""
        return None if self.options.kbps is None else self.bytes_at(self.options.kbps)

    def bytes_at(self, kbps: float) -> float:
        """Bytes of sources and motion at a bitrate."""
        return max(1.0, kbps * 125 * self.seconds - HEADER_BYTES)


def read_clip(path: Path, runtime: Runtime, options: EncodeOptions, tell: Progress) -> Clip:
    """The first two passes. Raises MediaError, NoFaceError, CodecError."""
    video = frame_input(path, options, tell)
    return Clip(video, survey_clip(video, runtime, tell), runtime, options)


def frame_input(path: Path, options: EncodeOptions, tell: Progress) -> Footage:
    """First pass: how long the video is and where the face is."""
    info = media.probe(path)
    fixed = framing.parse_crop(options.crop, info.width, info.height)
    look = options.crop == "face"
    detector = FaceDetector() if look else None
    faces: list[list[framing.Face] | None] = []
    expected = info.frames or 1
    for number, picture in enumerate(media.at_constant_rate(media.read_video(path), info.fps)):
        seen = detector.detect(picture) if detector and number % framing.DETECT_EVERY == 0 else None
        faces.append(seen)
        if seen and fixed is not None:
            detector = None  # a square picture is taken whole: that there is somebody is all that matters
        if number % 25 == 0:
            tell("looking for the speaker" if look else "reading", min(1.0, number / expected))
    if not faces:
        raise MediaError(f"{path} holds no frames.")
    if look and not any(faces):
        raise NoFaceError(f"No face was found in {path.name}; use --crop none or --crop X,Y,SIDE to code it anyway.")
    if fixed is not None:
        crops = [fixed] * len(faces)
    else:
        crops = framing.plan_crops(faces, info.width, info.height, float(info.fps))
    return Footage(path, info, crops, options.size)


def survey_clip(video: Footage, runtime: Runtime, tell: Progress) -> Survey:
    """Second pass: keypoints and thumbnails of every frame."""
    thumbnails, keypoints = [], []
    for number, picture in enumerate(video.pictures()):
        keypoints.append(runtime.detect(picture))
        thumbnails.append(thumbnail(picture))
        if number % 25 == 0:
            tell("finding keypoints", number / len(video.crops))
    return Survey(np.stack(thumbnails), np.stack(keypoints))
