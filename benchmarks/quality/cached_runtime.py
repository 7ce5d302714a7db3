"""A runtime that detects and prepares each picture only once, for coding the same clip at several rates."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Keypoints, ModelInfo, Runtime, Source

MAX_KEYPOINTS = 20_000
"""Pictures whose keypoints are cached."""
MAX_SOURCES = 400
"""Prepared sources that are cached, 2 MB each at 256 x 256. Rate control tries about 300 pictures, repeatedly."""

T = TypeVar("T")


class CachedRuntime:
    """Returns what the wrapped runtime returns; least recently used results are evicted first."""

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
        return _cached(self._keypoints, MAX_KEYPOINTS, picture, self._runtime.detect)

    def prepare(self, picture: Picture) -> Source:
        return _cached(self._sources, MAX_SOURCES, picture, self._runtime.prepare)

    def with_picture(self, source: Source, picture: Picture) -> Source:
        return self._runtime.with_picture(source, picture)

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        return self._runtime.reconstruct(keypoints, sources, suppression)


def _cached(cache: "OrderedDict[bytes, T]", limit: int, picture: Picture, function: Callable[[Picture], T]) -> T:
    key = sha256(picture.tobytes()).digest() + bytes(str(picture.shape), "ascii")
    if key in cache:
        cache.move_to_end(key)
    else:
        cache[key] = function(picture)
        if len(cache) > limit:
            cache.popitem(last=False)
    return cache[key]
