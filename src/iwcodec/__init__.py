"""iwcodec: a talking-head video codec. It transmits a few source pictures, then 20 keypoints per frame.

Files, with sound:

    import iwcodec
    iwcodec.encode("in.mp4", "talk.iwc", kbps=4)
    iwcodec.decode("talk.iwc", "out.mp4")

Every error is a CodecError, whose message is one sentence.

Streams, of `pictures` of uint8 RGB (256, 256, 3):

    >>> runtime = iwcodec.load_runtime()
    >>> encoder = iwcodec.Encoder(runtime, iwcodec.EncoderSettings(message_frames=2))
    >>> decoder = iwcodec.Decoder(runtime)
    >>> packets = [packet for picture in pictures for packet in encoder.push(picture)] + encoder.flush()
    >>> frames = [frame for packet in packets for frame in decoder.push(packet)]
    >>> [frame.number for frame in frames]
    [0, 1, 2, 3]
    >>> frames[0].picture.shape
    (256, 256, 3)

`Encoder` and `Decoder` handle one speaker's stream without a network protocol. Calls compose their parts (keypoint fit,
motion coder, source coder, source policy) per peer, and `encode` plans sources and motion over the whole clip.
"""

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ONNX Runtime 1.29 and later sends telemetry about sessions and models unless this is set before its import. No data of
# a call may reach anyone but its participants.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
    from iwcodec.codec.decoder import Decoder, Frame
    from iwcodec.codec.encoder import Encoder, EncoderSettings
    from iwcodec.codec.errors import CodecError, FormatError, MediaError, NoFaceError, OptionError, VersionError
    from iwcodec.codec.file.decode import DecodeReport, decode
    from iwcodec.codec.file.encode import EncodeReport, encode
    from iwcodec.codec.file.iwc_file import IwcFile
    from iwcodec.codec.file.options import EncodeOptions
    from iwcodec.codec.shipped_model import load_runtime

_MODULES = {
    "CodecError": "codec.errors",
    "DecodeReport": "codec.file.decode",
    "Decoder": "codec.decoder",
    "EncodeOptions": "codec.file.options",
    "EncodeReport": "codec.file.encode",
    "Encoder": "codec.encoder",
    "EncoderSettings": "codec.encoder",
    "FormatError": "codec.errors",
    "Frame": "codec.decoder",
    "IwcFile": "codec.file.iwc_file",
    "MediaError": "codec.errors",
    "MotionPacket": "codec.bitstream.packets",
    "NoFaceError": "codec.errors",
    "OptionError": "codec.errors",
    "SourcePacket": "codec.bitstream.packets",
    "VersionError": "codec.errors",
    "decode": "codec.file.decode",
    "encode": "codec.file.encode",
    "load_runtime": "codec.shipped_model",
}

__all__ = [
    "CodecError",
    "DecodeReport",
    "Decoder",
    "EncodeOptions",
    "EncodeReport",
    "Encoder",
    "EncoderSettings",
    "FormatError",
    "Frame",
    "IwcFile",
    "MediaError",
    "MotionPacket",
    "NoFaceError",
    "OptionError",
    "SourcePacket",
    "VersionError",
    "decode",
    "encode",
    "load_runtime",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that training with `iwcodec.models` does not load FFmpeg."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
