"""Write pictures and sound to .mp4, .mov, .webm, .mkv and .y4m files."""

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.conversion import rgb_to_yuv, usual_matrix
from iwcodec.codec.media.demux import error_reason
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.partial_file import PartialFile

WRITABLE = (".mp4", ".mov", ".webm", ".mkv", ".y4m")
"""Suffixes of the files that VideoWriter writes."""


class _Sink(Protocol):
    def picture(self, picture: Picture) -> None: ...
    def samples(self, samples: Samples) -> None: ...
    def finish(self) -> None: ...


class VideoWriter(PartialFile):
    """Write pictures, and sound if `audio`, to a file whose suffix selects the format:

    `.mp4`, `.mov`  H.264 at CRF 11 (visually transparent), BT.709, and AAC; even sizes only.
    `.webm` VP9 at CRF 18 (visually transparent), BT.709, and Opus.
    `.mkv`  FFV1 and FLAC: lossless.
    `.y4m`  uncompressed YUV 4:4:4 (BT.601 below 720 lines, else BT.709), without sound.

    `size` is (width, height). The file appears when it is closed. Raises MediaError for an unknown suffix, a folder
    that is missing or not writable, or a full disk.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], fps: Fraction, audio: bool = False) -> None:
        super().__init__(path)
        suffix = check_writable(self.path)
        self.has_audio = audio and suffix != ".y4m"
        self._size = size
        with self._guarded():
            file = self._open()
            if suffix == ".y4m":
                self._sink: _Sink = _Y4m(file, size, fps)
            else:
                self._sink = _Muxer(file, self._partial, suffix, size, fps, self.has_audio)

    def write(self, picture: Picture) -> None:
        """Append a picture. Raises ValueError if it has another size or type than uint8."""
        width, height = self._size
        if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
            raise ValueError(f"expected a uint8 picture of {height} x {width} x 3, not {picture.shape}")
        with self._guarded():
            self._sink.picture(np.ascontiguousarray(picture))

    def write_audio(self, samples: Samples) -> None:
        """Append mono samples at 48 kHz; the first one belongs to the first picture. Ignored if the file has no sound
        (`has_audio`). Interleave with the pictures, about a second at a time."""
        if self.has_audio and len(samples):
            with self._guarded():
                self._sink.samples(np.ascontiguousarray(samples, np.int16))

    def close(self) -> None:
        """Complete the file and rename it to `path`. Does nothing after an earlier close or abort."""
        if self._file is None:
            return
        with self._guarded():
            self._sink.finish()
            super().close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Remove the temporary file if anything fails; turn FFmpeg and OS errors into MediaError."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self.abort()
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise MediaError(f"The disk is full: {self.path} could not be written.") from error
            raise MediaError(f"{self.path} could not be written ({error_reason(error)}).") from error
        except BaseException:
            self.abort()
            raise


def check_writable(path: str | Path) -> str:
    """Return the suffix of a path in lower case. Raises MediaError if VideoWriter cannot write there."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE:
        known = ", ".join(WRITABLE[:-1]) + " and " + WRITABLE[-1]
        raise MediaError(f"{path} cannot be written: {suffix or 'no suffix'} is not one of {known}.")
    _check_folder(path)
    return suffix


def check_target(target: Path, overwrite: bool) -> None:
    """Raise MediaError if the folder is missing, or the file exists and `overwrite` is not set, or it is no file, which
    would be replaced by one."""
    try:
        _check_folder(target)
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise MediaError(f"{target} cannot be written: {error_reason(error)}.") from error
    if not stat.S_ISREG(mode):
        raise MediaError(f"{target} is a pipe or a device; give the name of a file.")
    if not overwrite:
        raise MediaError(f"{target} exists; overwrite it with -f (in Python: overwrite=True).")


def _check_folder(path: Path) -> None:
    if path.is_dir():
        raise MediaError(f"{path} is a folder; give a file name.")
    if not path.absolute().parent.is_dir():
        raise MediaError(f"{path} cannot be written: the folder {path.absolute().parent} does not exist.")


