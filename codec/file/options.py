"""Options of the file encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Progress = Callable[[str, float], None]
"""Progress callback: name of the current pass, and the share of it that is done (0..1)."""
Tune = Literal["psnr", "face"]
VARIANTS_SHARE = 0.14
"""Share of a bitrate that goes to variants of sources if the face counts."""
VARIANTS_KBPS = 0.9
"""Bitrate of variants without a bitrate given."""


@dataclass(frozen=True)
class EncodeOptions:
    """Options of `encode`. At most one of `kbps` and `quality_db` may be given, and no `sources` with `quality_db`."""

    size: int = 256
    """Side of the coded square pictures in pixels; a shipped model must have this size (256 or 512)."""
    sources: int | None = None
    """Number of source pictures, at least 1; None chooses it."""
    kbps: float | None = None
    """Upper bound on the video's bitrate in kbit/s, without sound, > 0. Kept by the number and the quality of the
    sources and by the quantisation of motion; if `sources` is given, by the other two. None: no bound."""
    quality_db: float | None = None
    """Mean PSNR in dB over all frames, reached at about the lowest bitrate. None: no target."""
    crop: str = "face"
    """"face" tracks the speaker, "none" crops the central square, "X,Y,SIDE" (pixels) is a fixed square."""
    tune: Tune = "psnr"
    """What the bits are spent on: "psnr" on the whole picture, "face" also on variants of a source with other eyes and
    mouths, which bring blinks, glances and speech nearer to the speaker's. Without a bitrate they add about
    VARIANTS_KBPS."""
    audio: bool = True
    """Code the sound, if there is any."""
    audio_bitrate: int = 12_000
    """Bitrate of Opus in bit/s."""
    effort: int = 1
    """0..3. 0 fits keypoints as fast as a call does; 1 tries several sources for each frame; 2 and 3 add
    analysis-by-synthesis iterations (passes.ITERATIONS). Also selects the AV1 presets (clip.EFFORT_PRESETS)."""
    verify: bool = False
    """Decode the finished file and report PSNR."""
    overwrite: bool = False
    """Replace an existing output file."""
