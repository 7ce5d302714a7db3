"""Options of the file encoder."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, TypedDict

from iwcodec.codec.errors import OptionError
from iwcodec.codec.media.crop.square import check_crop_mode
from iwcodec.codec.media.crop.tracking import FaceChoice, parse_face
from iwcodec.codec.media.types import Tracks

Progress = Callable[[str, float], None]
"""Progress callback: name of the current pass, and the share that is done (0..1), of it or of the whole."""
Tune = Literal["psnr", "face"]
VARIANTS_SHARE = 0.18
"""Share of a bitrate that goes to variants of sources if the face counts."""
VARIANTS_KBPS = 0.9
"""Bitrate of variants without a bitrate given."""


MAX_SOURCES = 32
"""Sources that may be asked for: half of what a library holds, so that there is room for variants."""
QUALITIES_DB = (15.0, 50.0)
"""Mean PSNR that may be asked for."""
OPUS_BITRATES = (6_000, 510_000)
"""Bit/s that Opus can have (RFC 6716, section 2.1.1)."""


class EncodeKeywords(TypedDict, total=False):
    """The options of EncodeOptions, as keyword arguments."""

    size: int
    sources: int | None
    kbps: float | None
    quality_db: float | None
    crop: str
    tune: Literal["psnr", "face"]
    audio: bool
    audio_bitrate: int
    effort: int
    verify: bool
    overwrite: bool
    start_s: float
    duration_s: float | None
    video_track: int | None
    audio_track: int | None
    face: str


@dataclass(frozen=True)
class EncodeOptions:
    """Options of `encode`, which refuses a `quality_db` together with `kbps` or `sources`.

    Raises OptionError, which is also a ValueError, for an impossible value.
    """

    size: int = 256
    """Side of the coded square pictures in pixels; a shipped model must have this size (256 or 512)."""
    sources: int | None = None
    """Number of source pictures, 1 to 32; None chooses it, within a bitrate."""
    kbps: float | None = None
    """Upper bound on the video's bitrate in kbit/s, without sound, > 0. Kept by the number and the quality of the
    sources and by the quantisation of motion; if `sources` is given, by the other two. None: as few bits as a good
    picture takes, at most 4 kbit/s at 256x256; no bound if `sources` is given."""
    quality_db: float | None = None
    """Mean PSNR in dB over all frames, 15 to 50, reached at about the lowest bitrate. None: no target."""
    crop: str = "face"
    """"face" tracks the speaker, "none" crops the central square, "X,Y,SIDE" (pixels) is a fixed square."""
    tune: Tune = "face"
    """What the bits are spent on: "psnr" on the whole picture, "face" also on variants of a source with other eyes and
    mouths, which bring blinks, glances and speech nearer to the speaker's, for about 0.8 dB of the whole picture.
    Without a bitrate they add about VARIANTS_KBPS."""
    audio: bool = True
    """Code the sound, if there is any."""
    audio_bitrate: int = 12_000
    """Bitrate of Opus in bit/s."""
    effort: int = 2
    """0..3, in about 0.5, 1.1, 1.3 and 5 times the clip's length on two cores (effort.py). 0: a single pass, which fits
    every second frame as a call does and estimates what it does not try; 1: all frames; 2: all sources that may suit a
    frame; 3: also corrects the rebuilt frames."""
    verify: bool = False
    """Decode the finished file, report PSNR, and note it in the file's index (12 bytes) for `info`."""
    overwrite: bool = False
    """Replace an existing output file."""
    start_s: float = 0.0
    """Seconds of the input to leave out at the beginning."""
    duration_s: float | None = None
    """Seconds of the input to code; None: to its end."""
    video_track: int | None = None
    """Number of the video track, from 1; None: the best one."""
    audio_track: int | None = None
    """Number of the audio track, from 1; None: the best one."""
    face: str = "largest"
    """Whose face the crop follows: "largest", the Nth from the left ("2"), or the nearest to a point ("X,Y" in
    pixels)."""

    def __post_init__(self) -> None:
        _whole("size", self.size, 64, 4096)
        _whole("effort", self.effort, 0, 3)
        _whole("audio_bitrate", self.audio_bitrate, *OPUS_BITRATES)
        for name, high in (("sources", MAX_SOURCES), ("video_track", 999), ("audio_track", 999)):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1, high)
        for name in ("kbps", "duration_s"):
            if getattr(self, name) is not None:
                _real(name, getattr(self, name), positive=True)
        _real("start_s", self.start_s)
        if self.quality_db is not None:
            _real("quality_db", self.quality_db)
            if not QUALITIES_DB[0] <= self.quality_db <= QUALITIES_DB[1]:
                raise OptionError(f"quality_db must be from 15 to 50 dB, not {self.quality_db:g}.")
        if self.tune not in ("psnr", "face"):
            raise OptionError(f'tune must be "psnr" or "face", not {self.tune!r}.')
        check_crop_mode(self.crop)
        parse_face(self.face)

    def check_target(self) -> None:
        """Raise OptionError for a quality together with a bitrate or a number of sources."""
        if self.quality_db is not None and (self.kbps is not None or self.sources is not None):
            raise OptionError("A quality cannot be combined with a bitrate or a number of sources.")

    @property
    def tracks(self) -> Tracks:
        return Tracks(self.video_track, self.audio_track)

    @property
    def face_choice(self) -> FaceChoice:
        return parse_face(self.face)

    def with_keywords(self, keywords: EncodeKeywords) -> "EncodeOptions":
        """These options with some replaced. Raises OptionError for a name that is no option."""
        known = [field.name for field in fields(EncodeOptions)]
        for name in keywords:
            if name not in known:
                raise OptionError(f"{name!r} is not an option; there are {', '.join(known)}.")
        return replace(self, **keywords)


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise OptionError(f"{name} must be an integer from {low} to {high}, not {value!r}.")


def _real(name: str, value: Any, positive: bool = False) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (positive and value == 0):
        raise OptionError(f"{name} must be {'above 0' if positive else 'at least 0'}, not {value!r}.")
