"""Predictive coder of calls: quantised keypoint frames to bytes and back.

A message holds one or more frames of K x 3 integer levels. The first frame is predicted from a reference frame (inter)
or, without one, from the mean levels of the tables (intra); every other frame is predicted from the one before it
(prediction.py). Prediction residuals are range-coded (constriction, 32-bit words, trailing zero bytes removed) with
static tables. The table is selected by the magnitudes of residuals already coded (predictive_tables.py). Only integer
arithmetic decides what is decoded, so every machine decodes the same levels.
"""

from dataclasses import dataclass

import constriction
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.prediction import Predictor, predict, predict_scaled, round_scaled
from iwcodec.codec.motion.predictive_tables import (
    REACH,
    SYMBOLS,
    Tables,
    causal_classes,
    frame_contexts,
    rows_of,
    symbols_of,
)
from iwcodec.codec.motion.types import ESCAPE_RANGE, MAX_LEVEL, Levels

_ESCAPE = SYMBOLS - 1


class PredictiveCoder:
    """Stateless: a message and its reference frame are all that decoding needs."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._model = constriction.stream.model.Categorical(perfect=False)
        self._raw = constriction.stream.model.Uniform(ESCAPE_RANGE)

    def encode(self, levels: Levels, reference: Levels | None) -> bytes:
        """Encode levels (n, K, 3) of 1 to MAX_PACKET_FRAMES frames, given the levels (K, 3) of any reference frame."""
        encoder = constriction.stream.queue.RangeEncoder()
        state = self._start(levels.shape[1], reference)
        for frame in levels:
            delta = frame - state.last
            residuals = wrap_levels(delta - predict(state.weights, delta, state.last_delta))
            symbols = symbols_of(residuals)
            rows = rows_of(state.contexts, residuals)
            for k in range(len(residuals)):
                encoder.encode(symbols[k], self._model, self.tables.probabilities[rows[k]])
                escaped = residuals[k][symbols[k] == _ESCAPE]
                if len(escaped):
                    encoder.encode((escaped & (ESCAPE_RANGE - 1)).astype(np.int32), self._raw)
            state = self._next(state, delta, residuals)
        words = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
        return words or b"\0"

    def decode(self, payload: bytes, count: int, keypoints: int, reference: Levels | None) -> Levels:
        """Decode levels (count, K, 3), given the levels (K, 3) of any reference frame. Raises FormatError for an
        invalid payload."""
        if not 1 <= count <= MAX_PACKET_FRAMES or not 1 <= keypoints <= 64:
            raise FormatError(f"A motion message cannot hold {count} frames of {keypoints} keypoints.")
        if len(payload) > 64 + count * keypoints * 3 * 8:
            raise FormatError(f"A motion message of {len(payload)} bytes is too long for {count} frames.")
        padded = payload + bytes(-len(payload) % 4 + 8)
        decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))
        state = self._start(keypoints, reference)
        out = np.empty((count, keypoints, 3), np.int32)
        for n in range(count):
            delta, residuals = self._decode_frame(decoder, state)
            out[n] = state.last + delta
            if np.abs(out[n]).max() > MAX_LEVEL:
                raise FormatError("A motion message holds a level out of range.")
            state = self._next(state, delta, residuals)
        return out

    def _decode_frame(self, decoder: constriction.stream.queue.RangeDecoder, state: "_State") -> tuple[Levels, Levels]:
        """Decode the deltas and the residuals (K, 3 each) of the next frame."""
        delta, residuals = np.zeros_like(state.last), np.zeros_like(state.last)
        weights_of = state.weights[:, :, : len(delta)].transpose(2, 0, 1).astype(np.int64)  # by what predicts
        predicted = predict_scaled(state.weights, delta, state.last_delta)
        positions = strengths = 0  # magnitudes of the residuals decoded so far
        for k, last in enumerate(state.last):
            rows = state.contexts[k] + causal_classes(positions, strengths, k)
            residuals[k] = self._decode_residuals(decoder, rows)
            delta[k] = wrap_levels(last + round_scaled(predicted[k]) + residuals[k]) - last
            predicted += weights_of[k] * delta[k]
            x, y, strength = residuals[k].tolist()
            positions += abs(x) + abs(y)
            strengths += abs(strength)
        return delta, residuals

    def _decode_residuals(self, decoder: constriction.stream.queue.RangeDecoder, rows: NDArray[np.int64]) -> Levels:
        """Decode the residuals (3,) of one keypoint with the tables of these rows (3,)."""
        try:
            symbols = decoder.decode(self._model, self.tables.probabilities[rows])
            residuals = symbols.astype(np.int32) - REACH
            escapes = symbols == _ESCAPE
            if escapes.any():
                raw = decoder.decode(self._raw, int(escapes.sum())).astype(np.int32)
                residuals[escapes] = (raw ^ (ESCAPE_RANGE // 2)) - ESCAPE_RANGE // 2
        except (AssertionError, ValueError) as error:
            raise FormatError("A motion message cannot be decoded.") from error
        return np.asarray(residuals, np.int32)

    def _start(self, keypoints: int, reference: Levels | None) -> "_State":
        means, predictor = self.tables.means, self.tables.predictor
        zeros = np.zeros((keypoints, 3), np.int32)
        if len(means) != keypoints:
            means, predictor = zeros, Predictor.zero(keypoints)
        if reference is None:
            return _State(means, zeros, frame_contexts(None, keypoints), predictor.intra, True)
        return _State(reference, zeros, frame_contexts(zeros, keypoints), predictor.inter, False)

    def _next(self, state: "_State", delta: Levels, residuals: Levels) -> "_State":
        keypoints = len(delta)
        predictor = self.tables.predictor if len(self.tables.means) == keypoints else Predictor.zero(keypoints)
        if state.intra:  # deviations from the means do not predict motion
            last_delta, residuals = np.zeros_like(delta), np.zeros_like(residuals)
        else:
            last_delta = delta
        return _State(state.last + delta, last_delta, frame_contexts(residuals, keypoints), predictor.inter, False)


def wrap_levels(values: Levels) -> Levels:
    """Wrap values of any shape to signed 16 bits. A level is determined by its residual modulo 2**16, however far off
    the prediction is."""
    return np.asarray((values + ESCAPE_RANGE // 2 & ESCAPE_RANGE - 1) - ESCAPE_RANGE // 2, np.int32)


@dataclass(frozen=True)
class _State:
    """What encoder and decoder know before a frame."""

    last: Levels
    """(K, 3): levels of the previous frame, of the reference frame, or the means."""
    last_delta: Levels
    """(K, 3): their change from the frame before that."""
    contexts: NDArray[np.int64]
    """(K, 3): table rows without the causal class."""
    weights: NDArray[np.int32]
    """(K, 3, 2 K): prediction weights of this frame."""
    intra: bool
