"""A browser's picture beside that of `iwcodec call`: replayed messages are received as when they were sent."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from iwcodec.benchmarks.call import browser_sending
from iwcodec.benchmarks.call.browser_sending import Message, clip_pictures, figures, received
from iwcodec.benchmarks.call.participants import Camera
from iwcodec.client.link.channels import Channels
from iwcodec.client.link.messages import CONTROL_CHANNEL, MOTION_CHANNEL, MotionMessage, is_control
from support.codec.stub_runtime import StubRuntime, picture

SECONDS = 4.0


pytestmark = pytest.mark.usefixtures("every_picture_has_a_face")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Message]]:
    """Motion and sources that the first end sends."""
    messages: list[Message] = []
    ends: list[Channels] = []
    send = Channels.send

    def spy(self: Channels, channel_id: int, data: bytes) -> None:
        if self not in ends:
            ends.append(self)
        if (
            self is ends[0]
            and channel_id != CONTROL_CHANNEL
            and not (channel_id == MOTION_CHANNEL and is_control(data))
        ):
            at_s = asyncio.get_running_loop().time() - browser_sending.START_S
            own = data
            message = MotionMessage.from_bytes(data) if channel_id == MOTION_CHANNEL else None
            if message is not None:  # a browser's clock begins with the call, ours a second earlier
                own = replace(message, stamps=tuple(stamp - 1000 for stamp in message.stamps)).to_bytes()
            messages.append(Message(max(at_s, 0.2), channel_id, own))  # channels are open by then
        send(self, channel_id, data)

    with monkeypatch.context() as patch:
        patch.setattr(Channels, "send", spy)
        yield messages


def test_replayed_messages_are_received_as_when_they_were_sent(
    recorded: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, pictures = StubRuntime(), [picture(100 + n % 40) for n in range(round(25 * SECONDS))]
    camera = Camera(pictures, runtime)
    sent = received(runtime, camera, SECONDS, None)
    messages = list(recorded)
    replayed = received(runtime, camera, SECONDS, messages)
    monkeypatch.setattr(browser_sending, "FaceMesh", lambda: lambda picture: None)
    monkeypatch.setattr(browser_sending, "SETTLED_S", 1.0)
    monkeypatch.setattr(browser_sending, "COMPARED_FROM_S", 1.0)
    own, other = (figures(camera, call, len(pictures) - 1) for call in (sent, replayed))
    assert own["psnr_db"] > 30
    assert other["psnr_db"] == pytest.approx(own["psnr_db"], abs=1.0)
    assert other["kbps"]["motion"] == pytest.approx(own["kbps"]["motion"], rel=0.05)
    assert other["kbps"]["total"] == pytest.approx(own["kbps"]["total"], rel=0.1)
    assert other["eye_r"] is None
    result: dict[str, Any] = {"browser": "Chromium 1", "clips": {"one": {"iwcodec call": own, "browser": other}}}
    table = browser_sending.table(result)
    assert len(table.columns) == 3
    assert table.row_count == len(browser_sending.LAYERS) + 2 + len(browser_sending.SCORES)


def test_a_clip_is_resampled_to_the_rate_of_calls(face_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_sending, "MAX_S", 0.6)
    pictures = clip_pictures(face_clip, 64)
    assert 10 <= len(pictures) <= 15
    assert all(one.shape == (64, 64, 3) and one.dtype == np.uint8 for one in pictures)
