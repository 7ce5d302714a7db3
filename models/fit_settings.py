"""What training (fitting.py) and senders (codec/refinement.py) must agree on to fit keypoints to motion. No torch
here: senders do without."""

HOLD_PLACE, HOLD_STRENGTH = 0.02, 0.005
"""Weights of the detector's word on a place and a strength, in cells of the flow's grid."""
SOFTNESS = 0.03
"""Distance ([-1, 1] units) at which a cell counts half: occlusions and bad flow must not pull."""
DOUBT = 8.0
"""Grey levels: a flow that leaves such a difference counts half."""
STRENGTH_WEIGHT = 0.02
"""Of strengths in the distance of two poses: a strength is in 0..1, places are in [-1, 1]; a full swing of one counts
as a move of a seventh of the picture."""
BLURS = (2.5, 1.2, 0.7)
"""Of the alignment (alignment.py), step by step: pixels of the flow's pictures by which both pictures are blurred. What
has moved far is found in the coarse, and what is finer says nothing of it."""
ODD = 25.0
"""Grey levels: a pixel that is so wrong counts half. It may be one that the source does not show."""
STILL = 4e3
"""Squared grey levels, summed over a cell's pixels, for a move of 1: what holds a cell without texture to where the
flow put it."""
INVERSIONS = 6
"""Fixed-point steps from where cells of a source go to where cells of a frame are from."""
