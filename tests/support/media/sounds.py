"""Synthetic speech-like sound, and measures of how well it is reproduced."""

import numpy as np

from iwcodec.codec.media.types import AUDIO_RATE, Samples

RATE = AUDIO_RATE


def voice(seconds: float, seed: int = 0) -> Samples:
    """A harmonic tone of varying pitch and resonances with the loudness of syllables, never silent for long."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    times = np.arange(count) / RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * times) + 10 * np.sin(2 * np.pi * 2.3 * times)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    buzz = sum(
        np.sin(k * phase) * np.exp(-((k * pitch - 600 - 300 * np.sin(3 * times)) ** 2) / 2e5) for k in range(1, 20)
    )
    loud = 0.35 + 0.65 * np.sin(np.pi * 3 * times) ** 2
    sound = 6000 * loud * buzz / np.abs(buzz).max() + rng.normal(0, 20, count)
    return np.asarray(sound.round(), np.int16)


def envelope(samples: Samples) -> np.ndarray:
    """RMS over 10 ms in steps of 1 ms."""
    power = np.convolve(np.square(samples.astype(np.float64)), np.ones(480) / 480, "same")
    return np.sqrt(power)[:: RATE // 1000]


def delay_ms(spoken: Samples, heard: Samples, longest: int = 400) -> tuple[int, float]:
    """Delay of `heard` in milliseconds, and the correlation of the envelopes at that delay."""
    a, b = envelope(spoken), envelope(heard)
    scores = []
    for lag in range(longest):
        count = min(len(a), len(b) - lag)
        scores.append(np.corrcoef(a[:count], b[lag : lag + count])[0, 1])
    best = int(np.argmax(scores))
    return best, float(scores[best])
