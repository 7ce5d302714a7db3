"""Opus (RFC 6716) for calls: mono at 48 kHz with DTX, in-band forward error correction and concealment of losses.

FFmpeg's wrapper offers neither DTX nor the decoder's error correction and concealment, so libopus itself is called: the
one that PyAV's wheels carry, or the system's.
"""

import ctypes
import ctypes.util
import functools
import sys
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from iwcodec.codec.errors import CodecError, FormatError
from iwcodec.codec.media.types import AUDIO_RATE, Samples

LONGEST: Final = AUDIO_RATE * 120 // 1000
"""Samples in the longest packet."""
LARGEST: Final = 1275 * 3 + 7
"""Bytes of the largest packet of 60 ms."""
SILENT: Final = 2
"""A packet of at most so many bytes says nothing and need not be sent (DTX)."""

_VOIP = 2048
_SET_BITRATE, _SET_BANDWIDTH, _SET_INBAND_FEC, _SET_LOSS, _SET_DTX, _SET_SIGNAL = 4002, 4008, 4012, 4014, 4016, 4024
_VOICE, _WIDEBAND = 3001, 1103


@functools.cache
def library() -> Any:
    """libopus. Raises CodecError where there is none."""
    for path in _candidates():
        try:
            found = ctypes.CDLL(str(path))
            found.opus_encoder_create.restype = ctypes.c_void_p
        except (OSError, AttributeError):
            continue
        found.opus_encoder_create.argtypes = (ctypes.c_int32, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
        found.opus_encoder_destroy.argtypes = (ctypes.c_void_p,)
        # The variadic part is left out: ctypes then passes it as the platform wants it.
        found.opus_encoder_ctl.argtypes = (ctypes.c_void_p, ctypes.c_int)
        pointer = ctypes.c_void_p
        found.opus_encode.argtypes = (pointer, pointer, ctypes.c_int, ctypes.c_char_p, ctypes.c_int32)
        found.opus_encode.restype = ctypes.c_int32
        found.opus_decoder_create.restype = ctypes.c_void_p
        found.opus_decoder_create.argtypes = (ctypes.c_int32, ctypes.c_int, ctypes.c_void_p)
        found.opus_decoder_destroy.argtypes = (ctypes.c_void_p,)
        found.opus_decode.argtypes = (pointer, ctypes.c_char_p, ctypes.c_int32, pointer, ctypes.c_int, ctypes.c_int)
        found.opus_packet_get_nb_samples.argtypes = (ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32)
        return found
    raise CodecError("Sound needs the Opus library, which was not found; install libopus, or call with --no-audio.")


def _candidates() -> list[Path | str]:
    package = Path(av.__file__).parent
    # Where the tools that repair wheels put libraries: Linux and Windows, macOS.
    folders = (package.parent / "av.libs", package / ".dylibs")
    names: list[Path | str] = [path for folder in folders for path in sorted(folder.glob("*opus*"))]
    system = ctypes.util.find_library("opus")
    names += [system] if system else []
    return names + (["libopus.so.0"] if sys.platform.startswith("linux") else [])


class OpusEncoder:
    """Blocks of `packet_ms` (20, 40 or 60) milliseconds to packets of `bitrate` bits a second."""

    def __init__(self, bitrate: int, packet_ms: int, expected_loss: int = 0) -> None:
        """`expected_loss` in percent. A copy of each packet goes into the next one where losses are expected and the
        rate allows: libopus does it from about 16,000 bits a second and 25 % on, and not below."""
        self.packet_samples = packet_ms * AUDIO_RATE // 1000
        self._library = library()
        self._state = self._library.opus_encoder_create(AUDIO_RATE, 1, _VOIP, None)
        if not self._state:
            raise CodecError("The Opus encoder cannot be opened.")
        settings = {_SET_BITRATE: bitrate, _SET_INBAND_FEC: 1, _SET_LOSS: expected_loss, _SET_DTX: 1}
        # Left to itself, libopus turns to narrowband below 9,000 bits a second, and saves a twentieth by that.
        for request, value in {**settings, _SET_SIGNAL: _VOICE, _SET_BANDWIDTH: _WIDEBAND}.items():
            self._set(request, value)
        self._out = ctypes.create_string_buffer(LARGEST)

    def adapt(self, bitrate: int, expected_loss: int) -> None:
        """As at the beginning; holds from the next packet on."""
        self._set(_SET_BITRATE, bitrate)
        self._set(_SET_LOSS, expected_loss)

    def encode(self, samples: Samples) -> bytes:
        """Exactly `packet_samples` samples to one packet; at most SILENT bytes where there is nothing to say."""
        if len(samples) != self.packet_samples:
            raise ValueError(f"{self.packet_samples} samples, not {len(samples)}")
        block = np.ascontiguousarray(samples, np.int16)
        count = self._library.opus_encode(self._state, block.ctypes.data, len(block), self._out, LARGEST)
        if count < 0:
            raise CodecError(f"The Opus encoder failed ({count}).")
        return self._out.raw[:count]

    def _set(self, request: int, value: int) -> None:
        if self._library.opus_encoder_ctl(self._state, request, ctypes.c_int32(value)) != 0:
            raise CodecError(f"The Opus encoder does not take the setting {request} = {value}.")

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_encoder_destroy(self._state)


class OpusDecoder:
    """Packets of any Opus sender, stereo ones mixed down, to mono samples at 48 kHz."""

    def __init__(self) -> None:
        self._library = library()
        self._state = self._library.opus_decoder_create(AUDIO_RATE, 1, None)
        if not self._state:
            raise CodecError("The Opus decoder cannot be opened.")
        self._out = np.zeros(LONGEST, np.int16)

    def decode(self, packet: bytes) -> Samples:
        """Raises FormatError for bytes that are no Opus packet."""
        return self._decoded(packet, LONGEST, 0)

    def recover(self, following: bytes, count: int) -> Samples:
        """The lost packet of `count` samples before `following`, from the copy in that one, where it has one."""
        return self._decoded(following, count, 1)

    def conceal(self, count: int) -> Samples:
        """`count` samples (a multiple of 2.5 ms) in place of what did not come: the last sound fades, or its noise
        goes on."""
        return self._decoded(None, count, 0)

    def _decoded(self, packet: bytes | None, count: int, correct: int) -> Samples:
        size = 0 if packet is None else len(packet)
        if packet is not None and not 0 < size <= LARGEST:
            raise FormatError("An Opus packet has an impossible size.")
        made = self._library.opus_decode(self._state, packet, size, self._out.ctypes.data, count, correct)
        if made < 0:
            raise FormatError("An Opus packet cannot be decoded.")
        return self._out[:made].copy()

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_decoder_destroy(self._state)


def packet_samples(packet: bytes) -> int:
    """How many samples at 48 kHz a packet holds. Raises FormatError."""
    count = library().opus_packet_get_nb_samples(packet, len(packet), AUDIO_RATE) if packet else -1
    if not 0 < count <= LONGEST:
        raise FormatError("An Opus packet cannot be decoded.")
    return int(count)
