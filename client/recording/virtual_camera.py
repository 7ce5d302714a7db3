"""`--virtual-camera`: shows a participant to other programs as a camera."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.client.link.link_state import RenderedFrame
from iwcodec.client.recording.recorder import FPS
from iwcodec.client.room.call import Call, Participant
from iwcodec.codec.errors import CodecError

SIZE: Final = (640, 480)
"""Width and height of the camera's picture in pixels, which every program accepts."""


class VirtualCamera:
    """Shows the participant whose picture arrives first, and another one when that participant leaves.

    Raises CodecError where pyvirtualcam is not installed, or finds no virtual camera device.
    """

    def __init__(self, call: Call) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise CodecError("--virtual-camera needs pyvirtualcam: pip install pyvirtualcam.") from error
        width, height = SIZE
        try:
            self._camera: Any = pyvirtualcam.Camera(width, height, float(FPS), fmt=pyvirtualcam.PixelFormat.RGB)
        except RuntimeError as error:
            raise CodecError(
                "--virtual-camera needs a virtual camera: v4l2loopback on Linux, OBS Studio on Windows and macOS."
            ) from error
        self._call = call
        self._id: str | None = None
        call.frame_listeners.append(self.show)

    def show(self, participant: Participant, frame: RenderedFrame) -> None:
        if self._id not in self._call.participants:
            self._id = participant.id
        if participant.id == self._id:
            self._camera.send(pillarboxed(frame.picture, *SIZE))

    def close(self) -> None:
        self._camera.close()


def pillarboxed(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale a square picture to `height`, centred between black bars; uint8 (height, width, 3)."""
    frame = np.zeros((height, width, 3), np.uint8)
    left = (width - height) // 2
    frame[:, left : left + height] = cv2.resize(picture, (height, height), interpolation=cv2.INTER_CUBIC)
    return frame
