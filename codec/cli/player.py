"""`iwcodec play`: play a file in a window, with sound. Space pauses, left and right seek, q or Esc quits."""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from iwcodec.codec.decoder import Frame
from iwcodec.codec.errors import CodecError, FormatError
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.types import AUDIO_RATE, Samples

Item = TypeVar("Item")
Opener = Callable[[], IwcFile]
"""Opens the playing file once more, with the network that is already loaded."""

SEEK_S = 5.0
"""Seconds that a key press seeks."""
FRAMES_AHEAD = 12
"""Decoded frames that wait to be shown, at most."""
WINDOW_SIDE = 512
"""Pixels, at first."""
LATE_S = 0.25
"""Seconds after its time from which a frame is skipped, so that the picture catches up with the sound."""
AUDIO_BLOCK_S = 0.5
"""Seconds of sound in a block."""
INVISIBLE = ("offscreen", "dummy")
"""SDL's video drivers that show nothing."""
BLOCKS_AHEAD = 3
"""Blocks of sound that wait to be played, at most."""


@dataclass
class Playback:
    """The state of the player, which keys change and the clock advances. Times in seconds."""

    duration_s: float
    position_s: float = 0.0
    paused: bool = False
    finished: bool = False
    seeks: list[float] = field(default_factory=list)
    """Positions that were sought and not yet played from."""

    def press(self, key: str) -> None:
        """Handle a key: "space", "left", "right" or "q"."""
        if key == "space":
            self.paused = not self.paused
        elif key in ("left", "right"):
            step = SEEK_S if key == "right" else -SEEK_S
            self.position_s = min(max(0.0, self.position_s + step), max(0.0, self.duration_s - 0.1))
            self.seeks.append(self.position_s)
        elif key == "q":
            self.finished = True


class Prefetcher(Generic[Item]):
    """Decode items of a file (frames or blocks of sound) ahead of time, in a thread of its own."""

    def __init__(self, open_file: Opener, items: Callable[[IwcFile], Iterator[Item]], limit: int) -> None:
        """`items` yields the items of the opened file; at most `limit` of them wait."""
        self._waiting: queue.Queue[Item | None] = queue.Queue(limit)
        self._stopped = threading.Event()
        self.error: str | None = None
        """Message of the error that ended decoding early."""
        self._thread = threading.Thread(target=self._decode, args=(open_file, items), daemon=True)
        self._thread.start()

    def _decode(self, open_file: Opener, items: Callable[[IwcFile], Iterator[Item]]) -> None:
        try:
            with open_file() as file:
                for item in items(file):
                    self._put(item)
                    if self._stopped.is_set():
                        return
        except CodecError as error:
            self.error = str(error)
        self._put(None)

    def _put(self, item: Item | None) -> None:
        while not self._stopped.is_set():
            try:
                self._waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def next(self) -> Item | None:
        """Wait for the next item; None at the end."""
        return self._waiting.get()

    def empty(self) -> bool:
        """Return whether no item is ready."""
        return self._waiting.empty()

    def stop(self) -> None:
        """Stop decoding, discard what waits, and join the thread."""
        self._stopped.set()
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._thread.join()


@dataclass
class PlayReport:
    """What was played."""

    shown: int = 0
    """Frames."""
    late: int = 0
    """Frames skipped because their time had passed by LATE_S."""
    seconds: float = 0.0
    """Duration, including pauses."""


def play(path: Path) -> PlayReport:
    """Play a file until it ends or the window is closed. Raises CodecError if there is no display or the file cannot be
    decoded."""
    with IwcFile(path) as file:
        header, runtime = file.header, file.runtime
        frames = header.frames or file.reader.count_frames()  # the header of a recorded call does not say
    if frames < 1:
        raise FormatError(f"{path} holds no frames.")
    playback, report, started = Playback(frames / float(header.fps)), PlayReport(), time.monotonic()
    with window(path.name) as screen:
        open_file = partial(IwcFile, path, runtime)
        speaker = open_speaker(open_file) if header.audio is not None else None
        while not playback.finished:
            run_from(playback, open_file, float(header.fps), screen, speaker, report)
    report.seconds = round(time.monotonic() - started, 3)
    return report


@contextmanager
def window(title: str) -> Iterator[Any]:
    """Open a pygame window. Raises CodecError if pygame or a display is missing."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as error:
        raise CodecError("Playing needs the Python package pygame-ce: pip install pygame-ce.") from error
    try:
        open_display()
        screen = pygame.display.set_mode((WINDOW_SIDE, WINDOW_SIDE), pygame.RESIZABLE)
    except pygame.error as error:
        pygame.quit()
        raise CodecError(
            f"There is no display to play on ({error}); use `iwcodec decode IN.iwc OUT.mp4` instead."
        ) from error
    try:
        pygame.display.set_caption(f"{title} - reconstructed")
        yield screen
    finally:
        pygame.quit()


def open_display() -> None:
    """Start SDL's video. Raises pygame.error without a display; SDL itself would draw where nobody sees it.
    SDL_VIDEODRIVER overrides this."""
    import pygame

    chosen = os.environ.get("SDL_VIDEODRIVER")
    if not chosen and sys.platform == "linux" and not _linux_display():
        raise pygame.error("neither DISPLAY nor WAYLAND_DISPLAY is set")
    pygame.display.init()
    if not chosen and pygame.display.get_driver() in INVISIBLE:
        raise pygame.error("neither Wayland nor X11 answers")


def _linux_display() -> bool:
    """Whether X11 or Wayland may answer. Without one, libwayland prints lines of its own."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    return bool(os.environ.get("DISPLAY") or (folder and os.environ.get("WAYLAND_DISPLAY")))


