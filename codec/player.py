"""`iwcodec play`: a window, with sound. Space pauses, left and right seek, q or Esc quits."""

import os
import queue
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
"""Opens the file that plays, with the network that is loaded already."""

SEEK_S = 5.0
AHEAD = 12
"""Decoded frames that may wait to be shown."""
WINDOW = 512
LATE_S = 0.25
"""A frame this late is not shown: the picture catches up with the sound."""
AUDIO_BLOCK_S, BLOCKS_AHEAD = 0.5, 3
"""Of the sound; so many blocks may wait to be played."""


@dataclass
class Playback:
    """Where in the file we are; a plain state that keys change and the clock advances. Times in seconds."""

    duration_s: float
    position_s: float = 0.0
    paused: bool = False
    finished: bool = False
    seeks: list[float] = field(default_factory=list)

    def press(self, key: str) -> None:
        """space, left, right, q."""
        if key == "space":
            self.paused = not self.paused
        elif key in ("left", "right"):
            step = SEEK_S if key == "right" else -SEEK_S
            self.position_s = min(max(0.0, self.position_s + step), max(0.0, self.duration_s - 0.1))
            self.seeks.append(self.position_s)
        elif key == "q":
            self.finished = True


class Ahead(Generic[Item]):
    """What a file holds of one kind, decoded on a thread of its own, a little ahead."""

    def __init__(self, open_file: Opener, items: Callable[[IwcFile], Iterator[Item]], most: int) -> None:
        """`items`: of the opened file, in order. At most so many wait to be taken."""
        self._waiting: queue.Queue[Item | None] = queue.Queue(most)
        self._stopped = threading.Event()
        self.error: str | None = None
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
        """Waits for it; None at the end."""
        return self._waiting.get()

    def empty(self) -> bool:
        return self._waiting.empty()

    def stop(self) -> None:
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
    """Frames that were left out because their time had passed."""
    seconds: float = 0.0
    """For how long."""


def play(path: Path) -> PlayReport:
    """Show a file until it ends or the window is closed. Raises CodecError where there is no display, or where
    the file cannot be played."""
    with IwcFile(path) as file:
        header, runtime = file.header, file.runtime
        frames = header.frames or file.reader.frames()  # a recorded call does not know when it begins
    if frames < 1:
        raise FormatError(f"{path} holds no frames.")
    playback, report, begun = Playback(frames / float(header.fps)), PlayReport(), time.monotonic()
    with window(path.name) as screen:
        open_file = partial(IwcFile, path, runtime)
        speaker = open_speaker(open_file) if header.audio is not None else None
        while not playback.finished:
            run_from(playback, open_file, float(header.fps), screen, speaker, report)
    report.seconds = round(time.monotonic() - begun, 3)
    return report


@contextmanager
def window(title: str) -> Iterator[Any]:
    """A pygame window. Raises CodecError, plainly, where there is none to be had."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as error:
        raise CodecError("Playing needs pygame-ce: pip install pygame-ce.") from error
    try:
        pygame.display.init()
        screen = pygame.display.set_mode((WINDOW, WINDOW), pygame.RESIZABLE)
    except pygame.error as error:
        raise CodecError(
            f"There is no display to play on ({error}); use `iwcodec decode IN.iwc OUT.mp4` instead."
        ) from error
    try:
        pygame.display.set_caption(f"{title} - reconstructed")
        yield screen
    finally:
        pygame.quit()


class Speaker:
    """The sound of a file, from anywhere on, a few blocks of it at a time."""

    def __init__(self, open_file: Opener) -> None:
        self._open = open_file
        self._blocks: Ahead[Samples] | None = None
        self._channel: Any = None

    def start(self, at_s: float) -> None:
        """Waits for the first block."""
        self.stop()
        first = round(at_s * AUDIO_RATE)
        self._blocks = Ahead(self._open, lambda file: blocks(file.samples(first)), BLOCKS_AHEAD)
        self._play(self._blocks.next())

    def go_on(self) -> None:
        """To be called more often than once in a block: what plays next is handed over."""
        if self._blocks is not None and not self._blocks.empty() and self._channel.get_queue() is None:
            self._play(self._blocks.next())

    def stop(self) -> None:
        if self._blocks is not None:
            self._blocks.stop()
            self._blocks = None
        if self._channel is not None:
            self._channel.stop()
            self._channel = None

    def _play(self, block: Samples | None) -> None:
        import pygame

        if block is None:  # the end; what was handed over plays on
            self._blocks = None
            return
        sound = pygame.mixer.Sound(buffer=block.tobytes())
        if self._channel is None:
            self._channel = sound.play()
        else:
            self._channel.queue(sound)


def blocks(samples: Iterator[Samples]) -> Iterator[Samples]:
    """The same samples, AUDIO_BLOCK_S at a time."""
    waiting, length = np.zeros(0, np.int16), round(AUDIO_BLOCK_S * AUDIO_RATE)
    for piece in samples:
        waiting = np.concatenate([waiting, piece])
        while len(waiting) >= length:
            yield waiting[:length]
            waiting = waiting[length:]
    if len(waiting):
        yield waiting


def open_speaker(open_file: Opener) -> Speaker | None:
    """None where there is no device to play it on: the picture plays all the same."""
    import pygame

    try:
        pygame.mixer.init(AUDIO_RATE, -16, 1, allowedchanges=0)
    except pygame.error:
        return None
    return Speaker(open_file)


def run_from(
    playback: Playback, open_file: Opener, fps: float, screen: Any, speaker: Speaker | None, report: PlayReport
) -> None:
    """Play from the current position until a seek, the end or a quit."""
    first = round(playback.position_s * fps)
    feed = Ahead(open_file, lambda file: file.frames(first), AHEAD)
    playback.seeks.clear()
    frame = feed.next()
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
                speaker.go_on()
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
            frame = feed.next()
    finally:
        if speaker is not None:
            speaker.stop()
        feed.stop()
    if feed.error is not None:
        raise FormatError(feed.error)
    if frame is None:
        playback.finished = True


def poll_keys(playback: Playback) -> None:
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
    """The picture as large as the window allows, centred."""
    import pygame

    width, height = screen.get_size()
    side = min(width, height)
    surface = pygame.surfarray.make_surface(frame.picture.swapaxes(0, 1))
    screen.fill((0, 0, 0))
    screen.blit(pygame.transform.smoothscale(surface, (side, side)), ((width - side) // 2, (height - side) // 2))
    pygame.display.flip()
