"""What a call leaves behind: `--record`, the received video of a peer as an .iwc file, and `--virtual-camera`."""

from typing import Any

from ..errors import CodecError
from ..media import Picture
from .call import Call, Participant
from .link import Shown


class FirstSeen:
    """The participant that was seen first, for as long as it is in the call; then the next one."""

    def __init__(self) -> None:
        self._id: str | None = None

    def is_it(self, call: Call, participant: Participant) -> bool:
        if self._id not in call.participants:
            self._id = participant.id
        return participant.id == self._id


class Recorder:
    def __init__(self, path: Any, runtime: Any) -> None:
        pass


class VirtualCamera:
    """Shows a peer to other programs, through pyvirtualcam. Raises CodecError where it is not installed."""

    def __init__(self, size: int) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise CodecError("--virtual-camera needs pyvirtualcam: pip install pyvirtualcam.") from error
