"""Prediction of levels: exact in integers, causal, and better than none for a face that moves as a whole."""

import numpy as np

from iwcodec.codec.motion.prediction import Predictor, fit_predictor, predict
from iwcodec.codec.motion.predictive_coder import MotionCoder
from iwcodec.codec.motion.predictive_tables import count_tracks, load_tables, make_tables


def head(seed: int, frames: int = 300) -> np.ndarray:
    """Twenty keypoints that wander together, each with a little of its own."""
    rng = np.random.default_rng(seed)
    together = np.cumsum(rng.normal(0, 3, (frames, 1, 3)), 0)
    own = rng.normal(0, 0.6, (frames, 20, 3))
    return (together + own + np.arange(20)[:, None] * 5).round().astype(np.int32)


def test_a_keypoint_is_predicted_from_those_before_it_alone():
    predictor = load_tables().predictor
    moved, last = np.random.default_rng(0).integers(-9, 10, (2, 20, 3)).astype(np.int32)
    for weights in (predictor.inter, predictor.intra):
        whole = predict(weights, moved, last)
        partly = np.zeros_like(moved)
        for k in range(20):
            np.testing.assert_array_equal(predict(weights[k : k + 1], partly, last)[0], whole[k])
            partly[k] = moved[k]


def test_a_head_that_moves_as_a_whole_costs_less():
    tracks, other = [head(seed) for seed in range(4)], head(9)
    means = np.concatenate(tracks).mean(0).round().astype(np.int32)
    sizes = []
    for predictor in (fit_predictor(tracks, means), Predictor.zero(20)):
        coder = MotionCoder(make_tables(count_tracks(tracks, means, predictor), means, predictor))
        sizes.append(len(coder.encode(other[100:150], other[99])))
    assert sizes[0] < 0.75 * sizes[1]
