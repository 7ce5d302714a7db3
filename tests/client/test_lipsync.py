"""Lip sync: the audio jitter buffer follows the delay of a link's pictures, over the same simulated path."""

import asyncio

import numpy as np
import pytest

from iwcodec.benchmarks.call.simulation import SimulatedPath
from iwcodec.client.audio.jitter_buffer import BLOCK, MAX_VIDEO_DELAY_S, AudioJitterBuffer
from iwcodec.client.audio.sender import AudioSender
from iwcodec.codec.media.types import Samples
from support.calls.links import End, calling
from support.media.sounds import RATE, delay_ms, voice

MEASURED_S = 8.0
HEADER_BYTES = 50
"""Bytes of all headers of an audio packet."""


class Voice:
    """The first end's microphone, and the second one's loudspeaker."""

    def __init__(self, path: SimulatedPath, loss: float, seconds: float) -> None:
        self.audio_sender, self.audio_buffer = AudioSender(), AudioJitterBuffer()
        self.audio_sender._tracks.append(self)
        self.audio_sender.report(loss)
        self.spoken, self.heard = syllables(seconds), [np.zeros(0, np.int16)]
        self._path, self._sequence = path, 0

    def put(self, payload: bytes, stamp: int) -> None:
        loop, sequence = asyncio.get_running_loop(), self._sequence
        self._sequence += 1

        def deliver() -> None:
            self.audio_buffer.push(1, sequence % 2**16, stamp % 2**32, payload, loop.time())

        self._path.send(len(payload) + HEADER_BYTES, deliver)

    async def speak(self) -> None:
        """Push each block when its last sample is due; the loudspeaker pulls the next block at the same time."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for at in range(0, len(self.spoken), BLOCK):
            self.heard.append(self.audio_buffer.pull(BLOCK, start + at / RATE))
            await asyncio.sleep(start + (at + BLOCK) / RATE - loop.time())
            self.audio_sender.push(self.spoken[at : at + BLOCK], start + at / RATE)


def syllables(seconds: float) -> Samples:
    """A voice whose level changes without a rhythm, so that the delay is unambiguous."""
    levels = np.random.default_rng(7).uniform(0.1, 1.0, round(seconds * 6) + 2)
    times = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(voice(seconds) * np.interp(times * 6, np.arange(len(levels)), levels), np.int16)


async def delays_ms(path: SimulatedPath, loss: float, seconds: float) -> tuple[float, float]:
    """Delays (picture, sound) from capture to display or playback, in the last seconds of a call of so
    many seconds that is seen by one end alone."""
    async with calling(path) as (_, receiver):
        receiver.sender.pause(True)
        speech = Voice(path, loss, seconds)
        receiver.watching.cancel()
        receiver.watching = asyncio.create_task(keep(receiver, speech.audio_buffer))
        await speech.speak()
    shown = [frame.delay_s for at, frame in receiver.shown if at > receiver.shown[-1][0] - MEASURED_S]
    heard, count = np.concatenate(speech.heard), round(MEASURED_S * RATE)
    delay, correlation = delay_ms(speech.spoken[-count:], heard[-count:], 1200)
    assert correlation > 0.6
    return 1000 * float(np.median(shown)), delay


async def keep(end: End, audio_buffer: AudioJitterBuffer) -> None:
    async for shown in end.link.frames():
        end.shown.append((asyncio.get_running_loop().time(), shown))
        audio_buffer.set_min_delay(end.link.playout_delay_s())


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("path", "loss", "seconds"),
    [
        (SimulatedPath(delay_s=0.03, seed=1), 0.0, 14.0),
        # The delay may grow until the 16th second, when the smoothed loss reaches its last step.
        (SimulatedPath(delay_s=0.03, loss=0.3, seed=1), 0.3, 24.0),
        (SimulatedPath(delay_s=0.05, jitter_s=0.06, seed=3), 0.0, 14.0),
    ],
    ids=["no loss", "30 % lost", "60 ms of jitter"],
)
async def test_sound_and_picture_are_in_sync(path: SimulatedPath, loss: float, seconds: float) -> None:
    picture, sound = await delays_ms(path, loss, seconds)
    assert abs(sound - picture) <= 60


def test_sound_does_not_wait_for_very_late_pictures() -> None:
    """It waits for MAX_VIDEO_DELAY_S at most."""
    audio_buffer = AudioJitterBuffer()
    audio_buffer.set_min_delay(MAX_VIDEO_DELAY_S / 2)
    assert audio_buffer.delay_s == pytest.approx(MAX_VIDEO_DELAY_S / 2)
    audio_buffer.set_min_delay(3 * MAX_VIDEO_DELAY_S)
    assert audio_buffer.delay_s == pytest.approx(MAX_VIDEO_DELAY_S)
