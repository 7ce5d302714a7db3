"""Cameras, files in their place, and the crop of a live picture."""

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
from iwcodec.codec.media.face_detector import Face
from media_fixtures import CLIP_FRAMES, grey_ramp, plain, write_clip

pytestmark = pytest.mark.realtime

DEVICES = [c.Device(0, "Front Camera", "/dev/video0"), c.Device(1, "Back 2", "/dev/video2")]


class Clock:
    """Time passes only by sleeping, and by `work_s` with every look at the clock."""

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
    ("wanted", "number"), [(None, 0), ("1", 1), ("Front Camera", 0), ("back", 1), ("2", 1), ("CAMERA", 0)]
)
def test_a_device_is_chosen_by_number_or_name(wanted: str | None, number: int) -> None:
    assert c.choose(DEVICES, wanted, "camera").number == number


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(CodecError, match="no camera 'side'; there are: 0 Front Camera, 1 Back 2"):
        c.choose(DEVICES, "side", "camera")
    with pytest.raises(CodecError, match="no microphone on this machine"):
        c.choose([], None, "microphone")


@pytest.mark.parametrize(
    ("platform", "format", "handle"),
    [("linux", "v4l2", "x"), ("darwin", "avfoundation", "x:none"), ("win32", "dshow", "video=Front")],
)
def test_cameras_of_each_system(monkeypatch: pytest.MonkeyPatch, platform: str, format: str, handle: str) -> None:
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


def test_a_camera_gives_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's test source is opened as a device, as cameras are."""
    monkeypatch.setattr(c, "_FORMATS", {sys.platform: "lavfi"})
    monkeypatch.setattr(c, "_PICTURE", {})
    device = c.Device(0, "test", "testsrc=size=320x240:rate=30")
    taken = list(itertools.islice(c.camera_frames(device), 3))
    assert taken[0].picture.shape == (240, 320, 3)
    assert taken[0].captured_s <= taken[2].captured_s <= time.monotonic()


def test_a_camera_that_cannot_be_opened_or_ends_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="camera Front cannot be used"):
        next(c.camera_frames(c.Device(0, "Front", "/dev/video99")))
    monkeypatch.setattr(c, "_FORMATS", {sys.platform: "lavfi"})
    monkeypatch.setattr(c, "_PICTURE", {})
    with pytest.raises(MediaError, match="camera test stopped"):
        list(c.camera_frames(c.Device(0, "test", "testsrc=duration=0.1")))


def test_a_clip_plays_over_and_over_at_its_own_rate(tmp_path: Path, clock: Clock) -> None:
    clip = c.Clip(write_clip(tmp_path / "ramp.mkv", grey_ramp(5), fps=10, codec="ffv1", pixels="bgr0"))
    taken = list(itertools.islice(clip.frames(), 12))
    assert [round(t.captured_s - 100, 3) for t in taken] == [round(n / 10, 3) for n in range(12)]
    assert [t.picture[0, 0, 0] for t in taken] == [20 + 8 * (n % 5) for n in range(12)]


def test_a_clip_that_falls_behind_leaves_frames_out(tmp_path: Path, clock: Clock) -> None:
    clip = c.Clip(write_clip(tmp_path / "ramp.mkv", grey_ramp(10), fps=10, codec="ffv1", pixels="bgr0"))
    frames = clip.frames()
    next(frames)
    clock.now += 0.65
    assert next(frames).captured_s == pytest.approx(100.5)
    clock.now += 5.0
    assert next(frames).captured_s > clock.now - 1.2


def test_sound_and_picture_of_a_clip_share_a_clock(face_clip: Path, clock: Clock) -> None:
    clip = c.Clip(face_clip)
    assert clip.sound
    blocks = list(itertools.islice(clip.blocks(), 160))
    assert blocks[0][1] == clip.started_s
    second = next(at for at, (_, taken) in enumerate(blocks) if taken >= clip.started_s + clip.duration_s - 1e-6)
    assert blocks[second][1] == pytest.approx(clip.started_s + clip.duration_s)
    assert sum(len(block) for block, _ in blocks[:second]) == pytest.approx(48_000 * CLIP_FRAMES / 24, abs=2000)
    for (block, taken), (_, following) in itertools.pairwise(blocks[: second - 1]):
        assert following - taken == pytest.approx(len(block) / 48_000)


def test_a_clip_may_begin_in_its_middle(tmp_path: Path, clock: Clock) -> None:
    path = write_clip(tmp_path / "ramp.mkv", grey_ramp(10), fps=10, codec="ffv1", pixels="bgr0")
    assert next(c.Clip(path, into_s=0.5).frames()).picture[0, 0, 0] >= 20 + 8 * 3


