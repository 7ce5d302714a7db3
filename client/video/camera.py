"""The camera of a call: reopened when it goes away, and changed on request."""

import threading
from collections.abc import Callable, Iterator
from typing import Final

from iwcodec.client.video.capture import CapturedFrame, Device, camera_frames, choose, list_cameras
from iwcodec.codec.errors import MediaError

RETRY_S: Final = 2.0
"""Interval between attempts to open a camera that went away, or another one."""


class Camera:
    """Frames of the selected camera, in the thread that iterates over them. `notify` is called there with what the
    user should know."""

    def __init__(self, selector: str | None, notify: Callable[[str], None]) -> None:
        """`selector`: number or part of the name. Raises CodecError if there is no such camera."""
        self._device = choose(list_cameras(), selector, "camera")
        self._notify = notify
        self._closed = threading.Event()

    def frames(self) -> Iterator[CapturedFrame]:
        """Frames until closed. Raises MediaError if the camera cannot be opened in the first place."""
        is_lost, has_begun = False, False
        while not self._closed.is_set():
            device = self._device
            try:
                for frame in camera_frames(device):
                    if is_lost:
                        self._notify(f"The camera is now {device.name}.")
                    is_lost, has_begun = False, True
                    yield frame
                    if self._closed.is_set() or self._device is not device:
                        break
            except MediaError as error:
                if not has_begun:
                    raise
                if not is_lost:
                    self._notify(str(error))
                is_lost = True
                self._closed.wait(RETRY_S)
                if self._device is device:
                    self._device = self._replacement(device)

    def change(self) -> str:
        """Use the next camera. Returns what the user should know."""
        devices = list_cameras()
        names = [device.name for device in devices]
        if self._device.name not in names or len(devices) == 1:
            return "There is no other camera."
        self._device = devices[(names.index(self._device.name) + 1) % len(devices)]
        return f"The camera is now {self._device.name}."

    def close(self) -> None:
        self._closed.set()

    def _replacement(self, lost: Device) -> Device:
        """The same camera if it is back; otherwise the next one, if there is any."""
        devices = list_cameras()
        same = [device for device in devices if device.name == lost.name]
        others = [device for device in devices if device.number > lost.number] or devices
        return (same or others or [lost])[0]
