"""Echo cancellation on a simulated loudspeaker path: a delay, a reflection that dies away, and noise."""

import numpy as np
import pytest

pytest.importorskip("livekit")
from iwcodec.client.audio.echo import FRAME, EchoCanceller
from support.media.sounds import RATE, voice

DELAY_S = 0.06
"""From `far` to the microphone."""


def through_the_room(far: np.ndarray) -> np.ndarray:
    """What a microphone records of the loudspeaker."""
    rng = np.random.default_rng(1)
    times = np.arange(round(0.08 * RATE)) / RATE
    response = rng.standard_normal(len(times)) * np.exp(-times / 0.02) * 0.03
    response[0] += 0.5
    delay = round(DELAY_S * RATE)
    length = len(far) + len(response)
    echo = np.fft.irfft(np.fft.rfft(far, length) * np.fft.rfft(response, length), length)[: len(far)]
    return np.concatenate([np.zeros(delay), echo])[: len(far)] + 20 * rng.standard_normal(len(far))


def sent(far: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """What is sent of a recording, in blocks that are no whole frames."""
    canceller, out = EchoCanceller(), []
    for at in range(0, len(far), 700):
        canceller.far(far[at : at + 700], 0.0)
        out.append(canceller.near(recorded[at : at + 700], 0.0)[0])
    return np.concatenate(out)


def level(samples: np.ndarray) -> float:
    """dB."""
    return 10 * float(np.log10(np.mean(np.square(samples.astype(np.float64))) + 1e-9))


def test_the_loudspeaker_is_not_sent_back_but_speech_is():
    far = voice(7.0).astype(np.int16)
    near = np.zeros(len(far))
    near[5 * RATE :] = voice(2.0)[::-1]
    recorded = np.clip(through_the_room(far) + near, -32768, 32767).astype(np.int16)
    out = sent(far, recorded)
    echo, both = slice(2 * RATE, 5 * RATE), slice(5 * RATE, 7 * RATE - FRAME)
    assert level(recorded[echo]) - level(out[echo]) > 30  # echo return loss enhancement
    assert level(out[both]) > level(near[both]) - 8


def test_times_belong_to_the_samples():
    canceller, heard = EchoCanceller(), []
    listen = canceller.before(lambda samples, captured_s: heard.append((len(samples), captured_s)))
    for n in range(3):
        listen(np.zeros(700, np.int16), 5.0 + n * 700 / RATE)
    assert [count for count, _ in heard] == [480, 480, 960]
    assert [captured_s for _, captured_s in heard] == pytest.approx([5.0, 5.0 + 480 / RATE, 5.0 + 960 / RATE])
