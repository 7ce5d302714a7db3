"""The motion of whole files: keypoints as what sways and nods, slowly and quickly, in the metric of the picture.

Frames are coded in runs, all of one source. Their keypoints, in the coordinates of the source that leads
(motion_space.py), are taken apart by frequency (DCT-II over time, orthonormal), divided by one step for everything, and
rounded. Motion is slow, and much of it is of the whole head: few of these levels are not 0. They are range-coded
(constriction) lowest frequency first, with static tables, chosen for each level by its frequency, its coordinate and
the levels beside it that are known already. Integers alone decide what is read, so every machine reads the same.

A payload holds, of each run, how many frequencies it uses (of 0 to all, each as likely as another), and their levels.
Where a run uses none, the source that leads is shown as it lies.
"""

from collections.abc import Sequence
from functools import lru_cache

import constriction
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_FRAMES
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.transform_tables import REACH, SYMBOLS, TransformTables, activity_class, base_rows, rows_of
from iwcodec.codec.motion.types import ESCAPE_RANGE, Levels

_ESCAPE = SYMBOLS - 1
SCALES = 256
"""Of the step: it doubles with every sixteenth."""


def step_of(scale: int) -> float:
    """Scale 0..255 -> quantisation step, 1/64 to 978."""
    return float(2.0 ** (scale / 16 - 6))


def scale_of(step: float) -> int:
    """The scale whose step is nearest."""
    return int(np.clip(round(16 * (np.log2(step) + 6)), 0, SCALES - 1))


def over_time(levels: Levels, scale: int) -> NDArray[np.float64]:
    """Levels (n, 3 K) of the frequencies -> coordinates (n, 3 K) of the frames."""
    return np.asarray(cosines(len(levels)).T @ (levels * step_of(scale)))


@lru_cache(MAX_FRAMES)
def cosines(count: int) -> NDArray[np.float64]:
    """(count, count): rows are the frequencies of an orthonormal DCT-II over so many frames."""
    frequency, time = np.arange(count)[:, None], np.arange(count) + 0.5
    rows = np.cos(frequency * time * (np.pi / count)) * np.sqrt(2 / count)
    rows[0] /= np.sqrt(2)
    return rows


class TransformCoder:
    """Stateless: every message is decoded by itself."""

    def __init__(self, tables: TransformTables) -> None:
        self.tables = tables
        self._models = [
            constriction.stream.model.Categorical(np.ascontiguousarray(row), perfect=False)
            for row in tables.probabilities
        ]
        self._raw = constriction.stream.model.Uniform(ESCAPE_RANGE)

    def encode(self, runs: Sequence[Levels]) -> bytes:
        """Levels (n, 3 K) of each run, at most MAX_LEVEL -> payload."""
        encoder = constriction.stream.queue.RangeEncoder()
        for levels in runs:
            used = used_frequencies(levels)
            encoder.encode(used, constriction.stream.model.Uniform(len(levels) + 1))
            rows = rows_of(levels[:used], len(levels)).ravel().tolist()
            for row, level in zip(rows, levels[:used].ravel().tolist(), strict=True):
                if abs(level) <= REACH:
                    encoder.encode(level + REACH, self._models[row])
                else:
                    encoder.encode(_ESCAPE, self._models[row])
                    encoder.encode(level & (ESCAPE_RANGE - 1), self._raw)
        words = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
        return words or b"\0"

    def decode(self, payload: bytes, lengths: Sequence[int], coordinates: int) -> list[Levels]:
        """Payload -> levels of runs of so many frames. Raises FormatError for what cannot be a payload."""
        if not 1 <= sum(lengths) <= MAX_FRAMES or min(lengths) < 1:
            raise FormatError(f"A motion message of runs of {lengths} frames is impossible.")
        if len(payload) > 64 + sum(lengths) * coordinates * 8:
            raise FormatError("A motion message is longer than any can be.")
        padded = payload + bytes(-len(payload) % 4 + 8)
        decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))
        try:
            return [self._decode_run(decoder, length, coordinates) for length in lengths]
        except (AssertionError, ValueError) as error:
            raise FormatError("A motion message cannot be decoded.") from error

    def _decode_run(self, decoder: constriction.stream.queue.RangeDecoder, length: int, coordinates: int) -> Levels:
        used = int(decoder.decode(constriction.stream.model.Uniform(length + 1)))
        levels = np.zeros((length, coordinates), np.int32)
        bases = base_rows(length, coordinates)
        beside: list[list[int]] = [[0] * (coordinates + 3)] * 2
        for frequency in range(used):
            own = [0] * (coordinates + 3)  # two before the first, one after the last
            last, before = beside
            for i, base in enumerate(bases[frequency].tolist()):
                row = base + activity_class(own, last, before, i)
                symbol = int(decoder.decode(self._models[row]))
                level = symbol - REACH
                if symbol == _ESCAPE:
                    raw = int(decoder.decode(self._raw))
                    level = (raw ^ (ESCAPE_RANGE // 2)) - ESCAPE_RANGE // 2
                levels[frequency, i] = level
                own[i + 2] = abs(level)
            beside = [own, last]
        return levels


def used_frequencies(levels: Levels) -> int:
    """How many, from the lowest on, hold all that is not 0."""
    return int(np.flatnonzero(levels.any(1))[-1]) + 1 if levels.any() else 0
