"""The first passes over the input: crops and face detection; and the budget that a clip has."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES
from iwcodec.codec.errors import NoFaceError
from iwcodec.codec.file.clip import HEADER_BYTES, Clip, Footage, open_footage
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.media.crop import Crop
from iwcodec.codec.media.face_detector import Face
from iwcodec.codec.media.types import MediaInfo
from media_fixtures import grey_ramp, write_clip
from stub_runtime import StubRuntime


def test_square_video_is_coded_whole_and_detection_stops_at_the_first_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detections: list[int] = []

    class Detector:
        def detect(self, picture: np.ndarray) -> list[Face]:
            detections.append(len(detections))
            return [Face(8, 8, 16, 16, 0.9)] if len(detections) == 2 else []

    monkeypatch.setattr("iwcodec.codec.file.clip.FaceDetector", Detector)
    clip = write_clip(tmp_path / "square.mp4", grey_ramp(25, 64, 64))
    footage = open_footage(clip, EncodeOptions(), lambda name, share: None)
    assert set(footage.crops) == {Crop(0, 0, 64)}
    assert len(detections) == 2
    detections += [0, 0]  # from now on no face is detected
    with pytest.raises(NoFaceError):
        open_footage(clip, EncodeOptions(), lambda name, share: None)


def make_clip(frames: int, fps: int, kbps: float | None = None) -> Clip:
    info = MediaInfo(64, 64, Fraction(fps), None, frames, 0, None)
    survey = Survey(np.zeros((frames, 1, 1, 3), np.uint8), np.zeros((frames, 20, 3), np.float32))
    return Clip(Footage(Path("a.mp4"), info, [], 64), survey, StubRuntime(), EncodeOptions(64, kbps=kbps))


def test_budget_is_the_bitrate_without_the_container() -> None:
    assert make_clip(250, 25).budget is None
    assert make_clip(250, 25, kbps=4).budget == 4 * 10 * 125 - HEADER_BYTES
    assert make_clip(1, 25, kbps=4).budget == 1


def test_motion_records_fit_into_a_packet() -> None:
    assert make_clip(9, 25).message_frames == 50
    assert make_clip(9, 1000).message_frames == MAX_PACKET_FRAMES
