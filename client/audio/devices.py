"""Microphone and loudspeaker during a call: reopened when they go away, and changed on request."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from iwcodec.client.audio.capture import MicrophoneSound, list_microphones
from iwcodec.client.audio.speaker import SoundCard, list_speakers, load_sounddevice
from iwcodec.client.video.capture import Device
from iwcodec.codec.errors import CodecError

SILENT_S: Final = 3.0
"""Time without a call from PortAudio after which a device counts as gone; it calls every 20 ms."""

RETRY_S, MAX_RETRY_S = 2.0, 60.0
"""Time between attempts while a device is missing and there is no other; doubled after each. Every attempt interrupts
the device that works."""

Stream = MicrophoneSound | SoundCard


class AudioDevices:
    """The devices of a call. `restore` and `change` block for some tenths of a second: call them in a thread."""

    def __init__(self, microphone: MicrophoneSound | None, card: SoundCard | None) -> None:
        self._streams: dict[str, tuple[Stream, Callable[[], list[Device]]]] = {}
        if microphone is not None:
            self._streams["microphone"] = microphone, list_microphones
        if card is not None:
            self._streams["loudspeaker"] = card, list_speakers
        self._missing: set[str] = set()
        """Kinds of devices that are gone, and for which there is no other."""
        self._retry_s, self._tried_s = RETRY_S, float("-inf")

    def are_lost(self) -> bool:
        """Whether a device has gone and it is time to restore it."""
        now = time.monotonic()
        if self._missing and now - self._tried_s < self._retry_s:
            return False
        return any(now - stream.active_s > SILENT_S for stream, _ in self._streams.values())

    def restore(self) -> list[str]:
        """Open all devices again, or others in their place. Returns what the user should know."""
        for stream, _ in self._streams.values():
            stream.close()
        _refresh()
        notices = []
        for kind, (stream, listed) in self._streams.items():
            before = stream.device
            if _open_any(stream, _candidates(listed, before)):
                if kind in self._missing or stream.device != before:
                    notices.append(f"The {kind} is now {_name(stream.device)}.")
                self._missing.discard(kind)
            elif kind not in self._missing:
                self._missing.add(kind)
                notices.append(f"The {kind} went away, and there is no other.")
        self._retry_s = min(2 * self._retry_s, MAX_RETRY_S) if self._missing else RETRY_S
        self._tried_s = time.monotonic()
        return notices

    def change(self, kind: str) -> str:
        """Use the next microphone or loudspeaker. Returns what the user should know."""
        if kind not in self._streams:
            return f"There is no {kind} in this call."
        stream, listed = self._streams[kind]
        devices, before = _listed(listed), stream.device
        names = [device.name for device in devices]
        at = names.index(before.name) + 1 if before is not None and before.name in names else 0
        stream.close()
        following = [*devices[at:], *devices[:at]]
        _open_any(stream, [*following, before])
        return f"The {kind} is now {_name(stream.device)}."


def _candidates(listed: Callable[[], list[Device]], before: Device | None) -> list[Device | None]:
    """Devices to try: the one before, the system's default, all others."""
    devices = _listed(listed)
    same = [device for device in devices if before is not None and device.name == before.name]
    return [*same, None, *(device for device in devices if device not in same)]


def _listed(listed: Callable[[], list[Device]]) -> list[Device]:
    try:
        return listed()
    except Exception:  # PortAudioError, which cannot be named without PortAudio
        return []


def _open_any(stream: Stream, devices: list[Device | None]) -> bool:
    for device in devices:
        with suppress(CodecError):
            stream.open(device)
            return True
    return False


def _name(device: Device | None) -> str:
    return "the system's default" if device is None else device.name


def _refresh() -> None:
    """Have PortAudio look for devices again, which it does only when it starts. Closes all streams."""
    sounddevice = load_sounddevice()
    with suppress(Exception):
        sounddevice._terminate()
        sounddevice._initialize()
