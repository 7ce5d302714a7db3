"""User interface of a call: a window with keys, or lines on the terminal of a headless call."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from iwcodec.client.audio.devices import AudioDevices
from iwcodec.client.display import Window
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.quality import quality_words
from iwcodec.client.room.call import Call
from iwcodec.client.stats import stats_json, stats_lines
from iwcodec.client.video.camera import Camera
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.client.view import call_view
from iwcodec.codec.terminal import console

DRAW_INTERVAL_S, MIN_DRAW_INTERVAL_S = 1 / 30, 1 / 60
"""Maximum time between two drawings of the window, which bounds the response to keys; and minimum time after a drawing
with a new picture, because screens show no more and drawing takes time."""
REPORT_S: Final = 5.0
"""Interval between two reports of statistics in a headless call."""
DEVICE_CHECK_S: Final = 1.0
"""Interval between checks whether microphone and loudspeaker are still there."""
POLL_S: Final = 0.05
"""Interval between checks of a headless call for changes of state."""


class Changes:
    """Changes of devices during a call, by keys or because one went away."""

    def __init__(self, call: Call, camera: Camera | None, devices: AudioDevices) -> None:
        self._call, self._camera, self._devices = call, camera, devices
        self._working: asyncio.Task[None] | None = None
        self._moderating: asyncio.Task[None] | None = None
        self._choosing: list[str] = []
        """Ids of those of whom the next key removes one."""

    def key(self, key: str) -> None:
        """Change what the key stands for, if anything, unless another change is under way."""
        if self._choosing or key in ("l", "k"):
            self._moderate(key)
            return
        work = {
            "c": lambda: "A file is sent instead of a camera." if self._camera is None else self._camera.change(),
            "a": lambda: self._devices.change("microphone"),
            "s": lambda: self._devices.change("loudspeaker"),
        }.get(key)
        if work is not None and (self._working is None or self._working.done()):
            self._working = asyncio.create_task(self._change(work))

    def _moderate(self, key: str) -> None:
        """The host's keys: l locks and unlocks the room, k and a number remove a participant."""
        choosing, self._choosing = self._choosing, []
        if not self._call.is_host:
            self._call.notify("only the host, who made the room by invitation, locks it and removes people")
        elif key == "l":
            self._start(self._call.lock(not self._call.locked))
        elif key == "k" and self._call.participants:
            self._choosing = list(self._call.participants)
            names = ", ".join(f"{n} {p.name}" for n, p in enumerate(self._call.participants.values(), 1))
            self._call.notify(f"whom to remove? {names}")
        elif key.isdigit() and 1 <= int(key) <= len(choosing):
            self._start(self._call.expel(choosing[int(key) - 1]))
        elif choosing:
            self._call.notify("nobody was removed")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._moderating = asyncio.create_task(work)

    async def watch(self) -> None:
        """Restore devices that go away. Never returns."""
        while True:
            await asyncio.sleep(DEVICE_CHECK_S)
            if self._devices.are_lost() and (self._working is None or self._working.done()):
                for notice in await asyncio.to_thread(self._devices.restore):
                    self._call.notify(notice)

    async def _change(self, work: Callable[[], str]) -> None:
        self._call.notify(await asyncio.to_thread(work))


async def show_window(call: Call, video_sender: VideoSender, window: Window, changes: Changes) -> None:
    """Draw every new picture at once, and handle keys, until the user presses q."""
    details = False
    new_frame = asyncio.Event()
    call.frame_listeners.append(lambda participant, frame: new_frame.set())
    while True:
        for key in window.pressed():
            if key == "q":
                return
            elif key == "i":
                details = not details
            elif key == "m":
                call.mute(not call.muted)
            elif key == "v":
                call.set_camera_off(not call.camera_off)
            else:
                changes.key(key)
        pause_s = MIN_DRAW_INTERVAL_S if new_frame.is_set() else 0.0
        new_frame.clear()
        window.show(call_view(call, call.signalling.name, video_sender.preview, details))
        await asyncio.sleep(pause_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(new_frame.wait(), DRAW_INTERVAL_S - pause_s)


async def print_reports(call: Call, as_json: bool = False) -> None:
    """Interface of a headless call: print a line when a state changes, notices, and the statistics every REPORT_S."""
    printed, said, told, noticed = "", "", dict[str, str](), 0
    due_s = time.monotonic() + REPORT_S
    while True:
        states = ", ".join(f"{p.name}: {p.state}" for p in call.participants.values())
        line = f"{call.state}{'; ' if states else ''}{states}"
        if line != printed:
            console.print(line, soft_wrap=True)
            printed = line
        for notice in call.notices[max(0, len(call.notices) - (call.notified - noticed)) :]:
            if notice != said:
                console.print(notice, soft_wrap=True)
            said = notice
        noticed = call.notified
        for id, participant in call.participants.items():
            words = participant.words
            if words is not None and told.get(id) != words:
                told[id] = words
                console.print(f"{participant.name} must see these words, too: {words}", soft_wrap=True)
        if time.monotonic() >= due_s:
            due_s += REPORT_S
            print_stats(call, as_json)
        await asyncio.sleep(POLL_S)


def print_stats(call: Call, as_json: bool) -> None:
    if as_json:
        print(json.dumps(stats_json(call)), flush=True)
        return
    for participant in call.participants.values():
        if (stats := participant.stats()) is not None:
            quality = quality_words(stats) if participant.state is LinkState.LIVE else ""
            lines = "; ".join([*([quality] if quality else []), *stats_lines(stats, participant)])
            console.print(f"  {participant.name}: {lines}", soft_wrap=True)
