"""iwcodec: a talking-head video codec. A few source pictures, then 20 keypoints a frame.

    import iwcodec
    iwcodec.encode("in.mp4", "talk.iwc")
    iwcodec.decode("talk.iwc", "out.mp4")

Streams, for calls: `iwcodec.Encoder` (pictures in, packets out) and `iwcodec.Decoder` (packets in, pictures out).
"""

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime reports sessions and models to its makers unless this is set before it is imported. Nothing
# of a call goes anywhere but to those who are in it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
    from iwcodec.codec.decoder import Decoder, Frame
    from iwcodec.codec.encoder import Encoder, EncoderSettings
    from iwcodec.codec.errors import CodecError
    from iwcodec.codec.file.clip import EncodeOptions
    from iwcodec.codec.file.decode import DecodeReport, decode
    from iwcodec.codec.file.encode import EncodeReport, encode
    from iwcodec.codec.file.iwc_file import IwcFile
    from iwcodec.models.runtime.load import load_runtime

_HOMES = {
    "CodecError": "codec.errors",
    "DecodeReport": "codec.file.decode",
    "Decoder": "codec.decoder",
    "EncodeOptions": "codec.file.clip",
    "EncodeReport": "codec.file.encode",
    "Encoder": "codec.encoder",
    "EncoderSettings": "codec.encoder",
    "Frame": "codec.decoder",
    "IwcFile": "codec.file.iwc_file",
    "MotionPacket": "codec.bitstream.packets",
    "SourcePacket": "codec.bitstream.packets",
    "decode": "codec.file.decode",
    "encode": "codec.file.encode",
    "load_runtime": "models.runtime.runtime",
}

__all__ = [
    "CodecError",
    "DecodeReport",
    "Decoder",
    "EncodeOptions",
    "EncodeReport",
    "Encoder",
    "EncoderSettings",
    "Frame",
    "IwcFile",
    "MotionPacket",
    "SourcePacket",
    "decode",
    "encode",
    "load_runtime",
]


def __getattr__(name: str) -> Any:
    """Loads the part a name is from when it is first asked for: `iwcodec.models` must not load FFmpeg for training."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