def test_what_is_no_clip() -> None:
    with pytest.raises(MediaError, match="does not exist"):
        c.Clip(Path("nothing.mp4"))


def test_the_live_crop_follows_the_face_slowly() -> None:
    crop = c.LiveCrop(128, 25)

    class Finder:
        looks = 0
        x = 100

        def detect(self, picture: np.ndarray) -> list[Face]:
            self.looks += 1
            return [Face(self.x, 100, 120, 160, 0.9)]

    finder = Finder()
    crop._detector = finder  # type: ignore[assignment]
    ramp = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (480, 640, 3)).copy()

    def middle() -> float:
        return float(crop(ramp)[64, 64, 0])

    still = [middle() for _ in range(20)]
    assert np.ptp(still[1:]) == 0
    finder.x = 400
    moving = [middle() for _ in range(100)]
    assert moving[-1] > still[-1] + 60
    assert finder.looks == 24


def test_a_square_picture_is_taken_whole_and_a_fixed_crop_kept() -> None:
    assert c.LiveCrop(64, 25)(plain((9, 9, 9), 200, 200)).shape == (64, 64, 3)
    picture = plain((0, 0, 0), 200, 100)
    picture[:, 100:] = 255
    assert c.LiveCrop(32, 25, "100,10,40")(picture).min() == 255


def frames(*times: float, wait: Any = None) -> Iterator[c.Taken]:
    for number, at in enumerate(times):
        yield c.Taken(plain((number,) * 3), at)


def collected(source: Iterator[c.Taken]) -> list[int]:
    async def take() -> list[int]:
        pictures = c.Pictures(source, lambda picture: picture)
        found = []
        try:
            async for taken in pictures:
                found.append(int(taken.picture[0, 0, 0]))
                await asyncio.sleep(0.05)
        finally:
            pictures.close()
        return found

    return asyncio.run(take())


def test_the_newest_picture_wins() -> None:
    """All come at once: a slow taker gets the last one."""
    found = collected(frames(*(n / 10 for n in range(50))))
    assert found[-1] == 49
    assert len(found) < 10


def test_a_fast_camera_is_thinned_out() -> None:
    def slowly() -> Iterator[c.Taken]:
        for taken in frames(*(1 + n / 120 for n in range(12))):
            yield taken
            time.sleep(0.02 if int(taken.picture[0, 0, 0]) % 4 == 0 else 0.0)

    assert set(collected(slowly())) <= {0, 4, 8}


def test_a_camera_that_fails_tells_whoever_takes() -> None:
    def failing() -> Iterator[c.Taken]:
        yield c.Taken(plain((1, 1, 1)), 1.0)
        time.sleep(0.1)
        raise MediaError("The camera went away.")

    with pytest.raises(MediaError, match="went away"):
        collected(failing())


def test_the_sound_of_a_clip_reaches_the_loop(face_clip: Path) -> None:
    async def take() -> list[tuple[int, float]]:
        heard: list[tuple[int, float]] = []
        enough = asyncio.Event()

        def listen(block: np.ndarray, taken_s: float) -> None:
            heard.append((len(block), taken_s))
            if len(heard) == 5:
                enough.set()

        source = c.ClipSound(c.Clip(face_clip), listen)
        await asyncio.wait_for(enough.wait(), 20)
        source.close()
        return heard

    heard = asyncio.run(take())
    assert [count for count, _ in heard[:5]] == [960] * 5


def test_a_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, Any] = {}

    class Stream:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            opened.update(options)

        def start(self) -> None:
            times = SimpleNamespace(currentTime=5.0, inputBufferAdcTime=4.9)
            opened["callback"](np.full((960, 1), 7, np.int16), 960, times, None)

        def stop(self) -> None:
            pass

        close = stop

    found = [
        {"name": "Line", "max_input_channels": 0, "index": 0},
        {"name": "Mic", "max_input_channels": 2, "index": 4},
    ]
    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(InputStream=Stream, query_devices=lambda: found))
    assert c.list_microphones() == [c.Device(0, "Mic", "4")]

    async def take() -> list[Any]:
        heard: list[Any] = []
        source = c.MicrophoneSound(c.list_microphones()[0], lambda block, at: heard.append((block, at)))
        await asyncio.sleep(0.01)
        source.close()
        return heard

    now = time.monotonic()
    ((block, taken_s),) = asyncio.run(take())
    assert opened["device"] == 4
    assert block.tolist() == [7] * 960
    assert now - 0.1 <= taken_s < time.monotonic()


def test_a_microphone_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise OSError("Device unavailable")

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(InputStream=none))

    async def take() -> None:
        with pytest.raises(CodecError, match="microphone cannot be used: Device unavailable"):
            c.MicrophoneSound(None, lambda block, at: None)

    asyncio.run(take())
