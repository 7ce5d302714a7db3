"""One's own video, encoded once for all peers."""

from concurrent.futures import Executor

from ..media import Picture
from ..models.runtime import Runtime


class Feed:
    """Camera frames in; every link takes from it what it needs."""

    def __init__(self, runtime: Runtime, executor: Executor) -> None:
        self.preview: Picture | None = None
        """Oneself as others see it, rebuilt by the sender's own decoder, at a low rate."""
        raise NotImplementedError

    async def push(self, picture: Picture, captured_s: float) -> None:
        """One camera frame: square, uint8 RGB, of `runtime.info.size`; `captured_s` is time.monotonic(). Keypoints are
        found off the event loop; where they cannot keep up the newest frame wins."""
        raise NotImplementedError

    def pause(self, on: bool) -> None:
        """Camera off; peers are told."""
        raise NotImplementedError
