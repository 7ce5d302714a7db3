"""Cameras, looped clips, and the crop of live pictures."""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwcodec.client.video import capture as c
from iwcodec.codec.errors import CodecError, MediaError
from iwcodec.codec.media.crop.face_detector import Face
from support.media.clips import CLIP_FPS, CLIP_FRAMES, grey_ramp, plain, write_clip

pytestmark = pytest.mark.realtime

DEVICES = [c.Device(0, "Front Camera", "/dev/video0"), c.Device(1, "Back 2", "/dev/video2")]


class Clock:
    """Advances only with sleep, and by `work_s` with each reading."""

    def __init__(self, work_s: float = 0.0) -> None:
        self.now, self.work_s = 100.0, work_s

    def monotonic(self) -> float:
        self.now += self.work_s
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(c, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("selector", "number"), [(None, 0), ("1", 1), ("Front Camera", 0), ("back", 1), ("2", 1), ("CAMERA", 0)]
)
def test_choose_selects_by_number_or_name(selector: str | None, number: int) -> None:
    assert c.choose(DEVICES, selector, "camera").number == number


def test_choose_lists_the_devices_if_none_matches() -> None:
    with pytest.raises(CodecError, match="no camera 'side'; there are: 0 Front Camera, 1 Back 2"):
        c.choose(DEVICES, "side", "camera")
    with pytest.raises(CodecError, match="no microphone on this machine"):
        c.choose([], None, "microphone")


@pytest.mark.parametrize(
    ("platform", "format", "handle"),
    [("linux", "v4l2", "x"), ("darwin", "avfoundation", "x:none"), ("win32", "dshow", "video=Front")],
)
def test_list_cameras_on_each_system(monkeypatch: pytest.MonkeyPatch, platform: str, format: str, handle: str) -> None:
    asked: list[str] = []

    def enumerate(name: str) -> list[Any]:
        asked.append(name)
        sound = SimpleNamespace(name="y", description="Mic", media_types=["audio"])
        return [sound, SimpleNamespace(name="x", description="Front", media_types=["video"])]

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(c.os.path, "exists", lambda path: True)
    monkeypatch.setattr(c.av, "enumerate_input_devices", enumerate)
    assert c.list_cameras() == [c.Device(0, "Front", handle)]
    assert asked == [format]


def test_camera_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opens FFmpeg's test source as a device, like a camera."""
    monkeypatch.setattr(c, "_FORMATS", {sys.platform: "lavfi"})
    monkeypatch.setattr(c, "_CAMERA_OPTIONS", {})
    device = c.Device(0, "test", "testsrc=size=320x240:rate=30")
    taken = list(itertools.islice(c.camera_frames(device), 3))
    assert taken[0].picture.shape == (240, 320, 3)
    assert taken[0].captured_s <= taken[2].captured_s <= time.monotonic()


def test_camera_that_cannot_be_opened_or_stops_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="camera Front cannot be used"):
        next(c.camera_frames(c.Device(0, "Front", "/dev/video99")))
    monkeypatch.setattr(c, "_FORMATS", {sys.platform: "lavfi"})
    monkeypatch.setattr(c, "_CAMERA_OPTIONS", {})
    with pytest.raises(MediaError, match="camera test stopped"):
        list(c.camera_frames(c.Device(0, "test", "testsrc=duration=0.1")))


def test_clip_loops_at_its_own_rate(tmp_path: Path, clock: Clock) -> None:
    clip = c.Clip(write_clip(tmp_path / "ramp.mkv", grey_ramp(5), fps=10, codec="ffv1", pixels="bgr0"))
    taken = list(itertools.islice(clip.frames(), 12))
    assert [round(t.captured_s - 100, 3) for t in taken] == [round(n / 10, 3) for n in range(12)]
    assert [t.picture[0, 0, 0] for t in taken] == [20 + 8 * (n % 5) for n in range(12)]


def test_clip_drops_late_frames(tmp_path: Path, clock: Clock) -> None:
    clip = c.Clip(write_clip(tmp_path / "ramp.mkv", grey_ramp(10), fps=10, codec="ffv1", pixels="bgr0"))
    frames = clip.frames()
    next(frames)
    clock.now += 0.65
    assert next(frames).captured_s == pytest.approx(100.5)
    clock.now += 5.0
    assert next(frames).captured_s > clock.now - 1.2


