"""The network: keypoints in, picture out, by one attention layer over all sources.

"Implicit Warping for Animation with Image Sets", Mallya, Wang, Liu, NeurIPS 2022, https://arxiv.org/abs/2210.01794
Beyond the paper: a geometric prior in the logits (geometry.py), cosine attention with a learned temperature,
hierarchical top-k (attention.py), and a base picture. The attention weights also carry each source's cell places,
so every query knows *where* in each source it looks, to a fraction of a cell; the sources are sampled there at full
resolution and blended by the attention each received. The decoder only corrects this base picture.

Up blocks make larger pictures with the same motion: the nets look at sources pooled to what they know, the fields by
which the full sources are sampled are enlarged, and the decoder corrects the pooled base picture, block by block the
larger ones.

Shapes: B samples, S sources, K keypoints, g cells a side, M = g * g, pictures in 0..1; H and W are the pictures', h and
w those of what the nets look at, the same without up blocks.
"""

import itertools
import math
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
from iwcodec.models.network.detector import KeypointDetector, fit
from iwcodec.models.network.geometry import PRIOR_DIMS, GeometricPrior, cell_centres, gaussian_maps
from iwcodec.models.network.layers import ResidualBlock, UNet, zero_init

POSITIONS = 16
"""Side of the learned position embeddings before they are interpolated to the grid."""
MASKED = -1e4
"""Logit of a key that is left out; finite, so that fp16 and softmax stay well."""
STILL, MOVING = 0.5, 3.0
"""Pixels of what the nets look at: where the sources are moved by less the base picture stays as it is, for a source in
place is better than what the decoder makes of it; where by more, the correction counts whole. On 16 train clips, three
coded sources, 0.11 dB better on average than to correct everywhere, 0.7 for the calmest, and never worse."""
COMMON_SCALE = 0.1
"""Of the cosines a motion basis starts with: a step of a strength then moves as far as one of a place."""


class Sources(NamedTuple):
    """What a set of sources gives the receiver: computed once when a source arrives."""

    pictures: Tensor  # (B, S, 3, H, W)
    keypoints: Tensor  # (B, S, K, 3)
    rows: Tensor  # (B, S, M, C + d + 3): values, unit keys, pixels
    membership: Tensor  # (B, S, M, K + 1): which keypoint each cell belongs to
    basis: Tensor  # (B, S, b, 3 K): how cells of a small grid move with the keypoints' places and strengths


class Warp(NamedTuple):
    """Where the attention looked, in cell units of the g x g grid centred on 0."""

    mass: Tensor  # (B, S, N): share of each source in each query's attention
    places: Tensor  # (B, S, N, 2): mean place in each source


class Generated(NamedTuple):
    picture: Tensor  # (B, 3, H, W), not clamped
    base: Tensor  # (B, 3, H, W): sources sampled where the attention looked
    warp: Warp
    coarse_logits: Tensor | None  # (B, N / 4, S * M / 4), when asked for


