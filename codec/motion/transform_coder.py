"""Transform coder: the motion of a whole message as DCT coefficients in the metric of the picture.

Frames are coded in runs of one reference source each. Their keypoints, as coordinates of that source (space.py), are
transformed over time (orthonormal DCT-II), divided by one step and rounded. Facial motion is slow and much of it is of
the whole head, so few levels differ from 0. Levels are range-coded (constriction) from the lowest frequency up, with
static tables selected by frequency, coordinate and the neighbouring levels already coded (transform_tables.py). Only
integer arithmetic decides what is decoded, so every machine decodes the same levels.

A payload holds for each run the number of frequencies in use (0 to all, equally likely), then their levels. In files a
run that uses none is in skip mode: the reference source is shown unmodified. In calls a packet may have a reference
frame. Runs of the same reference source as that frame then hold differences from its coordinates.
"""

from collections.abc import Sequence
from functools import cache, lru_cache

import constriction
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES, Run
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.transform_tables import (
    REACH,
    SYMBOLS,
    TransformTables,
    activity_class,
    base_rows,
    load_transform_tables,
    rows_of,
)
from iwcodec.codec.motion.types import ESCAPE_RANGE, CodedFrame, Levels

_ESCAPE = SYMBOLS - 1
SCALES = 256
"""Number of quantisation scales; the step doubles every 16."""


def step_of(scale: int) -> float:
    """Return the quantisation step, 1/64 to 978, of a scale 0 to 255."""
    return float(2.0 ** (scale / 16 - 6))


def scale_of(step: float) -> int:
    """Return the scale whose step is nearest by ratio."""
    return int(np.clip(round(16 * (np.log2(step) + 6)), 0, SCALES - 1))


def inverse_transform(levels: Levels, scale: int) -> NDArray[np.float64]:
    """Return the coordinates (n, 3 K) of a run's frames from the levels (n, 3 K) of its frequencies."""
    return np.asarray(dct_matrix(len(levels)).T @ (levels * step_of(scale)))


def decoded_runs(
    levels: Sequence[Levels], runs: Sequence[Run], scale: int, before: CodedFrame | None
) -> list[NDArray[np.float64]]:
    """Return the coordinates (n, 3 K) of each run's frames from its levels (n, 3 K). `before`: the reference frame."""
    coordinates = [inverse_transform(rows, scale) for rows in levels]
    if before is None:
        return coordinates
    return [
        rows + before.coordinates if run.slot == before.reference_source else rows
        for rows, run in zip(coordinates, runs, strict=True)
    ]


@lru_cache(MAX_PACKET_FRAMES)
def dct_matrix(count: int) -> NDArray[np.float64]:
    """Return the orthonormal DCT-II (count, count) over `count` frames; rows are frequencies."""
    frequency, time = np.arange(count)[:, None], np.arange(count) + 0.5
    rows = np.cos(frequency * time * (np.pi / count)) * np.sqrt(2 / count)
    rows[0] /= np.sqrt(2)
    return rows


class TransformCoder:
    """Stateless: messages are independent of each other."""

    def __init__(self, tables: TransformTables) -> None:
        self.tables = tables
        self._models = [
            constriction.stream.model.Categorical(np.ascontiguousarray(row), perfect=False)
            for row in tables.probabilities
        ]
        self._raw = constriction.stream.model.Uniform(ESCAPE_RANGE)

    def encode(self, runs: Sequence[Levels]) -> bytes:
        """Encode the levels (n, 3 K) of each run of n frames."""
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
        """Decode the levels (n, 3 K) of each run, given the `lengths` n in frames and `coordinates` 3 K. Raises
        FormatError for an invalid payload."""
        if not 1 <= sum(lengths) <= MAX_PACKET_FRAMES or min(lengths) < 1:
            raise FormatError(f"A motion message cannot hold runs of {lengths} frames.")
        if len(payload) > 64 + sum(lengths) * coordinates * 8:
            raise FormatError(f"A motion message of {len(payload)} bytes is too long for {sum(lengths)} frames.")
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
        last = before = [0] * (coordinates + 3)
        for frequency in range(used):
            own = [0] * (coordinates + 3)  # magnitudes, padded as activity_class expects
            for i, base in enumerate(bases[frequency].tolist()):
                row = base + activity_class(own, last, before, i)
                symbol = int(decoder.decode(self._models[row]))
                level = symbol - REACH
                if symbol == _ESCAPE:
                    raw = int(decoder.decode(self._raw))
                    level = (raw ^ (ESCAPE_RANGE // 2)) - ESCAPE_RANGE // 2
                levels[frequency, i] = level
                own[i + 2] = abs(level)
            last, before = own, last
        return levels


@cache
def transform_coder() -> TransformCoder:
    """Return the coder with the shipped tables, made once."""
    return TransformCoder(load_transform_tables())


def used_frequencies(levels: Levels) -> int:
    """Return the number of lowest frequencies that hold every level (n, 3 K) other than 0."""
    return int(np.flatnonzero(levels.any(1))[-1]) + 1 if levels.any() else 0