@dataclass(frozen=True)
class _Format:
    """How FFmpeg writes a suffix."""

    muxer: str
    video: str
    pixels: str
    options: dict[str, str]
    audio: str
    samples: str
    audio_bitrate: int | None = None
    muxer_options: dict[str, str] = field(default_factory=dict)


_H264 = _Format("mp4", "libx264", "yuv420p", {"crf": "11"}, "aac", "fltp", 96_000, {"movflags": "+faststart"})
_FORMATS = {
    ".mp4": _H264,
    ".mov": replace(_H264, muxer="mov"),
    ".webm": _Format(
        "webm",
        "libvpx-vp9",
        "yuv420p",
        {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
        "libopus",
        "s16",
        64_000,
    ),
    ".mkv": _Format("matroska", "ffv1", "bgr0", {"level": "3", "slicecrc": "1"}, "flac", "s16"),
}


class _Muxer:
    """Pictures and sound through FFmpeg."""

    def __init__(
        self, file: IO[bytes], path: Path, suffix: str, size: tuple[int, int], fps: Fraction, audio: bool
    ) -> None:
        form = _FORMATS[suffix]
        if form.video == "libx264" and (size[0] % 2 or size[1] % 2):
            raise MediaError(f"{suffix} files need an even width and height, not {size[0]}x{size[1]}; try .mkv.")
        # Through a Python file object a full disk raises OSError at the write that failed. For "faststart" the muxer
        # reopens the file it wrote, by `io_open`.
        self._container = av.open(
            file, "w", format=form.muxer, container_options=form.muxer_options, io_open=_reopener(path)
        )
        self._video = self._add_stream(form.video, fps)
        self._video.width, self._video.height = size
        self._video.pix_fmt = form.pixels
        self._video.options = form.options
        self._yuv = form.pixels if form.pixels.startswith("yuv") else None
        if self._yuv:  # 1 is BT.709 in all three tables of ITU-T H.273
            context = self._video.codec_context
            context.colorspace = context.color_primaries = context.color_trc = 1
            context.color_range = ColorRange.MPEG
        self._tick = 1 / fps
        self._pictures = self._samples = 0
        self._audio = None
        if audio:
            self._audio = self._add_stream(form.audio, AUDIO_RATE)
            self._audio.layout = "mono"
            self._audio.format = form.samples
            if form.audio_bitrate is not None:
                self._audio.bit_rate = form.audio_bitrate

    def _add_stream(self, codec: str, rate: Fraction | int) -> Any:
        return self._container.add_stream(codec, rate=rate)

    def picture(self, picture: Picture) -> None:
        if self._yuv:
            frame = rgb_to_yuv(picture, self._yuv, Colorspace.ITU709)
        else:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = self._pictures, self._tick
        self._pictures += 1
        self._container.mux(self._video.encode(frame))

    def samples(self, samples: Samples) -> None:
        if self._audio is not None:
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = AUDIO_RATE, Fraction(1, AUDIO_RATE)
            frame.pts = self._samples
            self._container.mux(self._audio.encode(frame))
            self._samples += len(samples)

    def finish(self) -> None:
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
            self._container.mux(self._audio.encode(None))
        self._container.close()


def _reopener(path: Path) -> Callable[..., IO[bytes]]:
    return lambda *_: open(path, "rb")


class _Y4m:
    """YUV4MPEG2: a header line, then for each frame the line "FRAME" and the planes Y, U, V."""

    def __init__(self, file: IO[bytes], size: tuple[int, int], fps: Fraction) -> None:
        self._file = file
        self._matrix = usual_matrix(size[1])
        rate = f"F{fps.numerator}:{fps.denominator}"
        file.write(f"YUV4MPEG2 W{size[0]} H{size[1]} {rate} Ip A1:1 C444\n".encode())

    def picture(self, picture: Picture) -> None:
        frame = rgb_to_yuv(picture, "yuv444p", self._matrix)
        self._file.write(b"FRAME\n" + frame.to_ndarray().tobytes())

    def samples(self, samples: Samples) -> None:
        raise AssertionError("a .y4m holds no sound")

    def finish(self) -> None:
        self._file.flush()
