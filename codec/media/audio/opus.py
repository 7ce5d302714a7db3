"""Opus (RFC 6716), mono at 48 kHz, through libopus: the encoder and decoder of files and of calls.

PyAV's Opus codecs lack DTX, the decoder's forward error correction and loss concealment, which calls need, so libopus
is called directly: the copy in PyAV's wheels, or else the system's.
"""

import ctypes
import ctypes.util
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from iwcodec.codec.bitstream.packets import MAX_OPUS_BYTES
from iwcodec.codec.errors import CodecError, FormatError
from iwcodec.codec.media.types import AUDIO_RATE, Samples

MAX_PACKET_SAMPLES: Final = AUDIO_RATE * 120 // 1000
"""Samples in the longest packet, 120 ms (RFC 6716, section 3.2)."""
MAX_DTX_BYTES: Final = 2
"""A packet of at most this many bytes carries only silence and need not be sent (DTX)."""

# Request numbers and values of opus_defines.h.
_VOIP = 2048
_SET_BITRATE, _SET_BANDWIDTH, _SET_COMPLEXITY, _SET_INBAND_FEC, _SET_LOSS = 4002, 4008, 4010, 4012, 4014
_SET_DTX, _SET_VBR_CONSTRAINT, _SET_SIGNAL, _GET_LOOKAHEAD = 4016, 4020, 4024, 4027
_VOICE, _WIDEBAND = 3001, 1103

CALL_SETTINGS: Final = {_SET_INBAND_FEC: 1, _SET_DTX: 1, _SET_SIGNAL: _VOICE, _SET_BANDWIDTH: _WIDEBAND}
"""Forward error correction and DTX. The bandwidth is fixed because libopus otherwise drops to narrowband below 9,000
bits/s, which saves only 5 %."""
FILE_SETTINGS: Final = {_SET_COMPLEXITY: 10, _SET_VBR_CONSTRAINT: 0}
"""Slowest search and unconstrained variable bitrate, as FFmpeg's libopus encoder sets them."""