class Speaker:
    """Play the sound of a file from any position, a few blocks at a time."""

    def __init__(self, open_file: Opener) -> None:
        self._open = open_file
        self._blocks: Prefetcher[Samples] | None = None
        self._channel: Any = None

    def start(self, at_s: float) -> None:
        """Play from `at_s` seconds on; waits for the first block to be decoded."""
        self.stop()
        first = round(at_s * AUDIO_RATE)
        self._blocks = Prefetcher(self._open, lambda file: blocks(file.samples(first)), BLOCKS_AHEAD)
        self._play(self._blocks.next())

    def refill(self) -> None:
        """Queue the next block if the mixer has room. Call more often than every AUDIO_BLOCK_S seconds."""
        if self._blocks is not None and not self._blocks.empty() and self._channel.get_queue() is None:
            self._play(self._blocks.next())

    def stop(self) -> None:
        """Stop playing at once."""
        if self._blocks is not None:
            self._blocks.stop()
            self._blocks = None
        if self._channel is not None:
            self._channel.stop()
            self._channel = None

    def _play(self, block: Samples | None) -> None:
        import pygame

        if block is None:  # the end; queued blocks still play
            self._blocks = None
            return
        sound = pygame.mixer.Sound(buffer=block.tobytes())
        if self._channel is None:
            self._channel = sound.play()
        else:
            self._channel.queue(sound)


def blocks(samples: Iterator[Samples]) -> Iterator[Samples]:
    """Yield the same samples in blocks of AUDIO_BLOCK_S seconds; the last one may be shorter."""
    waiting, length = np.zeros(0, np.int16), round(AUDIO_BLOCK_S * AUDIO_RATE)
    for piece in samples:
        waiting = np.concatenate([waiting, piece])
        while len(waiting) >= length:
            yield waiting[:length]
            waiting = waiting[length:]
    if len(waiting):
        yield waiting


def open_speaker(open_file: Opener) -> Speaker | None:
    """Open the sound device; None if there is none, and the file then plays without sound."""
    import pygame

    try:
        pygame.mixer.init(AUDIO_RATE, -16, 1, allowedchanges=0)
    except pygame.error:
        return None
    return Speaker(open_file)


def run_from(
    playback: Playback, open_file: Opener, fps: float, screen: Any, speaker: Speaker | None, report: PlayReport
) -> None:
    """Play from the current position until a seek, the end of the file, or a quit."""
    first = round(playback.position_s * fps)
    frames = Prefetcher(open_file, lambda file: file.frames(first), FRAMES_AHEAD)
    playback.seeks.clear()
    frame = frames.next()
    if speaker is not None and not playback.paused:
        speaker.start(playback.position_s)
    offset = time.monotonic() - playback.position_s
    try:
        while frame is not None and not playback.finished and not playback.seeks:
            was_paused = playback.paused
            poll_keys(playback)
            if playback.seeks or playback.finished:
                break
            if playback.paused != was_paused and speaker is not None:
                speaker.stop() if playback.paused else speaker.start(playback.position_s)
            if playback.paused:
                offset = time.monotonic() - playback.position_s
                time.sleep(0.02)
                continue
            if speaker is not None:
                speaker.refill()
            due = frame.number / fps - (time.monotonic() - offset)
            if due > 0:
                time.sleep(min(due, 0.02))
                continue
            playback.position_s = frame.number / fps
            if due > -LATE_S:
                show(screen, frame)
                report.shown += 1
            else:
                report.late += 1
            frame = frames.next()
    finally:
        if speaker is not None:
            speaker.stop()
        frames.stop()
    if frames.error is not None:
        raise FormatError(frames.error)
    if frame is None:
        playback.finished = True


def poll_keys(playback: Playback) -> None:
    """Pass the keys pressed since the last call to `playback`."""
    import pygame

    names = {
        pygame.K_SPACE: "space",
        pygame.K_LEFT: "left",
        pygame.K_RIGHT: "right",
        pygame.K_q: "q",
        pygame.K_ESCAPE: "q",
    }
    for event in pygame.event.get():
        if event.type == pygame.QUIT:
            playback.press("q")
        elif event.type == pygame.KEYDOWN and event.key in names:
            playback.press(names[event.key])


def show(screen: Any, frame: Frame) -> None:
    """Draw a frame in the middle of the window, as large as fits."""
    import pygame

    width, height = screen.get_size()
    side = min(width, height)
    surface = pygame.surfarray.make_surface(frame.picture.swapaxes(0, 1))
    screen.fill((0, 0, 0))
    screen.blit(pygame.transform.smoothscale(surface, (side, side)), ((width - side) // 2, (height - side) // 2))
    pygame.display.flip()
