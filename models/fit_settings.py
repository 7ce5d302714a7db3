"""Constants of the keypoint fit that training (models/training) and senders (codec/fit) must share.

Imports no PyTorch, because senders run without it.
"""

PLACE_PRIOR, STRENGTH_PRIOR = 0.02, 0.005
"""Weights of the quadratic penalty that ties fitted places and strengths to the detected keypoints, relative to one
cell of the flow grid."""
OUTLIER_DISTANCE = 0.03
"""Residual of a cell, in [-1, 1] units, at which its weight in the robust fit is halved. Limits the influence of
occlusions and wrong flow."""
FLOW_ERROR_SCALE = 8.0
"""Grey-level difference left by the flow at which the confidence in that flow is halved."""
STRENGTH_WEIGHT = 0.02
"""Weight of squared strength differences in the distance of two poses. Strengths are in 0..1 and places in [-1, 1]:
with this weight a full change of one strength counts as a shift by a seventh of the picture."""
BLURS = (2.5, 1.2, 0.7)
"""Standard deviations of the Gaussian blur, in pixels of the FLOW_SIZE pictures, of the successive alignment steps
(coarse to fine). Strong blur finds large displacements and is not misled by fine texture."""
OUTLIER_GREY = 25.0
"""Grey-level error of a pixel at which its weight in the alignment is halved: the source may not show it at all."""
STIFFNESS = 4e3
"""Penalty on moving a cell by 1 unit of [-1, 1] away from its flow estimate, in squared grey levels summed over the
cell's pixels. Keeps cells without texture where the flow put them."""
INVERSION_STEPS = 6
"""Fixed-point iterations that invert the forward motion of source cells into a backward field of the driving frame."""
