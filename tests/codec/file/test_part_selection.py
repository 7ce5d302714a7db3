"""Choosing parts: a still face whose eyes are covered by a dark bar in some frames."""

import cv2
import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MotionPacket, Run, SourcePacket
from iwcodec.codec.file.closed_loop import Stream
from iwcodec.codec.file.source_plan import CodedSources, Plan
from iwcodec.codec.media.crop import Crop, crop_resize
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.parts import EYES, region_box
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime

COUNT, SIZE = 40, 256
COVERED = (*range(8, 12), *range(26, 31))
"""Frames in which a bar covers the eyes."""
SKIPPED = 24
"""The first frames are in skip mode, the others are reconstructed."""


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return load_runtime(kind="onnx", threads=1)


@pytest.fixture(scope="module")
def face() -> Picture:
    return crop_resize(next(iter(read_video(sample_clip()))).picture, Crop(140, 0, 360), SIZE)


@pytest.fixture(scope="module")
def originals(runtime: Runtime, face: Picture) -> list[Picture]:
    box = region_box(runtime.detect(face), EYES, SIZE)
    centre, reach = np.array([box.x, box.y]) / 8, np.array([box.width, box.height]) * 0.3 / 8
    corners = [tuple(map(int, np.rint(centre + sign * reach))) for sign in (-1, 1)]
    covered = cv2.rectangle(face.copy(), *corners, (30, 20, 20), -1)
    return [covered if number in COVERED else face for number in range(COUNT)]


@pytest.fixture(scope="module")
def stream(face: Picture) -> Stream:
    """The still face as the only source, sent as frame 0, in two motion packets."""
    coder = TransformCoder(load_transform_tables())
    packets, first = [], 0
    for frames, level in ((SKIPPED, 0), (COUNT - SKIPPED, 1)):
        levels = np.zeros((frames, 60), np.int32)
        levels[:, 20] = level
        packets.append(MotionPacket(first, frames, None, coder.encode([levels]), (Run(0, frames),), scale=46))
        first += frames
    source = SourcePacket(0, SourceEncoder(SIZE, 30, 8).add(face), 0)
    return Stream(CodedSources(Plan((0,), 30, True), (source,)), packets, 1)
