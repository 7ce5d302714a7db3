"""Motion: quantised keypoint tracks to bytes and back.

A message holds one or more frames of K x 3 integer levels. The first is predicted from a reference frame, or where
there is none from the tables' means; each other from the one before it (motion_prediction.py). What the predictions
miss is range-coded (constriction, 32-bit words, trailing zero bytes left off) with static tables, chosen for each value
by how far they missed it, and all of its kind, just before: integers alone decide, so every machine reads the same
symbols.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import constriction
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_FRAMES
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.prediction import Predictor, predict
from iwcodec.codec.motion.predictive_tables import (
    REACH,
    SYMBOLS,
    Tables,
    frame_contexts,
    rows_of,
    so_far_class,
    symbols_of,
)
from iwcodec.codec.motion.types import ESCAPE_RANGE, MAX_LEVEL, Levels

_ESCAPE = SYMBOLS - 1


def coded_frames(count: int, stride: int) -> list[int]:
    """Which of so many frames are coded: every so many one, and the last."""
    return [*range(0, count - 1, stride), count - 1]


def filled_in(
    rows: NDArray[np.float32], coded: Sequence[int], reference_sources: Sequence[int | None]
) -> NDArray[np.float32]:
    """Keypoints (m, K, 3) of the coded frames -> of all of them, in order: between those from which they are carried by
    the same source, they change evenly; else they stay what they are in the nearer one of their own source."""
    out = np.empty((len(reference_sources), *rows.shape[1:]), np.float32)
    out[coded[0]] = rows[0]
    for (a, b), before, after in zip(itertools.pairwise(coded), rows, rows[1:], strict=False):
        for number in range(a + 1, b + 1):
            share = np.float32((number - a) / (b - a))
            if reference_sources[a] == reference_sources[b]:
                out[number] = before + share * (after - before)
            else:
                out[number] = before if reference_sources[number] == reference_sources[a] and number < b else after
    return out


class MotionCoder:
    """Stateless: every message is decoded by itself, given its reference."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._model = constriction.stream.model.Categorical(perfect=False)
        self._raw = constriction.stream.model.Uniform(ESCAPE_RANGE)

    def encode(self, levels: Levels, reference: Levels | None) -> bytes:
        """Levels (n, K, 3) of 1 to 256 frames, reference (K, 3) -> payload."""
        encoder = constriction.stream.queue.RangeEncoder()
        state = self._start(levels.shape[1], reference)
        for frame in levels:
            moved = frame - state.before
            misses = wrapped(moved - predict(state.weights, moved, state.last))
            symbols = symbols_of(misses)
            rows = rows_of(state.rows, misses)
            for k in range(len(misses)):
                encoder.encode(symbols[k], self._model, self.tables.probabilities[rows[k]])
                escaped = misses[k][symbols[k] == _ESCAPE]
                if len(escaped):
                    encoder.encode((escaped & (ESCAPE_RANGE - 1)).astype(np.int32), self._raw)
            state = self._next(state, moved, misses)
        words = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
        return words or b"\0"

    def decode(self, payload: bytes, count: int, keypoints: int, reference: Levels | None) -> Levels:
        """Payload -> levels (count, K, 3). Raises FormatError for what cannot be a payload."""
        if not 1 <= count <= MAX_FRAMES or not 1 <= keypoints <= 64:
            raise FormatError(f"A motion message of {count} frames and {keypoints} keypoints is impossible.")
        if len(payload) > 64 + count * keypoints * 3 * 8:
            raise FormatError("A motion message is longer than any can be.")
        padded = payload + bytes(-len(payload) % 4 + 8)
        decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))
        state = self._start(keypoints, reference)
        out = np.empty((count, keypoints, 3), np.int32)
        for n in range(count):
            moved, misses = self._decode_frame(decoder, state)
            out[n] = state.before + moved
            if np.abs(out[n]).max() > MAX_LEVEL:
                raise FormatError("A motion message holds a level out of range.")
            state = self._next(state, moved, misses)
        return out

    def _decode_frame(self, decoder: constriction.stream.queue.RangeDecoder, state: "_State") -> tuple[Levels, Levels]:
        """How far the keypoints of the next frame have moved, and how far the prediction missed that."""
        moved, misses = np.zeros_like(state.before), np.zeros_like(state.before)
        known = np.zeros(2, np.int64)
        for k in range(len(moved)):
            rows = state.rows[k] + so_far_class(known, np.array(k))
            misses[k] = self._decode_misses(decoder, rows)
            predicted = predict(state.weights[k : k + 1], moved, state.last)[0]
            moved[k] = wrapped(state.before[k] + predicted + misses[k]) - state.before[k]
            size = np.abs(misses[k].astype(np.int64))
            known += size[0] + size[1], size[2]
        return moved, misses

    def _decode_misses(self, decoder: constriction.stream.queue.RangeDecoder, rows: NDArray[np.int64]) -> Levels:
        try:
            symbols = decoder.decode(self._model, self.tables.probabilities[rows])
            misses = symbols.astype(np.int32) - REACH
            escapes = symbols == _ESCAPE
            if escapes.any():
                raw = decoder.decode(self._raw, int(escapes.sum())).astype(np.int32)
                misses[escapes] = (raw ^ (ESCAPE_RANGE // 2)) - ESCAPE_RANGE // 2
        except (AssertionError, ValueError) as error:
            raise FormatError("A motion message cannot be decoded.") from error
        return np.asarray(misses, np.int32)

    def _start(self, keypoints: int, reference: Levels | None) -> "_State":
        means, predictor = self.tables.means, self.tables.predictor
        nothing = np.zeros((keypoints, 3), np.int32)
        if len(means) != keypoints:
            means, predictor = nothing, Predictor.zero(keypoints)
        if reference is None:
            return _State(means, nothing, frame_contexts(None, keypoints), predictor.intra, True)
        return _State(reference, nothing, frame_contexts(nothing, keypoints), predictor.inter, False)

    def _next(self, state: "_State", moved: Levels, misses: Levels) -> "_State":
        keypoints = len(moved)
        predictor = self.tables.predictor if len(self.tables.means) == keypoints else Predictor.zero(keypoints)
        if state.intra:  # a distance from the means says nothing of motion
            moved_on, misses = np.zeros_like(moved), np.zeros_like(misses)
        else:
            moved_on = moved
        return _State(state.before + moved, moved_on, frame_contexts(misses, keypoints), predictor.inter, False)


def wrapped(values: Levels) -> Levels:
    """To 16 bits, signed: a level is known once its miss is known to that, however wild the prediction was."""
    return np.asarray((values + ESCAPE_RANGE // 2 & ESCAPE_RANGE - 1) - ESCAPE_RANGE // 2, np.int32)


@dataclass(frozen=True)
class _State:
    """What is known before a frame is coded."""

    before: Levels
    """The levels it is predicted from."""
    last: Levels
    """How far they had moved."""
    rows: NDArray[np.int64]
    """Rows of the tables (K, 3), but for the class of what this frame has missed so far."""
    weights: NDArray[np.int32]
    intra: bool
