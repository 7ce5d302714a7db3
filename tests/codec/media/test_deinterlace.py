"""Interlaced frames are rebuilt; others pass unchanged."""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from iwcodec.codec.media.deinterlace import deinterlaced


def combed(count: int, interlaced: bool = True) -> Iterator[av.VideoFrame]:
    """A bright bar that moves by 8 pixels in every field."""
    graph = av.filter.Graph()
    for n in range(count):
        picture = np.full((64, 96), 30, np.uint8)
        for field in range(2):
            left = 8 + 8 * (2 * n + field)
            picture[field::2, left : left + 8] = 220
        frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
        frame.pts, frame.time_base = n, Fraction(1, 25)
        if interlaced:
            source = graph.add_buffer(width=96, height=64, format=frame.format, time_base=frame.time_base)
            flag, sink = graph.add("setfield", "tff"), graph.add("buffersink")
            source.link_to(flag)
            flag.link_to(sink)
            graph.configure()
            graph.push(frame)
            frame = graph.pull()
            graph = av.filter.Graph()
        yield frame


def comb(frame: av.VideoFrame) -> float:
    """Mean difference of neighbouring rows."""
    rows = frame.to_ndarray()[:64].astype(int)
    return float(np.abs(np.diff(rows, axis=0)).mean())


def test_fields_are_separated_and_times_kept() -> None:
    before, after = list(combed(6)), list(deinterlaced(combed(6)))
    assert before[0].interlaced_frame
    assert [frame.time for frame in after] == [frame.time for frame in before]
    assert max(map(comb, after)) < min(map(comb, before)) / 3


def test_progressive_frames_pass_at_once() -> None:
    frames = list(combed(3, interlaced=False))
    assert all(a is b for a, b in zip(deinterlaced(iter(frames)), frames, strict=True))


def test_the_size_may_change() -> None:
    small = [frame.reformat(width=48, height=32) for frame in combed(3)]
    assert [frame.width for frame in deinterlaced([*combed(3), *small])] == [96] * 3 + [48] * 3
