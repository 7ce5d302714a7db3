"""The header of an .iwc file (layout: container.py)."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import msgpack

from iwcodec.codec.errors import FormatError
from iwcodec.models.runtime.types import MAX_ACTIVE

HEADER_FIELDS = (
    "model_id",
    "model_digest",
    "keypoints",
    "step_xy",
    "step_strength",
    "tables",
    "fps",
    "size",
    "frames",
    "active",
    "audio",
    "pictures",
    "suppression",
)
"""Names of the msgpack array's values, in order."""
MAX_SUPPRESSION = 100
"""Tenths of a pixel."""


@dataclass(frozen=True)
class AudioHeader:
    """The sound of a file: Opus, mono, 48 kHz (RFC 6716)."""

    pre_skip: int
    """Samples that a decoder drops from the beginning (RFC 7845, section 4.2)."""
    packet_samples: int
    """Samples in nearly every packet; in a recorded call some packets may differ."""


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first packet. Ranges: container.py."""

    model_id: str
    model_digest: bytes
    keypoints: int
    step_xy: float
    step_strength: float
    tables: int
    """Id of the motion coder's tables: of transform_tables.py, or of predictive_tables.py for a recorded call."""
    fps: Fraction
    size: int
    """Width and height in pixels."""
    frames: int
    """0 if unknown."""
    active: int = 3
    """Number of sources that a frame is rebuilt from, at most: those nearest in pose."""
    audio: AudioHeader | None = None
    suppression: int = 0
    """Small-shift suppression in 1/10 pixel (Runtime.reconstruct)."""

    def with_audio(self, pre_skip: int, packet_samples: int) -> "Header":
        """Return a copy of the header of a file with sound."""
        return replace(self, audio=AudioHeader(pre_skip, packet_samples))

    def to_bytes(self) -> bytes:
        """Serialise to a msgpack array."""
        audio = None if self.audio is None else [self.audio.pre_skip, self.audio.packet_samples]
        special = {"fps": [self.fps.numerator, self.fps.denominator], "audio": audio, "pictures": "reconstructed"}
        values = [special[name] if name in special else getattr(self, name) for name in HEADER_FIELDS]
        packed: bytes = msgpack.packb(values)
        return packed

    @staticmethod
    def from_bytes(data: bytes) -> "Header":
        """Parse a header. Raises FormatError if a value is missing, of a wrong type or out of range."""
        try:
            values = msgpack.unpackb(data, max_map_len=64, max_array_len=64)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise FormatError("The file's header cannot be read.") from error
        if not isinstance(values, list) or len(values) != len(HEADER_FIELDS):
            raise FormatError(f"The file's header is not an array of {len(HEADER_FIELDS)} values.")
        raw = dict(zip(HEADER_FIELDS, values, strict=True))
        digest, name = raw["model_digest"], raw["model_id"]
        if not (isinstance(digest, bytes) and len(digest) == 8):
            raise FormatError("The file's model digest cannot be read.")
        if not (isinstance(name, str) and 0 < len(name) <= 64 and name.isprintable()):
            raise FormatError("The file's model name cannot be read.")
        return Header(
            model_id=name,
            model_digest=digest,
            keypoints=_whole(raw["keypoints"], "keypoints", 1, 64),
            step_xy=_real(raw["step_xy"], "step_xy", 1e-5, 1.0),
            step_strength=_real(raw["step_strength"], "step_strength", 1e-5, 1.0),
            tables=_whole(raw["tables"], "tables", 0, 2**32 - 1),
            fps=_frame_rate(raw["fps"]),
            size=_whole(raw["size"], "size", 64, 4096),
            frames=_whole(raw["frames"], "frames", 0, 2**40),
            active=_whole(raw["active"], "active", 1, MAX_ACTIVE),
            audio=None if raw["audio"] is None else _audio_header(raw["audio"]),
            suppression=_whole(raw["suppression"], "suppression", 0, MAX_SUPPRESSION),
        )


def _frame_rate(values: Any) -> Fraction:
    if not (isinstance(values, list) and len(values) == 2):
        raise FormatError("The file's frame rate cannot be read.")
    fps = Fraction(_whole(values[0], "fps", 1, 10**9), _whole(values[1], "fps", 1, 10**7))
    if not Fraction(1, 10) <= fps <= 1000:
        raise FormatError(f"The file's frame rate is impossible: {fps}.")
    return fps


def _audio_header(values: Any) -> AudioHeader:
    if not (isinstance(values, list) and len(values) == 2):
        raise FormatError("The file's audio header cannot be read.")
    return AudioHeader(_whole(values[0], "pre_skip", 0, 48_000), _whole(values[1], "packet_samples", 120, 5760))


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FormatError(f"The file's {name} is not an integer from {low} to {high}.")
    return value


def _real(value: Any, name: str, low: float, high: float) -> float:
    if not isinstance(value, float) or not low <= value <= high:
        raise FormatError(f"The file's {name} is not a number from {low} to {high}.")
    return value
