"""Prediction of levels: exact in integers and causal."""

import numpy as np

from iwcodec.codec.motion.prediction import predict
from iwcodec.codec.motion.predictive_tables import load_tables


def test_a_keypoint_is_predicted_from_earlier_keypoints_only() -> None:
    predictor = load_tables().predictor
    moved, last = np.random.default_rng(0).integers(-9, 10, (2, 20, 3)).astype(np.int32)
    for weights in (predictor.inter, predictor.intra):
        whole = predict(weights, moved, last)
        partly = np.zeros_like(moved)
        for k in range(20):
            np.testing.assert_array_equal(predict(weights[k : k + 1], partly, last)[0], whole[k])
            partly[k] = moved[k]
