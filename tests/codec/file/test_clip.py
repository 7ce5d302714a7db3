"""A video that is to become a file."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MAX_FRAMES
from iwcodec.codec.errors import NoFaceError
from iwcodec.codec.file.clip import HEADER_BYTES, Clip, EncodeOptions, Footage, frame_input
from iwcodec.codec.file.source_selection import Survey
from iwcodec.codec.media import crop_tracking as framing
from iwcodec.codec.media import face_detector
from iwcodec.codec.media.types import MediaInfo
from media_fixtures import grey_ramp, write_clip
from stub_runtime import StubRuntime


def test_a_square_video_is_taken_whole_after_one_look_that_finds_a_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks: list[int] = []

    class Detector:
        def detect(self, picture: np.ndarray) -> list[framing.Face]:
            looks.append(len(looks))
            return [framing.Face(8, 8, 16, 16, 0.9)] if len(looks) == 2 else []

    monkeypatch.setattr(face_detector, "FaceDetector", Detector)
    clip = write_clip(tmp_path / "square.mp4", grey_ramp(25, 64, 64))
    video = frame_input(clip, EncodeOptions(), lambda name, share: None)
    assert set(video.crops) == {framing.Crop(0, 0, 64)}
    assert len(looks) == 2
    looks += [0, 0]
    with pytest.raises(NoFaceError):
        frame_input(clip, EncodeOptions(), lambda name, share: None)


def clip_of(frames: int, fps: int, kbps: float | None = None) -> Clip:
    info = MediaInfo(64, 64, Fraction(fps), None, frames, 0, None)
    survey = Survey(np.zeros((frames, 1, 1, 3), np.uint8), np.zeros((frames, 20, 3), np.float32))
    return Clip(Footage(Path("a.mp4"), info, [], 64), survey, StubRuntime(), EncodeOptions(64, kbps=kbps))


def test_the_budget_is_what_the_container_leaves_of_the_rate():
    assert clip_of(250, 25).budget is None
    assert clip_of(250, 25, kbps=4).budget == 4 * 10 * 125 - HEADER_BYTES
    assert clip_of(1, 25, kbps=4).budget == 1  # there is always something to divide by


def test_a_record_of_motion_is_never_longer_than_a_packet_may_be():
    assert clip_of(9, 25).message_frames == 50
    assert clip_of(9, 1000).message_frames == MAX_FRAMES
