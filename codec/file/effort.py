"""What the file encoder does at each effort."""

from dataclasses import dataclass

from iwcodec.codec.file.rate_control.source_plan import PRESETS, Presets
from iwcodec.codec.file.rate_control.trials import TRIAL_PRESETS
from iwcodec.codec.fit.keypoint_fit import FLOW_FREE_ERROR, KeypointFit, quick_fit


@dataclass(frozen=True)
class Effort:
    """Settings of one effort."""

    presets: Presets
    """SVT-AV1 presets. Few sources: 0.1 s each with preset 4; 0.5 s for 8 % fewer bytes with 1; 1.4 s for 11 % fewer
    with 0. Many sources: 6 ms each with 8; 18 ms for 0.9 dB more with 4; 50 ms for 1.2 dB more with 2."""
    quick_fit: bool = False
    """Whether frames are fitted as in a call."""
    synthesis_iterations: int = 0
    """How often a frame is reconstructed and its keypoints corrected (analysis by synthesis)."""
    single_pass: bool = False
    """Detect and fit only every second frame. Source plans, the number of sources in attention and small-shift
    suppression are estimated or fixed instead of tried. Eyes and mouths are compared by their look alone, not by what
    they do."""

    @property
    def frame_step(self) -> int:
        """The keypoints of every Nth frame are detected and fitted; those between are interpolated."""
        return 2 if self.single_pass else 1

    def new_fit(self) -> KeypointFit:
        if self.quick_fit:
            return quick_fit(FLOW_FREE_ERROR if self.single_pass else 0.0)
        return KeypointFit(self.synthesis_iterations)


EFFORTS = (
    Effort(TRIAL_PRESETS, quick_fit=True, single_pass=True),
    Effort(TRIAL_PRESETS, quick_fit=True),
    Effort(PRESETS),
    Effort((0, 2), synthesis_iterations=3),
)
"""By EncodeOptions.effort."""
