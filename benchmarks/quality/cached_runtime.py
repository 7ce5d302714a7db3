"""A runtime that does not detect or prepare the same picture twice: a clip coded at eight rates is one clip."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Keypoints, ModelInfo, Runtime, Source

KEYPOINTS_KEPT = 20_000
SOURCES_KEPT = 400
"""2 MB each at 256 x 256. Rate control tries some three hundred pictures of a clip, and then the same again."""

Kept = TypeVar("Kept")


class CachedRuntime:
    """Gives what the other runtime gives. What was used least lately is forgotten first."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._keypoints: OrderedDict[bytes, Keypoints] = OrderedDict()
        self._sources: OrderedDict[bytes, Source] = OrderedDict()

    @property
    def info(self) -> ModelInfo:
        return self._runtime.info

    @property
    def device(self) -> str:
        return self._runtime.device

    def detect(self, picture: Picture) -> Keypoints:
        return _kept(self._keypoints, KEYPOINTS_KEPT, picture, self._runtime.detect)

    def prepare(self, picture: Picture) -> Source:
        return _kept(self._sources, SOURCES_KEPT, picture, self._runtime.prepare)

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        return self._runtime.reconstruct(keypoints, sources, suppression)


def _kept(known: "OrderedDict[bytes, Kept]", most: int, picture: Picture, function: Callable[[Picture], Kept]) -> Kept:
    key = sha256(picture.tobytes()).digest() + bytes(str(picture.shape), "ascii")
    if key in known:
        known.move_to_end(key)
    else:
        known[key] = function(picture)
        if len(known) > most:
            known.popitem(last=False)
    return known[key]