class QueryNet(nn.Module):
    """Driving keypoint maps -> unit queries. Works at half the grid and unfolds its last layer to the grid."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.unet = UNet(config.keypoints, config.query_widths)
        self.head = nn.Conv2d(config.query_widths[0], 4 * config.dim, 1)
        self.position = nn.Parameter(torch.randn(1, config.dim, POSITIONS, POSITIONS) * 0.1)

    def forward(self, keypoints: Tensor, side: int) -> Tensor:
        """(B, K, 3) -> (B, side * side, d), of length 1."""
        features = self.unet(gaussian_maps(keypoints, side // 2))
        return unit_cells(F.pixel_shuffle(self.head(features), 2), self.position)


class KeyNet(nn.Module):
    """Source picture and keypoint maps -> unit keys, and which keypoint each cell belongs to."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cell = config.cell
        self.unet = UNet(3 * config.cell**2 + config.keypoints, config.key_widths)
        self.keys = nn.Conv2d(config.key_widths[0], config.dim, 1)
        self.parts = zero_init(nn.Conv2d(config.key_widths[0], config.keypoints + 1, 1))
        self.position = nn.Parameter(torch.randn(1, config.dim, POSITIONS, POSITIONS) * 0.1)

    def forward(self, picture: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W), (B, K, 3) -> keys (B, M, d), part logits (B, K + 1, M)."""
        cells = F.pixel_unshuffle(picture, self.cell) - 0.5
        features = self.unet(torch.cat([cells, gaussian_maps(keypoints, cells.shape[-1])], dim=1))
        return unit_cells(self.keys(features), self.position), self.parts(features).flatten(2)


class BasisNet(nn.Module):
    """Source picture and keypoints -> motion basis.

    Motion is smooth but at the edges of what moves. A few layers, each on a small grid, are cut out and put together by
    masks on one twice as fine. What is learnt of the picture as the detector sees it is added to what all speakers have
    in common, which starts as the lowest cosines for the strengths: a basis that knows nothing of faces, and is a good
    one for any smooth motion.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.size = config.detector_size
        self.cell = 2 * config.cell
        self.side = config.basis_side // 2
        self.unet = UNet(3 * self.cell**2 + config.keypoints + 2, config.basis_widths)
        self.layers = config.basis_layers
        self.head = nn.Conv2d(config.basis_widths[0], self.layers * 3 * config.keypoints, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.common = nn.Parameter(strength_cosines(config.keypoints, self.side).repeat(self.layers, 1, 1))
        self.masks = nn.Conv2d(config.basis_widths[0], 4 * self.layers, 3, 1, 1)

    def forward(self, picture: Tensor, keypoints: Tensor) -> Tensor:
        """(B, 3, H, W), (B, K, 3) -> (B, M, 3 K), to which the memberships are added."""
        folded = F.pixel_unshuffle(fit(picture, self.size), self.cell) - 0.5
        places = cell_centres(self.side, keypoints).T.unflatten(1, (self.side, self.side))
        places = places.expand(folded.shape[0], -1, -1, -1)
        seen = torch.cat([folded, gaussian_maps(keypoints, self.side), places], dim=1)
        features = self.unet(seen)
        fields = enlarge(self.head(features) + self.common, 2).unflatten(1, (self.layers, -1))
        masks = F.pixel_shuffle(self.masks(features), 2).softmax(1)
        return cells((fields * masks[:, :, None]).sum(1))


def strength_cosines(keypoints: int, side: int) -> Tensor:
    """(3 K, side, side): nothing for the places; the lowest cosines of both axes, which half of the strengths push to
    the right and half down."""
    axis = (torch.arange(side) + 0.5) * (math.pi / side)
    waves = sorted(itertools.product(range(side), repeat=2), key=lambda wave: wave[0] ** 2 + wave[1] ** 2)
    half = keypoints // 2
    fields = torch.stack([(axis * y).cos()[:, None] * (axis * x).cos() for y, x in waves[: keypoints - half]])
    basis = torch.zeros(3, keypoints, side, side)
    basis[1, : keypoints - half], basis[2, keypoints - half :] = fields, fields[:half]
    return COMMON_SCALE * basis.flatten(0, 1)


class UpBlock(nn.Module):
    """What corrects a picture -> what corrects one twice as large: the same, enlarged, and the detail it lacks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs // 4 + 3, outputs, 3, 1, 1)
        self.see = nn.Conv2d(3, outputs, 4, 2, 1)
        self.out = zero_init(nn.Conv2d(outputs, 12, 3, 1, 1))

    def forward(self, change: Tensor, x: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Correction (B, 3, h, w), features (B, inputs, h / 2, w / 2), larger base picture (B, 3, 2h, 2w) -> correction
        (B, 3, 2h, 2w), features (B, outputs, h, w)."""
        x = F.relu(self.enter(torch.cat([F.pixel_shuffle(x, 2), change], dim=1)) + self.see(base - 0.5))
        return enlarge(change, 2) + F.pixel_shuffle(self.out(x), 2), x


class Decoder(nn.Module):
    """Attended rows -> correction of the sampling places, then correction of the base picture."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        inputs = 2 * config.dim + 3 + 1
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, config.trunk, 1), nn.ReLU(), nn.Conv2d(config.trunk, config.values, 1)
        )
        self.entry = nn.Conv2d(config.values, config.trunk, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(config.trunk) for _ in range(config.trunk_blocks)))
        self.nudge = zero_init(nn.Conv2d(config.trunk, 2, 3, 1, 1))
        fold = config.cell // 2
        self.unfold = nn.Conv2d(config.trunk, 16 * fold**2, 1)
        self.fuse = nn.Conv2d(16 + 12, config.detail, 3, 1, 1)
        self.refine = nn.Conv2d(config.detail, config.detail, 3, 1, 1)
        self.out = zero_init(nn.Conv2d(config.detail, 12, 3, 1, 1))
        widths = [config.detail, *[config.up_detail] * config.up_blocks]
        self.up = nn.ModuleList(UpBlock(a, b) for a, b in itertools.pairwise(widths))

    def features(self, values: Tensor, context: Tensor) -> Tensor:
        """Attended values (B, C, g, g) and [pixels, keys, queries, mass] -> trunk features."""
        if self.config.residual:
            values = values + self.residual(context)
        return self.blocks(self.entry(values))

    def correct(self, features: Tensor, base: Tensor) -> Tensor:
        """Trunk features and base picture (B, 3, H, W) -> picture (B, 3, H, W)."""
        if not len(self.up):
            return F.pixel_shuffle(self.correct_folded(features, F.pixel_unshuffle(base, 2)), 2)
        bases = [base]
        for _ in self.up:
            bases.append(F.avg_pool2d(bases[-1], 2))
        change, x = self.change(features, F.pixel_unshuffle(bases.pop(), 2))
        change = F.pixel_shuffle(change, 2)
        for block in self.up:
            change, x = block(change, x, bases.pop())
        return base + change

    def correct_folded(self, features: Tensor, base: Tensor) -> Tensor:
        """As `correct` without up blocks, of pictures (B, 12, H / 2, W / 2) whose squares of four pixels are folded
        into channels (pixel_unshuffle)."""
        return base + self.change(features, base)[0]

    def change(self, features: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Trunk features, the last of which is how much counts (0..1), and folded base picture -> folded correction,
        and the features that it was made from."""
        features, counts = features[:, :-1], features[:, -1:]
        half = F.pixel_shuffle(F.relu(self.unfold(features)), self.config.cell // 2)
        x = F.relu(self.fuse(torch.cat([half, base - 0.5], dim=1)))
        x = F.relu(self.refine(x))
        return self.out(x) * enlarge(counts, self.config.cell // 2), x


class ImplicitWarp(nn.Module):
    """Detector, query and key nets, values, attention, decoder."""

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
        """(B, 3, H, W) -> (B, K, 3)."""
        return self.detector(pictures)

    def encode_sources(self, pictures: Tensor, keypoints: Tensor, seen: Tensor | None = None) -> Sources:
        """(B, S, 3, H, W), (B, S, K, 3) -> everything of a source that does not depend on the driving frame.

        `seen` (B, S, 3, h, w): the pictures as the nets look at them, where they have been shrunk already.
        """
        batch, count = pictures.shape[:2]
        flat, flat_keypoints = (pictures if seen is None else seen).flatten(0, 1), keypoints.flatten(0, 1)
        if seen is None and self.config.up_blocks:
            flat = F.avg_pool2d(flat, self.config.scale)
        side = flat.shape[-1] // self.config.cell
        keys, parts = self.key_net(flat, flat_keypoints)
        values = cells(self.value_net(flat - 0.5))
        pixels = cells(F.avg_pool2d(flat, self.config.cell))
        rows = torch.cat([values, keys, pixels], dim=-1)
        membership = self.prior.membership(flat_keypoints, side, parts)
        basis = self.motion_basis(flat, flat_keypoints)
        split = (batch, count)
        return Sources(pictures, keypoints, *(x.unflatten(0, split) for x in (rows, membership, basis)))

    def motion_basis(self, picture: Tensor, keypoints: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) and their keypoints (B, K, 3) -> (B, side * side, 3 K): see geometry.moved."""
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
        """Driving keypoints (B, K, 3) and the set of sources -> picture.

        `dropped` (B, S, M), bool: source cells hidden from attention (semantic dropout in training). `suppression` (B,):
        see `without_small`.
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
        """-> attended rows (B, N, R), unit queries (B, N, d), coarse logits when wanted."""
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

    def join(self, rows: Tensor, side: int) -> Blocks:
        """Rows (B, S, M, R) of the set's sources -> what of keys and rows no driving frame changes: keys without the
        prior's dimensions."""
        keys = to_blocks(self._unit_keys(rows).flatten(1, 2), side)
        return Blocks(keys, keys.mean(2), to_blocks(place_columns(rows, side), side).flatten(2))

    def attend_joined(
        self, driving: Tensor, keypoints: Tensor, joined: Blocks, membership: Tensor, basis: Tensor, side: int
    ) -> tuple[Tensor, Tensor]:
        """As `attend` of sources that have been joined -> attended rows (B, N, R), unit queries (B, N, d)."""
        queries, unit_queries = self.queries(driving, side)
        geometry = self.geometry(driving, keypoints, membership, basis, side).flatten(1, 2)
        geometry = to_blocks(geometry, side)
        keys = torch.cat([joined.keys, geometry], dim=-1)
        pooled = torch.cat([joined.pooled, geometry.mean(2)], dim=-1)
        extras = self.extras(joined.rows.shape[-1] // 4)
        if self.config.top_k == 0:
            rows = joined.rows.unflatten(2, (4, -1)).flatten(1, 2)
            return dense_attention(queries, keys.flatten(1, 2), rows, extras), unit_queries
        known = Blocks(keys, pooled, joined.rows)
        return block_attention(queries, known, extras, side, self.config.top_k), unit_queries

    def side(self, pictures: Tensor) -> int:
        """Cells a side of the attention grid for pictures (..., H, W)."""
        return pictures.shape[-1] // (self.config.cell * self.config.scale)

    def queries(self, driving: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """-> attention queries (B, N, d + PRIOR_DIMS), with temperature and prior in them; unit queries (B, N, d)."""
        unit = self.query_net(driving, side)
        geometry = self.prior.query_dims(side, driving).expand(unit.shape[0], -1, -1)
        return torch.cat([unit * self.log_temperature.exp(), geometry], dim=-1), unit

    def keys(self, driving: Tensor, sources: Sources, side: int) -> Tensor:
        """-> attention keys (B, S * M, d + PRIOR_DIMS)."""
        geometry = self.geometry(driving, sources.keypoints, sources.membership, sources.basis, side)
        return torch.cat([self._unit_keys(sources.rows), geometry], dim=-1).flatten(1, 2)

    def geometry(self, driving: Tensor, keypoints: Tensor, membership: Tensor, basis: Tensor, side: int) -> Tensor:
        """The prior's dimensions of the keys (B, S, M, PRIOR_DIMS), of sources with these keypoints."""
        if not self.config.prior:
            return torch.zeros_like(membership[..., :PRIOR_DIMS])
        return self.prior.key_dims(self.prior.terms(membership, basis, keypoints, driving[:, None], side))

    def _unit_keys(self, rows: Tensor) -> Tensor:
        return rows[..., self.config.values : self.config.values + self.config.dim]

    def extras(self, width: int) -> Extras:
        """Extra keys and values as attention sees them; they are in no source, so their place columns are 0."""
        config = self.config
        unit = F.normalize(self.extra_keys, dim=-1)
        # Their last dimension meets the queries' constant 1: a learned bias, well below what a fitting cell reaches.
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
        """Attended rows (B, N, R) -> picture, base picture, warp. `present` (B, S), bool: sources that are there;
        `suppression` (B,): see `without_small`."""
        side = self.side(pictures)
        features, warp = self.look(attended, unit_queries, side)
        size, focus = side * self.config.cell, self.log_focus.exp()
        places, shares = sampling_fields(warp, side, size, focus, present, suppression)
        places, shares = enlarge_places(places, self.config.scale), enlarge(shares, self.config.scale)
        base = blend(sample_sources(pictures, places), shares)
        return self.decoder.correct(features, base), base, warp

    def look(self, attended: Tensor, unit_queries: Tensor, side: int) -> tuple[Tensor, Warp]:
        """Attended rows (B, N, R) -> decoder features (B, trunk + 1, g, g), the last of which is how much the
        correction counts, and where to sample the sources."""
        config = self.config
        known = [config.values, config.dim, 3]
        values, keys, pixels = attended[..., : sum(known)].split(known, dim=-1)
        columns = attended[..., sum(known) :]
        warp = read_warp(columns, side)
        total = warp.mass.sum(1)[..., None]
        context = torch.cat([pixels - 0.5, keys, unit_queries, total], dim=-1)
        features = self.decoder.features(grid(values, side), grid(context, side))
        nudge = self.decoder.nudge(features).tanh().flatten(2).transpose(1, 2)  # at most one cell
        warp = Warp(warp.mass, warp.places + nudge[:, None])
        fields = coarse_fields(warp, side, self.log_focus.exp()).detach()  # nothing is to move more so as to count more
        counts = ((moved(fields) * (config.seen / 2) - STILL) / (MOVING - STILL)).clamp(0, 1)
        return torch.cat([features, grid(counts, side)], dim=1), warp


def cells(x: Tensor) -> Tensor:
    """(B, C, g, g) -> (B, M, C)."""
    return x.flatten(2).transpose(1, 2)


def grid(x: Tensor, side: int) -> Tensor:
    """(B, M, C) -> (B, C, g, g)."""
    return x.transpose(1, 2).unflatten(2, (side, side))


def unit_cells(features: Tensor, position: Tensor) -> Tensor:
    """Add the position embedding, normalise: (B, d, g, g) -> (B, M, d)."""
    position = F.interpolate(position, size=features.shape[-2:], mode="bilinear", align_corners=False)
    found = cells(features + position)
    return found / found.norm(dim=-1, keepdim=True).clamp_min(1e-12)  # F.normalize, exported, copies the lengths


def place_columns(rows: Tensor, side: int) -> Tensor:
    """(B, S, M, R) -> (B, S * M, R + 3 S): each source writes (1, x, y) of its cells into three columns of its own.

    Attended with the same weights as everything else, column 3 s is the mass on source s and the next two its mean
    place times that mass, so that any attention kernel yields the warp without knowing of it.
    """
    places = cell_centres(side, rows) * (side / 2)
    place = torch.cat([torch.ones_like(places[:, :1]), places], dim=-1)  # (M, 3)
    # The number of sources stays symbolic (no int of it), so that one exported graph serves any set.
    order = torch.ones_like(rows[..., 0][..., 0][0]).cumsum(0)  # in this order little is copied
    own = (order[:, None] == order).to(rows.dtype)
    columns = (own[:, None, :, None] * place[None, :, None, :]).flatten(2)  # (S, M, 3 S)
    return torch.cat([rows, columns.expand(rows.shape[0], -1, -1, -1)], dim=-1).flatten(1, 2)


def read_warp(columns: Tensor, side: int) -> Warp:
    """Attended place columns (B, N, 3 S) -> warp. Where a source got no attention its place is the query's own."""
    planes = columns.transpose(1, 2).unflatten(1, (-1, 3))  # arithmetic on pairs takes ten times as long on a CPU
    mass, sums = planes.split([1, 2], dim=2)
    own = cell_centres(side, columns).T * (side / 2)
    small = 1e-3
    return Warp(mass[:, :, 0], ((sums + small * own) / (mass + small)).transpose(2, 3))


def sampling_fields(
    warp: Warp,
    side: int,
    size: int,
    focus: Tensor,
    present: Tensor | None = None,
    suppression: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Warp -> for every pixel the place in each source (B, S, size, size, 2) in [-1, 1] units, and the sources' shares
    (B, S, size, size), which sum to 1.

    `focus`: power of the mass; above 1 the better source wins more than its share, for two pictures of a mouth
    that are not quite in the same place blend into none.
    """
    batch, count = warp.mass.shape[:2]
    coarse = coarse_fields(warp, side, focus)
    if suppression is not None:
        coarse = torch.cat([without_small(coarse[..., :2], suppression * (2 / size)), coarse[..., 2:]], dim=-1)
    fields = grid(coarse.flatten(0, 1), side)
    fields = F.interpolate(fields, size=(size, size), mode="bilinear", align_corners=False)
    fields = fields.unflatten(0, (batch, count))
    places = cell_centres(size, fields).unflatten(0, (size, size)) + fields[:, :, :2].permute(0, 1, 3, 4, 2)
    shares = fields[:, :, 2]
    if present is not None:
        shares = shares * present[:, :, None, None]
    return places, shares / shares.sum(1, keepdim=True)


def coarse_fields(warp: Warp, side: int, focus: Tensor) -> Tensor:
    """Warp -> (B, S, side * side, 3): how far from the cell's own place each source is sampled, in [-1, 1] units, and
    what that source weighs. Interpolating shifts, not places, keeps the borders straight."""
    own = cell_centres(side, warp.mass).T * (side / 2)
    shift = (warp.places.transpose(2, 3) - own) * (2.0 / side)
    return torch.cat([shift, (warp.mass[:, :, None] + 1e-3) ** focus], dim=2).transpose(2, 3)


def without_small(shift: Tensor, suppression: Tensor) -> Tensor:
    """Shifts (B, S, N, 2) without those shorter than half the dead zone (B,), in the same units; from it on they are
    as they were, and between the two they grow.

    Where nearly everything rests, what small shifts follow is the motion's noise, and sampling between pixels blurs.
    """
    length = shift.square().sum(-1, keepdim=True).sqrt()
    return shift * (2 * length / suppression[:, None, None, None].clamp_min(1e-9) - 1).clamp(0, 1)


def moved(fields: Tensor) -> Tensor:
    """Fields (B, S, N, 3) of `coarse_fields` -> (B, N, 1): how far the sources are moved, by what they weigh."""
    shift, weight = fields.transpose(2, 3).split([2, 1], dim=2)
    return ((shift.square().sum(2, keepdim=True).sqrt() * weight).sum(1) / weight.sum(1)).transpose(1, 2)


def enlarge(x: Tensor, scale: int) -> Tensor:
    """(B, C, h, w) -> (B, C, scale * h, scale * w), linear between pixels."""
    return x if scale == 1 else F.interpolate(x, scale_factor=float(scale), mode="bilinear", align_corners=False)


def enlarge_places(places: Tensor, scale: int) -> Tensor:
    """Places (B, S, h, w, 2), one for each pixel, -> for each pixel of a picture `scale` times as large."""
    if scale == 1:
        return places
    size = places.shape[-2]
    shift = places - cell_centres(size, places).unflatten(0, (size, size))
    shift = enlarge(shift.flatten(0, 1).permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1)
    own = cell_centres(size * scale, places).unflatten(0, (size * scale, size * scale))
    return own + shift.unflatten(0, places.shape[:2])


def sample_sources(pictures: Tensor, places: Tensor) -> Tensor:
    """Pictures (B, S, 3, H, W) sampled at places (B, S, H, W, 2) -> (B, S, 3, H, W)."""
    sampled = F.grid_sample(
        pictures.flatten(0, 1), places.flatten(0, 1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.unflatten(0, pictures.shape[:2])


def blend(sampled: Tensor, shares: Tensor) -> Tensor:
    """Sampled sources (B, S, 3, H, W) by their shares (B, S, H, W) -> base picture (B, 3, H, W)."""
    return (sampled * shares[:, :, None]).sum(1)
