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
    from .clip import EncodeOptions
    from .decoder import Decoder, Frame
    from .decoding import DecodeReport, decode
    from .encoder import Encoder, EncoderSettings
    from .encoding import EncodeReport, encode
    from .errors import CodecError
    from .iwc_file import IwcFile
    from .models.runtime import load_runtime
    from .packets import MotionPacket, SourcePacket

_HOMES = {
    "CodecError": "errors",
    "DecodeReport": "decoding",
    "Decoder": "decoder",
    "EncodeOptions": "clip",
    "EncodeReport": "encoding",
    "Encoder": "encoder",
    "EncoderSettings": "encoder",
    "Frame": "decoder",
    "IwcFile": "iwc_file",
    "MotionPacket": "packets",
    "SourcePacket": "packets",
    "decode": "decoding",
    "encode": "encoding",
    "load_runtime": "models.runtime",
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
