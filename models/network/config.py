"""Network configurations: sizes, and switches for the paper's ablations."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of one network. Weights files store it, so field names must not change.

    `*_widths` are channels per U-Net level. The network is fully convolutional: `size` is only the resolution for which
    the weights were last trained. The network reads pictures of `net_size` pixels, on an attention grid of `side` cells
    per side; with up blocks the sampled sources and the output are larger than that.
    """

    name: str
    size: int = 256
    keypoints: int = 20
    cell: int = 4
    """Side of an attention cell in pixels of the network's input; 4 is the paper's 1/4 resolution."""
    up_blocks: int = 0
    """Resolution doublings after the decoder: one makes a 256-pixel network produce 512 pixels with its weights
    unchanged."""

    detector_size: int = 128
    detector_stem: int = 4
    """Side in pixels of the square that is folded into one heatmap cell."""
    detector_widths: tuple[int, ...] = (48, 96, 128, 192)

    dim: int = 32
    """d: channels of queries and keys."""
    values: int = 48
    """C: channels of the values."""
    extra_pairs: int = 48
    """Number of learned, image-independent key-value pairs; about 5 % of the pooled cells of one source."""
    query_widths: tuple[int, ...] = (32, 48, 64)
    key_widths: tuple[int, ...] = (32, 48, 64, 96)
    basis_widths: tuple[int, ...] = (64, 96, 128, 192)
    basis_layers: int = 3
    """Number of smooth motion layers that the masks compose."""
    trunk: int = 64
    trunk_blocks: int = 2
    detail: int = 32
    """Channels at half resolution."""
    up_detail: int = 16
    """Channels of an up block, which works at half its output resolution."""

    top_k: int = 8
    """Key blocks kept per query block by the hierarchical attention; 0 selects dense attention."""

    residual: bool = True
    """Add an MLP of [warped pixels, warped keys, queries] to the warped values (paper, section 3.2)."""
    extra: bool = True
    """Use the extra keys and values (paper, section 3.2)."""
    prior: bool = True
    """Use the geometric prior in the attention logits (not in the paper)."""

    @property
    def scale(self) -> int:
        """Ratio of the picture size to the network's input size."""
        return 2**self.up_blocks

    @property
    def net_size(self) -> int:
        """Side in pixels of the pictures that the network reads."""
        return self.size // self.scale

    @property
    def side(self) -> int:
        """Cells per side of the attention grid."""
        return self.net_size // self.cell

    @property
    def basis_side(self) -> int:
        """Cells per side of the motion basis."""
        return self.detector_size // self.cell

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as stored in weights files and checkpoints."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ModelConfig":
        """Inverse of `to_dict`. Raises ValueError on an unknown key."""
        known = {field.name for field in fields(ModelConfig)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(f"unknown model settings: {', '.join(sorted(unknown))}")
        tuples: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return ModelConfig(**tuples)


LITE = ModelConfig(name="lite")
"""The shipped network; real time on a CPU."""

LITE512 = replace(LITE, name="lite512", size=512, up_blocks=1)
"""`LITE` with one up block; it shares all other weights."""

PAPER = ModelConfig(
    name="paper",
    size=512,
    detector_size=256,
    # FOMM's published hourglass (32 doubling to 1024 over 5 blocks) on 64x64 pictures. The paper's d, C and learning
    # rate could not be recovered; these numbers are not the paper's.
    detector_widths=(64, 128, 256, 512, 1024),
    dim=64,
    values=256,
    extra_pairs=820,
    query_widths=(64, 128, 256, 512),
    key_widths=(64, 128, 256, 512),
    basis_widths=(64, 128, 256, 512),
    trunk=256,
    trunk_blocks=6,
    detail=128,
    top_k=0,
    prior=False,
)
"""The network at the paper's size: 512x512, dense attention, no geometric prior."""

TINY = replace(
    LITE,
    name="tiny",
    size=64,
    detector_size=64,
    detector_widths=(8, 16, 16),
    dim=8,
    values=8,
    extra_pairs=4,
    query_widths=(8, 16),
    key_widths=(8, 16),
    basis_widths=(8, 16),
    trunk=8,
    trunk_blocks=1,
    detail=8,
)
"""A small network with every part, for tests."""

CONFIGS = {config.name: config for config in (LITE, LITE512, PAPER, TINY)}
"""The configurations by name."""
