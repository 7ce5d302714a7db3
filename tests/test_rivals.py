from fractions import Fraction

import numpy as np
from iwcodec.benchmarks.rivals import encode_svtav1
from iwcodec.quality import psnr
from training_clips import wandering_square


def test_one_key_frame_then_small_ones_and_more_bits_look_better():
    pictures = [np.ascontiguousarray(p) for p in wandering_square(30, 1, 128)]
    low, high = (encode_svtav1(pictures, Fraction(25), kbps) for kbps in (8, 200))
    assert len(low.pictures) == len(high.pictures) == len(low.payload) == 30
    assert sum(low.payload) < sum(high.payload)
    assert np.median(high.payload[1:]) < high.payload[0]
    qualities = [np.mean([psnr(a, b) for a, b in zip(r.pictures, pictures, strict=True)]) for r in (low, high)]
    assert qualities[0] < qualities[1]
