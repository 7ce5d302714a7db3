"""Sizes of the network, and the switches of the paper's ablations."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """One network.

    `width`s are channels. Everything is convolutional, so that `size` is only the resolution the weights were
    last trained for. The nets look at pictures of `seen` pixels, and the attention grid has `side` cells; only the
    sources that are sampled, and the picture that is made, are larger where there are up blocks.
    """

    name: str
    size: int = 256
    keypoints: int = 20
    cell: int = 4
    """Pixels a side of one attention cell, of what the nets look at: the paper's 1/4 resolution."""
    up_blocks: int = 0
    """Doublings after the decoder: with one, a network for 256 makes pictures of 512, its weights as they were."""

    detector_size: int = 128
    detector_stem: int = 4
    """Pixels folded into one heatmap cell a side."""
    detector_widths: tuple[int, ...] = (48, 96, 128, 192)

    dim: int = 32
    """d: channels of queries and keys."""
    values: int = 48
    """C: channels of the values."""
    extra_pairs: int = 48
    """Learned, image-independent keys and values; about 5 % of one source's (pooled) cells."""
    query_widths: tuple[int, ...] = (32, 48, 64)
    key_widths: tuple[int, ...] = (32, 48, 64, 96)
    basis_widths: tuple[int, ...] = (64, 96, 128, 192)
    basis_layers: int = 3
    """Smooth motions that masks put together."""
    trunk: int = 64
    trunk_blocks: int = 2
    detail: int = 32
    """Channels at half resolution."""
    up_detail: int = 16
    """Channels of an up block, at half the resolution it makes."""

    top_k: int = 8
    """Coarse cells kept per coarse query by the hierarchical attention; 0 is dense."""

    residual: bool = True
    """[warped pixels, warped keys, queries] -> MLP, added to the warped values (paper, section 3.2)."""
    extra: bool = True
    """Extra keys and values (paper, section 3.2)."""
    prior: bool = True
    """Geometric prior in the attention logits (not in the paper)."""

    @property
    def scale(self) -> int:
        """How many times larger pictures are than what the nets look at."""
        return 2**self.up_blocks

    @property
    def seen(self) -> int:
        """Pixels a side of what the nets look at."""
        return self.size // self.scale

    @property
    def side(self) -> int:
        """Cells a side of the attention grid."""
        return self.seen // self.cell

    @property
    def basis_side(self) -> int:
        """Cells a side of the motion basis."""
        return self.detector_size // self.cell

    def to_dict(self) -> dict[str, Any]:
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
"""Real time on a CPU; what ships."""

LITE512 = replace(LITE, name="lite512", size=512, up_blocks=1)
"""`LITE` with one up block: everything else has its weights."""

PAPER = ModelConfig(
    name="paper",
    size=512,
    detector_size=256,
    # FOMM's published hourglass (32 doubling to 1024 over 5 blocks) on a 64x64 picture; the paper's own d, C and
    # learning rate could not be recovered, so these are not the paper's numbers.
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
"""For tests: every part, nothing learnt."""

CONFIGS = {config.name: config for config in (LITE, LITE512, PAPER, TINY)}
