"""A camera that goes away and comes back, and a change to another one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")
from iwcodec.client.video import camera as c
from iwcodec.client.video.capture import CapturedFrame, Device
from iwcodec.codec.errors import CodecError, MediaError

FRONT, BACK = Device(0, "Front", "/dev/video0"), Device(1, "Back", "/dev/video2")


class Cameras:
    """What each camera does when it is opened: a number of frames, after which it goes away, or None for an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *devices: Device) -> None:
        self.devices = list(devices)
        self.opened: list[str] = []
        self.counts: list[int | None] = []
        monkeypatch.setattr(c, "list_cameras", lambda: self.devices)
        monkeypatch.setattr(c, "camera_frames", self.frames)
        monkeypatch.setattr(c, "RETRY_S", 0.0)

    def frames(self, device: Device) -> Iterator[CapturedFrame]:
        count = self.counts.pop(0)
        if count is None:
            raise MediaError(f"The camera {device.name} cannot be used.")
        self.opened.append(device.name)
        for _ in range(count):
            yield CapturedFrame(np.zeros((2, 2, 3), np.uint8), 0.0)
        raise MediaError(f"The camera {device.name} went away.")


def taken(frames: Iterator[Any], count: int) -> None:
    for _ in range(count):
        next(frames)


def test_a_camera_that_goes_away_is_opened_again(monkeypatch: pytest.MonkeyPatch):
    cameras, notices = Cameras(monkeypatch, FRONT), list[str]()
    cameras.counts = [2, None, None, 3]
    frames = c.Camera(None, notices.append).frames()
    taken(frames, 5)
    assert cameras.opened == ["Front", "Front"]
    assert notices == ["The camera Front went away.", "The camera is now Front."]


def test_another_camera_takes_its_place(monkeypatch: pytest.MonkeyPatch):
    cameras, notices = Cameras(monkeypatch, FRONT, BACK), list[str]()
    cameras.counts = [1, 3]
    frames = c.Camera("Front", notices.append).frames()
    taken(frames, 1)
    cameras.devices.remove(FRONT)
    taken(frames, 1)
    assert notices == ["The camera Front went away.", "The camera is now Back."]


def test_the_camera_is_changed_on_request(monkeypatch: pytest.MonkeyPatch):
    cameras = Cameras(monkeypatch, FRONT, BACK)
    cameras.counts = [9, 9, 9]
    camera = c.Camera(None, lambda text: None)
    frames = camera.frames()
    taken(frames, 2)
    assert camera.change() == "The camera is now Back."
    taken(frames, 2)
    assert camera.change() == "The camera is now Front."
    taken(frames, 2)
    assert cameras.opened == ["Front", "Back", "Front"]
    cameras.devices.remove(BACK)
    assert camera.change() == "There is no other camera."
    camera.close()
    assert list(frames) == []


def test_a_camera_that_cannot_be_opened_at_first_raises(monkeypatch: pytest.MonkeyPatch):
    cameras = Cameras(monkeypatch, FRONT)
    cameras.counts = [None]
    with pytest.raises(MediaError, match="cannot be used"):
        next(c.Camera(None, lambda text: None).frames())
    cameras.devices.clear()
    with pytest.raises(CodecError, match="no camera on this machine"):
        c.Camera(None, lambda text: None)
