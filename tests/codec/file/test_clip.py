"""The first passes over the input: crops and face detection; and the budget that a clip has."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES
from iwcodec.codec.errors import MediaError, NoFaceError
from iwcodec.codec.file.clip import (
    HEADER_BYTES,
    MOST_WRONG,
    Clip,
    Footage,
    crop_jumps,
    interpolated,
    open_footage,
    survey_clip,
)
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.media.crop.face_detector import Face
from iwcodec.codec.media.crop.square import Crop
from iwcodec.codec.media.types import MediaInfo
from iwcodec.codec.media.video import sample_clip
from support.codec.stub_runtime import StubRuntime
from support.media.clips import grey_ramp, tone, write_clip


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


@pytest.mark.parametrize(("share", "tuned"), [(MOST_WRONG, True), (MOST_WRONG + 0.1, False)])
def test_a_clip_whose_keypoints_miss_the_face_is_not_tuned_for_it(
    share: float, tuned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Check:
        wrong_share = share

        def corrected(self, pictures: list[np.ndarray], keypoints: list[np.ndarray]) -> list[np.ndarray]:
            return [of_frame + 1 for of_frame in keypoints]

    monkeypatch.setattr("iwcodec.codec.file.clip.FaceCheck", Check)
    info = MediaInfo(64, 64, Fraction(25), None, 5, 0, None)
    footage = Footage(Path("a.mp4"), info, [Crop(0, 0, 64)] * 5, 64, held=list(grey_ramp(5, 64, 64)))
    survey = survey_clip(footage, StubRuntime(), lambda name, share: None, "face")
    assert (survey.regions is not None) == tuned
    assert (survey.faces is not None) == tuned
    if survey.faces is not None:
        np.testing.assert_array_equal(survey.faces, survey.keypoints + 1)


def test_budget_is_the_bitrate_without_the_container() -> None:
    assert make_clip(250, 25).budget is None
    assert make_clip(250, 25, kbps=4).budget == 4 * 10 * 125 - HEADER_BYTES
    assert make_clip(1, 25, kbps=4).budget == 1


def test_motion_records_fit_into_a_packet() -> None:
    assert make_clip(9, 25).message_frames == 50
    assert make_clip(9, 1000).message_frames == MAX_PACKET_FRAMES


def footage_of(path: Path, **options: Any) -> Footage:
    return open_footage(path, EncodeOptions(crop="none", **options), lambda name, share: None)


def levels(footage: Footage) -> list[int]:
    """The frame numbers in the pictures of `grey_ramp`."""
    return [round((float(picture.mean()) - 20) / 8) for picture in footage.pictures()]


def test_a_part_of_the_input_is_read(tmp_path: Path):
    clip = write_clip(tmp_path / "a.mkv", grey_ramp(25), codec="ffv1", pixels="bgr0")
    assert levels(footage_of(clip, size=64, start_s=0.4)) == list(range(10, 25))
    assert levels(footage_of(clip, size=64, duration_s=0.2)) == list(range(5))
    part = footage_of(clip, size=64, start_s=0.4, duration_s=0.2)
    assert levels(part) == list(range(10, 15))
    assert part.warnings == ()
    assert levels(footage_of(clip, size=64, start_s=0.8, duration_s=9.0)) == list(range(20, 25))
    with pytest.raises(MediaError, match=r"no picture after 3 s: it is 1\.0 s long"):
        footage_of(clip, size=64, start_s=3.0)


def test_pictures_of_a_short_clip_are_read_once_and_read_reads_the_file(tmp_path: Path):
    clip = write_clip(tmp_path / "a.mkv", grey_ramp(10), codec="ffv1", pixels="bgr0")
    footage = footage_of(clip, size=64)
    first = list(footage.pictures())
    assert all(picture is held for picture, held in zip(footage.pictures(), first, strict=True))
    for picture, held in zip(footage.read(), first, strict=True):
        assert np.array_equal(picture, held)
        assert picture is not held


def test_a_cut_file_is_reported(tmp_path: Path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(sample_clip().read_bytes()[:200_000])  # its index is at the front
    (warning,) = (line for line in footage_of(path).warnings if "long" in line)
    assert re.match(r"cut\.mp4 should be 8\.3 s long; only 2\.\d s of pictures could be read", warning)
    assert footage_of(sample_clip(), duration_s=0.5).warnings == ()


def test_joined_files_are_reported_and_what_of_them_cannot_be_read(tmp_path: Path):
    """The decoder of the first part cannot read the second."""
    first = write_clip(tmp_path / "1.ts", grey_ramp(25), codec="mpeg2video")
    second = write_clip(tmp_path / "2.ts", grey_ramp(25))
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() * 2)
    joined = "The clock of joined.ts leaps once; its parts are joined without a gap."
    assert footage_of(path, size=64).warnings == (joined,)
    path.write_bytes(first.read_bytes() + second.read_bytes())
    warnings = footage_of(path, size=64).warnings
    assert warnings[0].startswith("joined.ts should be 2.0 s long; only 1.0 s of pictures could be read.")
    assert joined in warnings


def test_damaged_pictures_are_reported(tmp_path: Path):
    path = tmp_path / "damaged.mp4"
    data = bytearray(sample_clip().read_bytes())
    data[100_000:100_500] = np.random.default_rng(1).bytes(500)
    path.write_bytes(data)
    assert any("are damaged" in line for line in footage_of(path, duration_s=2.0).warnings)


def test_sound_before_the_pictures_is_reported(tmp_path: Path):
    sounding = write_clip(tmp_path / "a.mkv", grey_ramp(25), times_s=[0.7 + n / 25 for n in range(25)], sound=tone(1.7))
    assert footage_of(sounding, size=64).warnings == (
        "The sound of a.mkv begins 0.7 s before its pictures; that part is left out.",
    )
    assert footage_of(sounding, size=64, audio=False).warnings == ()


def test_shots_begin_at_cuts_and_where_the_crop_jumps():
    crops = [Crop(0, 0, 100)] * 5 + [Crop(1, 0, 100)] * 5 + [Crop(60, 0, 100)] * 5
    assert crop_jumps(crops) == [10]


def warnings_of(path: Path) -> tuple[str, ...]:
    return open_footage(path, EncodeOptions(crop="none"), lambda name, share: None).warnings


def test_sound_after_the_pictures_and_unknown_sound_are_reported(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mkv", grey_ramp(24), fps=24, sound=tone(3.0))
    assert re.search(r"The sound of long\.mkv goes on for 2\.0 s after its pictures", " ".join(warnings_of(path)))
    path = write_clip(tmp_path / "known.mkv", grey_ramp(24), fps=24, sound=tone(1.0))
    assert warnings_of(path) == ()
    unknown = tmp_path / "unknown.mkv"
    unknown.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_XYAC"))
    assert re.search(r"The sound of unknown\.mkv has a format", " ".join(warnings_of(unknown)))


def test_a_recording_whose_clock_does_not_begin_at_zero_is_not_cut(tmp_path: Path) -> None:
    """The length that browsers and FFmpeg state in WebM and Matroska is the time of the end."""
    path = write_clip(tmp_path / "late.mkv", grey_ramp(24), times_s=[3600 + n / 24 for n in range(24)])
    assert warnings_of(path) == ()


def test_keypoints_between_detected_ones_are_interpolated() -> None:
    first, middle, last = (np.full((20, 3), value, np.float32) for value in (0, 2, 3))
    assert [of_frame[0, 0] for of_frame in interpolated({0: first, 2: middle, 3: last})] == [0, 1, 2, 3]
    assert [of_frame[0, 0] for of_frame in interpolated({0: first})] == [0]


@pytest.mark.parametrize(("step", "detected"), [(1, 20), (2, 12)])
def test_a_single_pass_detects_every_second_frame(step: int, detected: int, tmp_path: Path) -> None:
    class CountingRuntime(StubRuntime):
        count = 0

        def detect(self, picture: np.ndarray) -> np.ndarray:
            self.count += 1
            return super().detect(picture)

    clip = write_clip(tmp_path / "square.mp4", grey_ramp(20, 64, 64))
    runtime, silent = CountingRuntime(), lambda name, share: None
    footage = open_footage(clip, EncodeOptions(64, crop="none"), silent)
    survey = survey_clip(footage, runtime, silent, step=step)
    assert len(survey.keypoints) == 20
    assert runtime.count == detected
