"""Motion: quantised keypoint tracks to bytes and back.

A message holds one or more frames of K x 3 integer levels. The first is predicted from a reference frame, or where
there is none from the tables' means; each other from the one before it. The residuals are range-coded (constriction,
32-bit words, trailing zero bytes left off) with static tables, chosen for each value by how much it, and all values of
its kind, moved in the frame before: integers alone decide, so every machine reads the same symbols.
"""

from dataclasses import dataclass

import constriction
import numpy as np
from numpy.typing import NDArray

from .errors import FormatError
from .motion_tables import REACH, SYMBOLS, Tables, contexts, intra_contexts, symbols_of

Levels = NDArray[np.int32]
DEAD_ZONE = 0.7
"""Steps: a value this near to its last level keeps it, so that a still face costs nothing."""
_ESCAPE = SYMBOLS - 1
_RAW = 1 << 16
LARGEST_LEVEL = _RAW // 2 - 1
MOST_FRAMES = 256


@dataclass(frozen=True)
class Quantiser:
    """Keypoints (..., K, 3) <-> integer levels. Steps in [-1, 1] units for places, in 0..1 for strengths."""

    step_xy: float = 1 / 96
    step_strength: float = 1 / 24

    @property
    def steps(self) -> NDArray[np.float32]:
        return np.array([self.step_xy, self.step_xy, self.step_strength], np.float32)

    def quantise(self, keypoints: NDArray[np.float32], last: Levels | None = None) -> Levels:
        """Nearest levels; with the `last` frame's levels, a dead zone around them."""
        exact = keypoints / self.steps
        levels = np.clip(np.rint(exact), -LARGEST_LEVEL, LARGEST_LEVEL).astype(np.int32)
        if last is None:
            return levels
        return np.where(np.abs(exact - last) < DEAD_ZONE, last, levels).astype(np.int32)

    def quantise_track(self, keypoints: NDArray[np.float32]) -> Levels:
        """Consecutive frames (n, K, 3), each with the dead zone of the one before."""
        out: list[Levels] = []
        for frame in keypoints:
            out.append(self.quantise(frame, out[-1] if out else None))
        return np.stack(out)

    def dequantise(self, levels: Levels) -> NDArray[np.float32]:
        """Places clipped to [-1, 1], strengths to [0, 1]."""
        values = levels.astype(np.float32) * self.steps
        low, high = np.array([-1, -1, 0], np.float32), np.ones(3, np.float32)
        return np.asarray(np.clip(values, low, high), np.float32)


class MotionCoder:
    """Stateless: every message is decoded by itself, given its reference."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._model = constriction.stream.model.Categorical(perfect=False)
        self._raw = constriction.stream.model.Uniform(_RAW)

    def encode(self, levels: Levels, reference: Levels | None) -> bytes:
        """Levels (n, K, 3) of 1 to 256 frames, reference (K, 3) -> payload."""
        encoder = constriction.stream.queue.RangeEncoder()
        rows, before, last = self._start(levels.shape[1], reference)
        for frame in levels:
            residual = (frame - before).astype(np.int32)
            symbols = symbols_of(residual).ravel()
            encoder.encode(symbols, self._model, self.tables.probabilities[rows.ravel()])
            escaped = residual.ravel()[symbols == _ESCAPE]
            if len(escaped):
                encoder.encode((escaped & (_RAW - 1)).astype(np.int32), self._raw)
            last = residual if last is not None else np.zeros_like(residual)
            before, rows = frame, contexts(last)
        words = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
        return words or b"\0"

    def decode(self, payload: bytes, count: int, keypoints: int, reference: Levels | None) -> Levels:
        """Payload -> levels (count, K, 3). Raises FormatError for what cannot be a payload."""
        if not 1 <= count <= MOST_FRAMES or not 1 <= keypoints <= 64:
            raise FormatError(f"A motion message of {count} frames and {keypoints} keypoints is impossible.")
        if len(payload) > 64 + count * keypoints * 3 * 8:
            raise FormatError("A motion message is longer than any can be.")
        padded = payload + bytes(-len(payload) % 4 + 8)
        decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))
        rows, before, last = self._start(keypoints, reference)
        out = np.empty((count, keypoints, 3), np.int32)
        for n in range(count):
            residual = self._decode_frame(decoder, rows)
            frame = before + residual
            if np.abs(frame).max() > LARGEST_LEVEL:
                raise FormatError("A motion message holds a level out of range.")
            out[n] = frame
            last = residual if last is not None else np.zeros_like(residual)
            before, rows = frame, contexts(last)
        return out

    def _decode_frame(self, decoder: constriction.stream.queue.RangeDecoder, rows: NDArray[np.int64]) -> Levels:
        try:
            symbols = decoder.decode(self._model, self.tables.probabilities[rows.ravel()])
            residual = symbols.astype(np.int32) - REACH
            escapes = symbols == _ESCAPE
            if escapes.any():
                raw = decoder.decode(self._raw, int(escapes.sum())).astype(np.int32)
                residual[escapes] = (raw ^ (_RAW // 2)) - _RAW // 2
        except (AssertionError, ValueError) as error:
            raise FormatError("A motion message cannot be decoded.") from error
        return np.asarray(residual.reshape(rows.shape), np.int32)

    def _start(self, keypoints: int, reference: Levels | None) -> tuple[NDArray[np.int64], Levels, Levels | None]:
        """Table rows and prediction of the first frame; the last is None where its residual says nothing of motion."""
        if reference is not None:
            return contexts(np.zeros_like(reference)), reference, reference
        means = self.tables.means
        fitting = means if len(means) == keypoints else np.zeros((keypoints, 3), np.int32)
        return intra_contexts(keypoints), fitting, None