def test_clip_sound_and_pictures_share_a_clock(face_clip: Path, clock: Clock) -> None:
    clip = c.Clip(face_clip)
    assert clip.has_sound
    blocks = list(itertools.islice(clip.blocks(), 160))
    assert blocks[0][1] == clip.started_s
    second = next(at for at, (_, taken) in enumerate(blocks) if taken >= clip.started_s + clip.duration_s - 1e-6)
    assert blocks[second][1] == pytest.approx(clip.started_s + clip.duration_s)
    assert sum(len(block) for block, _ in blocks[:second]) == pytest.approx(48_000 * CLIP_FRAMES / CLIP_FPS, abs=2000)
    for (block, taken), (_, following) in itertools.pairwise(blocks[: second - 1]):
        assert following - taken == pytest.approx(len(block) / 48_000)


def test_clip_starts_at_an_offset(tmp_path: Path, clock: Clock) -> None:
    path = write_clip(tmp_path / "ramp.mkv", grey_ramp(10), fps=10, codec="ffv1", pixels="bgr0")
    assert next(c.Clip(path, offset_s=0.5).frames()).picture[0, 0, 0] >= 20 + 8 * 3


def test_clip_that_does_not_exist() -> None:
    with pytest.raises(MediaError, match="does not exist"):
        c.Clip(Path("nothing.mp4"))


def test_live_crop_follows_the_face_slowly() -> None:
    crop = c.LiveCrop(128, 25)

    class Detector:
        calls = 0
        x = 100

        def detect(self, picture: np.ndarray) -> list[Face]:
            self.calls += 1
            return [Face(self.x, 100, 120, 160, 0.9)]

    detector = Detector()
    crop._detector = detector
    ramp = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (480, 640, 3)).copy()

    def middle() -> float:
        return float(crop(ramp)[64, 64, 0])

    at_rest = [middle() for _ in range(20)]
    assert np.ptp(at_rest[1:]) == 0
    detector.x = 400
    moving = [middle() for _ in range(100)]
    assert moving[-1] > at_rest[-1] + 60
    assert detector.calls == 24


def test_live_crop_keeps_square_pictures_whole_and_fixed_crops() -> None:
    assert c.LiveCrop(64, 25)(plain((9, 9, 9), 200, 200)).shape == (64, 64, 3)
    picture = plain((0, 0, 0), 200, 100)
    picture[:, 100:] = 255
    assert c.LiveCrop(32, 25, "100,10,40")(picture).min() == 255


def frames(*times: float, wait: Any = None) -> Iterator[c.CapturedFrame]:
    for number, at in enumerate(times):
        yield c.CapturedFrame(plain((number,) * 3), at)


def collect(source: Iterator[c.CapturedFrame]) -> list[int]:
    async def read() -> list[int]:
        pictures = c.Pictures(source, lambda picture: picture)
        values = []
        try:
            async for frame in pictures:
                values.append(int(frame.picture[0, 0, 0]))
                await asyncio.sleep(0.05)
        finally:
            pictures.close()
        return values

    return asyncio.run(read())


def test_slow_consumer_gets_the_newest_picture() -> None:
    """50 pictures arrive at once."""
    values = collect(frames(*(n / 10 for n in range(50))))
    assert values[-1] == 49
    assert len(values) < 10


def test_fast_camera_is_limited_to_max_fps() -> None:
    def slowly() -> Iterator[c.CapturedFrame]:
        for taken in frames(*(1 + n / 120 for n in range(12))):
            yield taken
            time.sleep(0.02 if int(taken.picture[0, 0, 0]) % 4 == 0 else 0.0)

    assert set(collect(slowly())) <= {0, 4, 8}


def test_camera_failure_is_raised_to_the_consumer() -> None:
    def failing() -> Iterator[c.CapturedFrame]:
        yield c.CapturedFrame(plain((1, 1, 1)), 1.0)
        time.sleep(0.1)
        raise MediaError("The camera went away.")

    with pytest.raises(MediaError, match="went away"):
        collect(failing())
