"""The network: keypoints in, picture out, through one attention layer over all sources.

It follows "Implicit Warping for Animation with Image Sets", Mallya, Wang, Liu, NeurIPS 2022,
https://arxiv.org/abs/2210.01794: keypoints, queries and keys (section 3.1, detector.py and encoders.py); cross-modal
attention, extra keys and values, residual on the attended values (section 3.2, attention.py and decoder.py).

Beyond the paper: a geometric prior in the logits (geometry.py), cosine attention with a learned temperature,
hierarchical top-k (attention.py), and a base picture (warp.py). The attention also averages the positions of the source
cells, so each query knows to a fraction of a cell *where* in each source it attends. The sources are sampled there at
full resolution and blended by the attention each received. The decoder only corrects this base picture.

Up blocks make larger pictures with the same motion. The network reads the sources pooled to its native input size, the
sampling fields are upsampled and applied to the full sources, and the decoder corrects the pooled base picture first
and then, up block by up block, the larger ones.

Shapes: B samples, S sources, K keypoints, g cells per side, M = g * g cells, N query cells, pictures in 0..1. H and W
are the size of the pictures, h and w that of the network's input; they are equal without up blocks.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.network.attention import (
    Blocks,
    Extras,
    block_attention,
    coarse_logits,
    dense_attention,
    hierarchical_attention,
    to_blocks,
)
from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.decoder import Decoder
from iwcodec.models.network.detector import KeypointDetector
from iwcodec.models.network.encoders import KeyNet, QueryNet
from iwcodec.models.network.geometry import PRIOR_DIMS, GeometricPrior
from iwcodec.models.network.layers import to_cells, to_maps, upsample
from iwcodec.models.network.motion_basis import BasisNet
from iwcodec.models.network.warp import (
    Warp,
    blend,
    coarse_fields,
    mean_shift,
    place_columns,
    read_warp,
    sample_sources,
    sampling_fields,
    upsample_places,
)

MASKED = -1e4
"""Logit of a masked key; finite, so that fp16 and softmax stay well-defined."""
GATE_CLOSED, GATE_OPEN = 0.5, 3.0
"""Mean sampling shift, in pixels of the network's input, up to which the decoder's correction is off and from which on
it is fully applied; linear in between. An unshifted source is closer to the truth than the decoder's correction of it.
On 16 training clips with three coded sources the gate gains 0.11 dB on average over correcting everywhere, 0.7 dB on
the calmest clip, and never loses."""


class Sources(NamedTuple):
    """Features of a set of sources, computed once when a source arrives."""

    pictures: Tensor  # (B, S, 3, H, W)
    keypoints: Tensor  # (B, S, K, 3)
    rows: Tensor  # (B, S, M, C + d + 3): values, unit keys, pixels
    membership: Tensor  # (B, S, M, K + 1): weights of the keypoints and the background in each cell
    basis: Tensor  # (B, S, b, 3 K): how cells of a coarse grid move with places and strengths


class Generated(NamedTuple):
    """Result of `ImplicitWarp.generate`."""

    picture: Tensor  # (B, 3, H, W), not clamped
    base: Tensor  # (B, 3, H, W): sampled and blended sources, before the correction
    warp: Warp
    coarse_logits: Tensor | None  # (B, N / 4, S * M / 4), if requested


class ImplicitWarp(nn.Module):
    """The whole network: detector, encoders, attention, warping and decoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.detector = KeypointDetector(config)
        self.query_net = QueryNet(config)
        self.key_net = KeyNet(config)
        self.basis_net = BasisNet(config)
        fold = config.cell // 2
        self.value_net = nn.Sequential(
            nn.Conv2d(3, config.values // 2, 2 * fold - 1 if fold > 1 else 3, fold, fold - 1 if fold > 1 else 1),
            nn.ReLU(),
            nn.Conv2d(config.values // 2, config.values, 3, 2, 1),
        )
        self.prior = GeometricPrior(config)
        self.log_temperature = nn.Parameter(torch.tensor(1.6))
        self.log_focus = nn.Parameter(torch.tensor(0.7))
        self.extra_keys = nn.Parameter(torch.randn(config.extra_pairs, config.dim))
        self.extra_logits = nn.Parameter(torch.full((config.extra_pairs,), -6.0))
        self.extra_values = nn.Parameter(torch.randn(config.extra_pairs, config.values) * 0.1)
        self.extra_pixels = nn.Parameter(torch.full((config.extra_pairs, 3), 0.5))
        self.decoder = Decoder(config)

    def detect(self, pictures: Tensor) -> Tensor:
        """Detect keypoints: pictures (B, 3, H, W) -> (B, K, 3)."""
        return self.detector(pictures)

    def encode_sources(self, pictures: Tensor, keypoints: Tensor, net_pictures: Tensor | None = None) -> Sources:
        """Compute everything of the sources that does not depend on the driving frame, from pictures (B, S, 3, H, W)
        and their keypoints (B, S, K, 3).

        `net_pictures` (B, S, 3, h, w) are the pictures at the network's input size, if the caller has scaled them.
        """
        batch, count = pictures.shape[:2]
        flat, flat_keypoints = (
            (pictures if net_pictures is None else net_pictures).flatten(0, 1),
            keypoints.flatten(0, 1),
        )
        if net_pictures is None and self.config.up_blocks:
            flat = F.avg_pool2d(flat, self.config.scale)
        side = flat.shape[-1] // self.config.cell
        keys, parts = self.key_net(flat, flat_keypoints)
        values = to_cells(self.value_net(flat - 0.5))
        pixels = to_cells(F.avg_pool2d(flat, self.config.cell))
        rows = torch.cat([values, keys, pixels], dim=-1)
        membership = self.prior.membership(flat_keypoints, side, parts)
        basis = self.motion_basis(flat, flat_keypoints)
        split = (batch, count)
        return Sources(pictures, keypoints, *(x.unflatten(0, split) for x in (rows, membership, basis)))

    def motion_basis(self, picture: Tensor, keypoints: Tensor) -> Tensor:
        """Pictures (B, 3, h, w) and keypoints (B, K, 3) -> motion basis (B, b, 3 K); see geometry.displacements."""
        along = self.prior.membership(keypoints, self.config.basis_side)[..., :-1]
        return F.pad(along, (0, 2 * self.config.keypoints)) + self.basis_net(picture, keypoints)

    def generate(
        self,
        driving: Tensor,
        sources: Sources,
        *,
        dense: bool = False,
        dropped: Tensor | None = None,
        want_logits: bool = False,
        suppression: Tensor | None = None,
    ) -> Generated:
        """Generate pictures from driving keypoints (B, K, 3) and a set of sources.

        `dense` attends to every cell even if the configuration says top-k. `dropped` (B, S, M), bool, hides source
        cells from the attention (semantic dropout in training). `suppression` (B,): see `warp.suppress_small_shifts`.
        """
        side = self.side(sources.pictures)
        attended, unit_queries, logits = self.attend(driving, sources, side, dense, dropped, want_logits)
        picture, base, warp = self.decode(attended, unit_queries, sources.pictures, None, suppression)
        return Generated(picture, base, warp, logits)

    def attend(
        self,
        driving: Tensor,
        sources: Sources,
        side: int,
        dense: bool = False,
        dropped: Tensor | None = None,
        want_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return attended rows (B, N, R), unit queries (B, N, d), and coarse logits if `want_logits`."""
        queries, unit_queries = self.queries(driving, side)
        keys = self.keys(driving, sources, side)
        if dropped is not None:
            hidden = torch.zeros_like(keys)
            hidden[..., -1] = dropped.flatten(1) * MASKED
            keys = keys + hidden
        rows = place_columns(sources.rows, side)
        extras = self.extras(rows.shape[-1])
        if dense or self.config.top_k == 0:
            attended = dense_attention(queries, keys, rows, extras)
        else:
            attended = hierarchical_attention(queries, keys, rows, extras, side, self.config.top_k)
        return attended, unit_queries, coarse_logits(queries, keys, side) if want_logits else None

    def merge_sources(self, rows: Tensor, side: int) -> Blocks:
        """Arrange the rows (B, S, M, R) of a set of sources in blocks, as far as it does not depend on the driving
        frame: the keys still lack the dimensions of the prior."""
        keys = to_blocks(self._unit_keys(rows).flatten(1, 2), side)
        return Blocks(keys, keys.mean(2), to_blocks(place_columns(rows, side), side).flatten(2))

    def attend_merged(
        self, driving: Tensor, keypoints: Tensor, merged: Blocks, membership: Tensor, basis: Tensor, side: int
    ) -> tuple[Tensor, Tensor]:
        """`attend` for merged sources: return attended rows (B, N, R) and unit queries (B, N, d)."""
        queries, unit_queries = self.queries(driving, side)
        geometry = self.geometry(driving, keypoints, membership, basis, side).flatten(1, 2)
        geometry = to_blocks(geometry, side)
        keys = torch.cat([merged.keys, geometry], dim=-1)
        pooled = torch.cat([merged.pooled, geometry.mean(2)], dim=-1)
        extras = self.extras(merged.rows.shape[-1] // 4)
        if self.config.top_k == 0:
            rows = merged.rows.unflatten(2, (4, -1)).flatten(1, 2)
            return dense_attention(queries, keys.flatten(1, 2), rows, extras), unit_queries
        blocks = Blocks(keys, pooled, merged.rows)
        return block_attention(queries, blocks, extras, side, self.config.top_k), unit_queries

    def side(self, pictures: Tensor) -> int:
        """Cells per side of the attention grid for pictures (..., H, W)."""
        return pictures.shape[-1] // (self.config.cell * self.config.scale)

    def queries(self, driving: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return queries (B, N, d + PRIOR_DIMS) that include temperature and prior, and unit queries (B, N, d)."""
        unit = self.query_net(driving, side)
        geometry = self.prior.query_dims(side, driving).expand(unit.shape[0], -1, -1)
        return torch.cat([unit * self.log_temperature.exp(), geometry], dim=-1), unit

    def keys(self, driving: Tensor, sources: Sources, side: int) -> Tensor:
        """Return keys (B, S * M, d + PRIOR_DIMS)."""
        geometry = self.geometry(driving, sources.keypoints, sources.membership, sources.basis, side)
        return torch.cat([self._unit_keys(sources.rows), geometry], dim=-1).flatten(1, 2)

    def geometry(self, driving: Tensor, keypoints: Tensor, membership: Tensor, basis: Tensor, side: int) -> Tensor:
        """Return the dimensions that the prior adds to the keys: (B, S, M, PRIOR_DIMS)."""
        if not self.config.prior:
            return torch.zeros_like(membership[..., :PRIOR_DIMS])
        return self.prior.key_dims(self.prior.terms(membership, basis, keypoints, driving[:, None], side))

    def _unit_keys(self, rows: Tensor) -> Tensor:
        return rows[..., self.config.values : self.config.values + self.config.dim]

    def extras(self, width: int) -> Extras:
        """Return the extra keys and values (paper, section 3.2) for rows of `width` columns. They belong to no source,
        so their place columns are 0."""
        config = self.config
        unit = F.normalize(self.extra_keys, dim=-1)
        # The last dimension is multiplied by the queries' constant 1: a learned bias, well below the logit of a
        # matching cell.
        bias = self.extra_logits if config.extra else torch.full_like(self.extra_logits, MASKED)
        geometry = F.pad(bias[:, None], (PRIOR_DIMS - 1, 0))
        keys = torch.cat([unit, geometry], dim=-1)
        rows = torch.cat([self.extra_values, unit, self.extra_pixels], dim=-1)
        return Extras(keys, F.pad(rows, (0, width - rows.shape[-1])))

    def decode(
        self,
        attended: Tensor,
        unit_queries: Tensor,
        pictures: Tensor,
        present: Tensor | None = None,
        suppression: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Warp]:
        """Attended rows (B, N, R) -> picture, base picture, warp. `present` (B, S), bool, masks unused sources;
        `suppression` (B,): see `warp.suppress_small_shifts`."""
        side = self.side(pictures)
        features, warp = self.decoder_inputs(attended, unit_queries, side)
        size, focus = side * self.config.cell, self.log_focus.exp()
        places, shares = sampling_fields(warp, side, size, focus, present, suppression)
        places, shares = upsample_places(places, self.config.scale), upsample(shares, self.config.scale)
        base = blend(sample_sources(pictures, places), shares)
        return self.decoder.correct(features, base), base, warp

    def decoder_inputs(self, attended: Tensor, unit_queries: Tensor, side: int) -> tuple[Tensor, Warp]:
        """Attended rows (B, N, R) -> decoder features (B, trunk + 1, g, g), whose last channel is the correction's
        gate, and the warp."""
        config = self.config
        widths = [config.values, config.dim, 3]
        values, keys, pixels = attended[..., : sum(widths)].split(widths, dim=-1)
        columns = attended[..., sum(widths) :]
        warp = read_warp(columns, side)
        total = warp.mass.sum(1)[..., None]
        context = torch.cat([pixels - 0.5, keys, unit_queries, total], dim=-1)
        features = self.decoder.features(to_maps(values, side), to_maps(context, side))
        nudge = self.decoder.nudge(features).tanh().flatten(2).transpose(1, 2)  # at most one cell
        warp = Warp(warp.mass, warp.places + nudge[:, None])
        fields = coarse_fields(
            warp, side, self.log_focus.exp()
        ).detach()  # no gradient may increase motion to open the gate
        gate = ((mean_shift(fields) * (config.net_size / 2) - GATE_CLOSED) / (GATE_OPEN - GATE_CLOSED)).clamp(0, 1)
        return torch.cat([features, to_maps(gate, side)], dim=1), warp
