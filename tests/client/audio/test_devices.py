"""Microphones and loudspeakers that go away and come back, with a PortAudio double."""

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from iwcodec.client.audio import devices as d
from iwcodec.client.audio.capture import MicrophoneSound, list_microphones
from iwcodec.client.audio.speaker import SoundCard, list_speakers


class PortAudio:
    """Devices by name; opening one that is not there fails, and so does the default if there is none."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.opened: list[str] = []
        self.refreshed = 0
        self.listed = list(names)
        """What PortAudio knows, which only `_initialize` changes."""

    def _terminate(self) -> None: ...

    def _initialize(self) -> None:
        self.refreshed += 1
        self.listed = list(self.names)

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "index": n, "max_input_channels": 1, "max_output_channels": 1}
            for n, name in enumerate(self.listed)
        ]

    def open(self, *_: Any, device: int | None, **__: Any) -> Any:
        if not self.names:
            raise OSError("No device")
        self.opened.append("default" if device is None else self.listed[device])
        return SimpleNamespace(start=lambda: None, stop=lambda: None, close=lambda: None)

    InputStream = OutputStream = open


@pytest.fixture
def audio(monkeypatch: pytest.MonkeyPatch) -> PortAudio:
    double = PortAudio("Built-in", "Headset")
    monkeypatch.setitem(sys.modules, "sounddevice", double)
    return double


def opened(audio: PortAudio) -> tuple[MicrophoneSound, SoundCard, d.AudioDevices]:
    async def work() -> MicrophoneSound:
        return MicrophoneSound(list_microphones()[1], lambda samples, at_s: None)

    microphone, card = asyncio.run(work()), SoundCard(list_speakers()[1])
    card.start()
    audio.opened.clear()
    return microphone, card, d.AudioDevices(microphone, card)


def test_a_device_that_goes_away_is_replaced_and_found_again(audio: PortAudio):
    microphone, card, devices = opened(audio)
    assert not devices.are_lost()
    card.active_s -= d.SILENT_S + 1
    assert devices.are_lost()
    audio.names.remove("Headset")
    assert devices.restore() == [
        "The microphone is now the system's default.",
        "The loudspeaker is now the system's default.",
    ]
    assert (microphone.device, card.device) == (None, None)
    assert not devices.are_lost()
    assert audio.refreshed == 1


def test_silence_without_any_device_is_announced_once(audio: PortAudio):
    microphone, _, devices = opened(audio)
    audio.names.clear()
    assert devices.restore() == [
        "The microphone went away, and there is no other.",
        "The loudspeaker went away, and there is no other.",
    ]
    microphone.active_s -= d.SILENT_S + 1
    assert not devices.are_lost()  # each attempt would interrupt a loudspeaker that works
    devices._tried_s -= 2 * d.RETRY_S
    assert devices.are_lost()
    assert devices.restore() == []
    audio.names.append("Headset")
    assert devices.restore() == ["The microphone is now Headset.", "The loudspeaker is now Headset."]
    assert microphone.device is not None


def test_a_device_that_hangs_is_opened_again_without_a_word(audio: PortAudio):
    microphone, _, devices = opened(audio)
    microphone.active_s -= d.SILENT_S + 1
    assert devices.restore() == []
    assert audio.opened == ["Headset", "Headset"]


def test_devices_are_changed_in_turn(audio: PortAudio):
    _, card, devices = opened(audio)
    assert devices.change("microphone") == "The microphone is now Built-in."
    assert devices.change("microphone") == "The microphone is now Headset."
    assert devices.change("loudspeaker") == "The loudspeaker is now Built-in."
    assert card.device.name == "Built-in"
    assert "no microphone in this call" in d.AudioDevices(None, card).change("microphone")
