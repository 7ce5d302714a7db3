"""`iwcodec play`: a window, with sound. Space pauses, left and right seek, q or Esc quits."""

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .decoder import Frame
from .errors import CodecError, FormatError
from .files import IwcFile
from .media import AUDIO_RATE

SEEK_S = 5.0
AHEAD = 12
"""Decoded frames that may wait to be shown."""
WINDOW = 512
LATE_S = 0.25
"""A frame this late is not shown: the picture catches up with the sound."""
AUDIO_BLOCK_S = 0.5


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


class FrameFeed:
    """Decodes on a thread of its own, from a frame on, a few frames ahead."""

    def __init__(self, path: Path, start: int) -> None:
        self._frames: queue.Queue[Frame | None] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self.error: str | None = None
        self._thread = threading.Thread(target=self._decode, args=(path, start), daemon=True)
        self._thread.start()

    def _decode(self, path: Path, start: int) -> None:
        try:
            with IwcFile(path) as file:
                for frame in file.frames(start):
                    self._put(frame)
                    if self._stopped.is_set():
                        return
        except CodecError as error:
            self.error = str(error)
        self._put(None)

    def _put(self, item: Frame | None) -> None:
        while not self._stopped.is_set():
            try:
                self._frames.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def next(self) -> Frame | None:
        """The next frame; None at the end. Waits for it."""
        return self._frames.get()

    def stop(self) -> None:
        self._stopped.set()
        while not self._frames.empty():
            self._frames.get_nowait()
        self._thread.join()


def play(path: Path) -> None:
    """Show a file until it ends or the window is closed. Raises CodecError where there is no display, or where
    the file cannot be played."""
    with IwcFile(path) as file:
        header = file.header
        sound = np.concatenate([np.zeros(0, np.int16), *file.samples()]) if header.audio is not None else None
    if header.frames < 1:
        raise FormatError(f"{path} holds no frames.")
    playback = Playback(header.frames / float(header.fps))
    with window(path.name) as screen:
        speaker = open_speaker(sound)
        while not playback.finished:
            run_from(playback, path, float(header.fps), screen, speaker)


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
    """The whole sound of the file, started anywhere."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples
        self._channel: Any = None

    def start(self, at_s: float) -> None:
        import pygame

        rest = self._samples[round(at_s * AUDIO_RATE) :]
        if len(rest):
            self._channel = pygame.mixer.Sound(buffer=rest.tobytes()).play()

    def stop(self) -> None:
        if self._channel is not None:
            self._channel.stop()


def open_speaker(samples: Any) -> Speaker | None:
    """None where there is no sound in the file or no device to play it on: the picture plays all the same."""
    if samples is None or not len(samples):
        return None
    import pygame

    try:
        pygame.mixer.init(AUDIO_RATE, -16, 1, allowedchanges=0)
    except pygame.error:
        return None
    return Speaker(samples)


def run_from(playback: Playback, path: Path, fps: float, screen: Any, speaker: Speaker | None) -> None:
    """Play from the current position until a seek, the end or a quit."""
    feed = FrameFeed(path, round(playback.position_s * fps))
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
            due = frame.number / fps - (time.monotonic() - offset)
            if due > 0:
                time.sleep(min(due, 0.02))
                continue
            playback.position_s = frame.number / fps
            if due > -LATE_S:
                show(screen, frame)
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
