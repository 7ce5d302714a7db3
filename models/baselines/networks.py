"""The baselines by name."""

from collections.abc import Callable

from torch import nn

from iwcodec.models.baselines.aa_pca import AaPca
from iwcodec.models.baselines.face_vid2vid import FaceVid2vid
from iwcodec.models.baselines.fomm import Fomm
from iwcodec.models.baselines.implicit_warping import ImplicitWarping
from iwcodec.models.network.config import ModelConfig

BASELINES: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "fomm": Fomm,
    "face-vid2vid": FaceVid2vid,
    "aa-pca": AaPca,
    "implicit-warping": ImplicitWarping,
}
"""Name -> network. All have `forward(driving, sources)`, `detect(pictures)` and `equivariance(pose, transformed,
affine)` (common.FlowBaseline)."""
