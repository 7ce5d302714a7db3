"""."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import msgpack

from iwcodec.codec.errors import FormatError
from iwcodec.models.runtime.onnx import MAX_ACTIVE

VERSION, OLDEST = 5, 2

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

FIELDS_OF_OLD = 12
"""Those of HEADER_FIELDS that versions 3 and 4 had."""

MAX_SUPPRESSION = 100

MAX_HEADER = 65_536


@dataclass(frozen=True)
class AudioHeader:
    """Opus, mono, 48 kHz (RFC 6716)."""

    pre_skip: int
    """Samples to drop before the first frame's instant."""
    packet_samples: int
    """Of nearly all packets; in a recording of a call some may be of other lengths."""


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first packet."""

    model_id: str
    model_digest: bytes
    keypoints: int
    step_xy: float
    step_strength: float
    tables: int
    """Id of the motion coder's tables: transform_tables.py, or motion_tables.py where a call was recorded."""
    fps: Fraction
    size: int
    """Pixels a side."""
    frames: int
    """0 where it was not known."""
    active: int = 3
    """Sources that enter attention for one frame, at most: those nearest in pose."""
    audio: AudioHeader | None = None
    suppression: int = 0
    """Of the shifts that frames are rebuilt with, tenths of a pixel (models.runtime.Runtime.reconstruct)."""
    version: int = VERSION

    def with_audio(self, pre_skip: int, packet_samples: int) -> "Header":
        return replace(self, audio=AudioHeader(pre_skip, packet_samples))

    def to_bytes(self) -> bytes:
        """The msgpack array: the values in the order of HEADER_FIELDS, the frame rate as [numerator, denominator], the
        audio's as [pre_skip, packet_samples] or nil. "reconstructed" tells whoever finds the file that its pictures
        are made, not filmed."""
        audio = None if self.audio is None else [self.audio.pre_skip, self.audio.packet_samples]
        given = {"fps": [self.fps.numerator, self.fps.denominator], "audio": audio, "pictures": "reconstructed"}
        values = [given[name] if name in given else getattr(self, name) for name in HEADER_FIELDS]
        packed: bytes = msgpack.packb(values)
        return packed

    @staticmethod
    def from_bytes(data: bytes) -> "Header":
        """Raises FormatError where a value is missing, of another type or out of range."""
        try:
            values = msgpack.unpackb(data, max_map_len=64, max_array_len=64)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise FormatError("The file's header cannot be read.") from error
        raw = _named(values)
        audio, rate = raw.get("audio"), raw.get("fps")
        if not (isinstance(rate, list) and len(rate) == 2):
            raise FormatError("The file's frame rate cannot be read.")
        digest = raw.get("model_digest")
        if not (isinstance(digest, bytes) and len(digest) == 8):
            raise FormatError("The file's model digest cannot be read.")
        name = raw.get("model_id")
        if not (isinstance(name, str) and 0 < len(name) <= 64 and name.isprintable()):
            raise FormatError("The file's model name cannot be read.")
        return Header(
            model_id=name,
            model_digest=digest,
            keypoints=_whole(raw, "keypoints", 1, 64),
            step_xy=_real(raw, "step_xy", 1e-5, 1.0),
            step_strength=_real(raw, "step_strength", 1e-5, 1.0),
            tables=_whole(raw, "tables", 0, 2**32 - 1),
            fps=Fraction(_in_range(rate[0], "fps", 1, 10**9), _in_range(rate[1], "fps", 1, 10**7)),
            size=_whole(raw, "size", 64, 4096),
            frames=_whole(raw, "frames", 0, 2**40),
            active=_whole(raw, "active", 1, MAX_ACTIVE),
            audio=None if audio is None else _audio_header(audio),
            suppression=_in_range(raw.get("suppression", 0), "suppression", 0, MAX_SUPPRESSION),
        )._checked()

    def _checked(self) -> "Header":
        if not Fraction(1, 10) <= self.fps <= 1000:
            raise FormatError(f"The file's frame rate is impossible: {self.fps}.")
        return self


def _named(values: Any) -> dict[Any, Any]:
    """A header's values by their names, which version 2 wrote out."""
    if isinstance(values, dict):
        return values
    if not isinstance(values, list) or len(values) not in (FIELDS_OF_OLD, len(HEADER_FIELDS)):
        raise FormatError(f"The file's header is not an array of {len(HEADER_FIELDS)} values.")
    return dict(zip(HEADER_FIELDS, values, strict=False))


def _audio_header(values: Any) -> AudioHeader:
    if isinstance(values, dict):
        values = [values.get("pre_skip"), values.get("packet_samples")]
    if not (isinstance(values, list) and len(values) == 2):
        raise FormatError("The file's audio header cannot be read.")
    return AudioHeader(_in_range(values[0], "pre_skip", 0, 48_000), _in_range(values[1], "packet_samples", 120, 5760))


def _whole(raw: dict[Any, Any], name: str, low: int, high: int) -> int:
    return _in_range(raw.get(name), name, low, high)


def _in_range(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FormatError(f"The file's {name} is not a number from {low} to {high}.")
    return value


def _real(raw: dict[Any, Any], name: str, low: float, high: float) -> float:
    value = raw.get(name)
    if not isinstance(value, float) or not low <= value <= high:
        raise FormatError(f"The file's {name} is not a number from {low} to {high}.")
    return value
