"""Lip sync: the sound's jitter buffer follows the pictures of a link, over the same simulated path, on a simulated
clock."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("aiortc")
from iwcodec.benchmarks.call.simulation import Path
from iwcodec.client.audio.jitter_buffer import BLOCK, FOLLOWED_S, Playout
from iwcodec.client.audio.track import Microphone
from iwcodec.codec.media.types import Samples
from link_calls import End, call
from sounds import RATE, delay_ms, voice

SECONDS, MEASURED_S = 18.0, 8.0
AROUND = 50
"""Bytes around a packet of sound."""


class Voice:
    """The first end's microphone, and the second one's loudspeaker."""

    def __init__(self, path: Path, loss: float) -> None:
        self.microphone, self.playout = Microphone(), Playout()
        self.microphone._tracks.append(self)  # type: ignore[arg-type]
        self.microphone.report(loss)
        self.spoken, self.heard = syllables(SECONDS), [np.zeros(0, np.int16)]
        self._path, self._sequence = path, 0

    def put(self, payload: bytes, stamp: int) -> None:
        loop, sequence = asyncio.get_running_loop(), self._sequence
        self._sequence += 1

        def deliver() -> None:
            self.playout.push(1, sequence % 2**16, stamp % 2**32, payload, loop.time())

        self._path.send(len(payload) + AROUND, deliver)

    async def speak(self) -> None:
        """A block is there when its last sample is; the loudspeaker wants the next one at the same moment."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for at in range(0, len(self.spoken), BLOCK):
            self.heard.append(self.playout.pull(BLOCK, start + at / RATE))
            await asyncio.sleep(start + (at + BLOCK) / RATE - loop.time())
            self.microphone.push(self.spoken[at : at + BLOCK], start + at / RATE)


def syllables(seconds: float) -> Samples:
    """Loud and soft without a rhythm, so that no two delays sound alike."""
    levels = np.random.default_rng(7).uniform(0.1, 1.0, round(seconds * 6) + 2)
    times = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(voice(seconds) * np.interp(times * 6, np.arange(len(levels)), levels), np.int16)


def delays_ms(path: Path, loss: float) -> tuple[float, float]:
    """(picture, sound): from being taken to being shown or heard, in the last seconds of a call."""
    made: list[Voice] = []

    async def scenario(sender: End, receiver: End) -> None:
        made.append(Voice(path, loss))
        receiver.watching.cancel()
        receiver.watching = asyncio.create_task(keep(receiver, made[0].playout))
        await made[0].speak()

    ends = call(scenario, path)
    shown = [one.delay_s for at, one in ends[1].shown if at > ends[1].shown[-1][0] - MEASURED_S]
    heard, count = np.concatenate(made[0].heard), round(MEASURED_S * RATE)
    late, alike = delay_ms(made[0].spoken[-count:], heard[-count:], 1200)
    assert alike > 0.6
    return 1000 * float(np.median(shown)), late


async def keep(end: End, playout: Playout) -> None:
    async for shown in end.link.frames():
        end.shown.append((asyncio.get_running_loop().time(), shown))
        playout.follow(end.link.playout_delay_s())


@pytest.mark.parametrize(
    ("path", "loss"),
    [
        (Path(delay_s=0.03, seed=1), 0.0),
        (Path(delay_s=0.03, loss=0.1, seed=1), 0.1),
        (Path(delay_s=0.03, loss=0.3, seed=1), 0.3),
        (Path(delay_s=0.05, jitter_s=0.06, seed=3), 0.0),
    ],
    ids=["no loss", "10 % lost", "30 % lost", "60 ms of jitter"],
)
def test_sound_and_picture_are_in_step(path: Path, loss: float) -> None:
    picture, sound = delays_ms(path, loss)
    assert abs(sound - picture) <= 60


def test_sound_goes_ahead_of_pictures_that_are_very_late() -> None:
    """It waits for FOLLOWED_S of them and no longer."""
    playout = Playout()
    playout.follow(FOLLOWED_S / 2)
    assert playout.wait_s == pytest.approx(FOLLOWED_S / 2)
    playout.follow(3 * FOLLOWED_S)
    assert playout.wait_s == pytest.approx(FOLLOWED_S)