@functools.cache
def library() -> Any:
    """Return libopus. Raises CodecError if it is not found."""
    for path in _candidates():
        try:
            opus = ctypes.CDLL(str(path))
            opus.opus_encoder_create.restype = ctypes.c_void_p
        except (OSError, AttributeError):
            continue
        opus.opus_encoder_create.argtypes = (ctypes.c_int32, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
        opus.opus_encoder_destroy.argtypes = (ctypes.c_void_p,)
        # The variadic argument is not declared: ctypes then passes it by the platform's convention.
        opus.opus_encoder_ctl.argtypes = (ctypes.c_void_p, ctypes.c_int)
        pointer = ctypes.c_void_p
        opus.opus_encode.argtypes = (pointer, pointer, ctypes.c_int, ctypes.c_char_p, ctypes.c_int32)
        opus.opus_encode.restype = ctypes.c_int32
        opus.opus_decoder_create.restype = ctypes.c_void_p
        opus.opus_decoder_create.argtypes = (ctypes.c_int32, ctypes.c_int, ctypes.c_void_p)
        opus.opus_decoder_destroy.argtypes = (ctypes.c_void_p,)
        opus.opus_decode.argtypes = (pointer, ctypes.c_char_p, ctypes.c_int32, pointer, ctypes.c_int, ctypes.c_int)
        opus.opus_packet_get_nb_samples.argtypes = (ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32)
        return opus
    raise CodecError("Sound needs the Opus library, which was not found; install libopus, or use --no-audio.")


def _candidates() -> list[Path | str]:
    package = Path(av.__file__).parent
    # Folders into which wheels are repaired: auditwheel and delvewheel, then delocate (macOS).
    folders = (package.parent / "av.libs", package / ".dylibs")
    names: list[Path | str] = [path for folder in folders for path in sorted(folder.glob("*opus*"))]
    system = ctypes.util.find_library("opus")
    names += [system] if system else []
    return names + (["libopus.so.0"] if sys.platform.startswith("linux") else [])


class OpusEncoder:
    """Encode blocks of `packet_ms` (20, 40 or 60) milliseconds at `bitrate` bits a second."""

    def __init__(
        self,
        bitrate: int,
        packet_ms: int,
        expected_loss: int = 0,
        settings: Mapping[int, int] = CALL_SETTINGS,
    ) -> None:
        """`expected_loss`: percent of packets. With it, and in-band error correction in `settings`, libopus puts a copy
        of each packet into the next one, but only from about 16,000 bits/s and 25 % on. Raises CodecError."""
        self.packet_samples = packet_ms * AUDIO_RATE // 1000
        self._library = library()
        self._state = self._library.opus_encoder_create(AUDIO_RATE, 1, _VOIP, None)
        if not self._state:
            raise CodecError("The Opus encoder cannot be opened.")
        for request, value in {_SET_BITRATE: bitrate, _SET_LOSS: expected_loss, **settings}.items():
            self._set(request, value)
        self._out = ctypes.create_string_buffer(MAX_OPUS_BYTES)

    @property
    def lookahead(self) -> int:
        """Samples by which the decoded sound lags: the pre-skip of RFC 7845, section 4.2."""
        count = ctypes.c_int32()
        self._library.opus_encoder_ctl(self._state, _GET_LOOKAHEAD, ctypes.byref(count))
        return count.value

    def adapt(self, bitrate: int, expected_loss: int) -> None:
        """Change both from the next packet on; units as in the constructor."""
        self._set(_SET_BITRATE, bitrate)
        self._set(_SET_LOSS, expected_loss)

    def encode(self, samples: Samples) -> bytes:
        """Encode exactly `packet_samples` int16 samples. With DTX, silence gives at most MAX_DTX_BYTES bytes."""
        if len(samples) != self.packet_samples:
            raise ValueError(f"{self.packet_samples} samples, not {len(samples)}")
        block = np.ascontiguousarray(samples, np.int16)
        count = self._library.opus_encode(self._state, block.ctypes.data, len(block), self._out, MAX_OPUS_BYTES)
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
    """Decode packets of any Opus sender to mono int16 samples at 48 kHz; stereo is mixed down."""

    def __init__(self) -> None:
        self._library = library()
        self._state = self._library.opus_decoder_create(AUDIO_RATE, 1, None)
        if not self._state:
            raise CodecError("The Opus decoder cannot be opened.")
        self._out = np.zeros(MAX_PACKET_SAMPLES, np.int16)

    def decode(self, packet: bytes) -> Samples:
        """Decode one packet. Raises FormatError for bytes that are not an Opus packet."""
        return self._decode(packet, MAX_PACKET_SAMPLES, 0)

    def recover(self, following: bytes, count: int) -> Samples:
        """Decode the lost packet of `count` samples before `following` from the copy that `following` carries; conceal
        it if there is no copy."""
        return self._decode(following, count, 1)

    def conceal(self, count: int) -> Samples:
        """Synthesise `count` samples (a multiple of 2.5 ms) for a lost packet: the last sound fades out, or its
        background noise continues."""
        return self._decode(None, count, 0)

    def _decode(self, packet: bytes | None, count: int, correct: int) -> Samples:
        size = 0 if packet is None else len(packet)
        if packet is not None and not 0 < size <= MAX_OPUS_BYTES:
            raise FormatError("An Opus packet has an impossible size.")
        decoded = self._library.opus_decode(self._state, packet, size, self._out.ctypes.data, count, correct)
        if decoded < 0:
            raise FormatError("An Opus packet cannot be decoded.")
        return self._out[:decoded].copy()

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_decoder_destroy(self._state)


def packet_samples(packet: bytes) -> int:
    """Count the samples at 48 kHz in a packet. Raises FormatError for bytes that are not an Opus packet."""
    count = library().opus_packet_get_nb_samples(packet, len(packet), AUDIO_RATE) if packet else -1
    if not 0 < count <= MAX_PACKET_SAMPLES:
        raise FormatError("An Opus packet cannot be decoded.")
    return int(count)
