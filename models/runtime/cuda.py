"""The receiver on CUDA: resident sources, one captured graph a frame, several callers in one launch.

A source is encoded once into a page of a pool on the device. A frame of up to B callers is: their keypoints and page
numbers copied in from pinned memory, one CUDA graph replayed (query net, prior, attention, decoder, bytes), the
pictures copied out on a side stream while the next frame is computed. Nothing is allocated and nothing else crosses
the bus. Callers and sources are padded to the graph's shape, so that a handful of graphs serve any mix of them.

On a CPU the same path runs without graph and streams, for tests.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iwcodec.models.network.attention import Extras, topk_attention
from iwcodec.models.network.geometry import PRIOR_DIMS
from iwcodec.models.network.network import MASKED, ImplicitWarp, place_columns
from iwcodec.models.runtime.onnx import MAX_ACTIVE, resized
from iwcodec.models.runtime.torch import load_network, to_uint8
from iwcodec.models.runtime.types import Keypoints, Picture, Source
from iwcodec.models.runtime.weights import DEFAULT_MODEL, WEIGHTS, read_info

MAX_KEPT = 32
"""Keys kept per query where the configuration does not say: the kernel's most."""
FIRST_CAPACITY = 64
"""Pages to begin with: four callers' libraries of 16, 1.7 MB a page at 256x256."""


@dataclass(frozen=True)
class Job:
    """One caller's frame."""

    keypoints: Keypoints  # (K, 3)
    sources: Sequence[Source]  # 1 to MAX_ACTIVE, prepared by the same runtime
    suppression: float = 0.0


class Batch(NamedTuple):
    """What changes from frame to frame."""

    driving: Tensor  # (B, K, 3)
    table: Tensor  # (B, S) int32: pages
    counts: Tensor  # (B,) int32: pages used, the first ones of each line
    suppressions: Tensor  # (B,)


class Page:
    """A source's place in the pool, given back when the source is forgotten."""

    def __init__(self, number: int, free: list[int]) -> None:
        self.number = number
        weakref.finalize(self, free.append, number)


class Pool:
    """Features of all sources of all callers."""

    def __init__(self, network: ImplicitWarp, capacity: int, device: torch.device) -> None:
        config = network.config
        cells = config.side**2
        half = torch.float16 if device.type == "cuda" else torch.float32

        def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(capacity, *shape, dtype=dtype, device=device)

        self.keys = room(cells, config.dim, dtype=half)
        self.rows = room(cells, config.values + config.dim + 3, dtype=half)
        self.pictures = room(3, config.size, config.size, dtype=half)
        self.keypoints = room(config.keypoints, 3)
        self.membership = room(cells, config.keypoints + 1)
        self.basis = room(config.basis_side**2, 3 * config.keypoints)
        self.free = list(range(capacity))

    def tensors(self) -> tuple[Tensor, ...]:
        return self.keys, self.rows, self.pictures, self.keypoints, self.membership, self.basis

    @property
    def capacity(self) -> int:
        return len(self.keys)

    def store(self, features: tuple[Tensor, ...]) -> Page:
        """One source's features, in the order of `tensors`. Raises IndexError when the pool is full."""
        page = Page(self.free.pop(), self.free)
        for target, value in zip(self.tensors(), features, strict=True):
            target[page.number].copy_(value)
        return page

    def grow(self) -> None:
        """Twice the pages; their numbers stay, their addresses do not."""
        old = self.capacity
        for name, tensor in vars(self).copy().items():
            if isinstance(tensor, Tensor):
                setattr(self, name, torch.cat([tensor, torch.zeros_like(tensor)]))
        self.free.extend(range(old, 2 * old))


class Seen(NamedTuple):
    """What attention gets of a batch: content in the pool's type, geometry in fp32 (see attention_triton.py)."""

    queries: Tensor  # (B, N, d)
    query_geometry: Tensor  # (B, N, 4)
    key_geometry: Tensor  # (B, S, M, 4)
    extras: Extras  # keys (E, d + 4)
    batch: Batch
    k: int
    side: int


Attend = Callable[[Seen, Pool], Tensor]
"""-> (B, N, R + 3 S), the place columns last."""


def attend_torch(seen: Seen, pool: Pool) -> Tensor:
    """With plain PyTorch: pages gathered, absent ones masked."""
    table, counts = seen.batch.table.long(), seen.batch.counts
    absent = torch.arange(table.shape[1], device=table.device) >= counts[:, None]
    bias = seen.key_geometry[..., -1] + absent[..., None] * MASKED
    geometry = torch.cat([seen.key_geometry[..., :-1], bias[..., None]], dim=-1)
    keys = torch.cat([pool.keys[table].float(), geometry], dim=-1).flatten(1, 2)
    rows = place_columns(pool.rows[table].float(), seen.side)
    queries = torch.cat([seen.queries.float(), seen.query_geometry], dim=-1)
    extra_rows = torch.nn.functional.pad(seen.extras.rows, (0, rows.shape[-1] - seen.extras.rows.shape[-1]))
    return topk_attention(queries, keys, rows, Extras(seen.extras.keys, extra_rows), seen.k)


def attend_triton(seen: Seen, pool: Pool) -> Tensor:
    from iwcodec.models.network.attention_triton import Pages, paged_topk_attention

    content = seen.extras.keys[:, :-PRIOR_DIMS].to(pool.keys.dtype)
    return paged_topk_attention(
        seen.queries,
        seen.query_geometry,
        Pages(pool.keys, pool.rows),
        seen.key_geometry,
        Extras(content, seen.extras.rows),
        seen.extras.keys[:, -PRIOR_DIMS:],
        seen.batch.table,
        seen.batch.counts,
        seen.k,
        seen.side,
    )


class FramePath:
    """Everything the device does for a frame, without a look at the host: what the graph captures."""

    def __init__(self, network: ImplicitWarp, attend: Attend) -> None:
        self.network = network
        self.attend = attend
        config = network.config
        self.extras = network.extras(config.values + config.dim + 3)
        self.kept = min(4 * config.top_k, MAX_KEPT) or MAX_KEPT

    def __call__(self, batch: Batch, pool: Pool) -> Tensor:
        """-> uint8 pictures (B, H, W, 3)."""
        network = self.network
        pictures = pool.pictures[batch.table.long()].float()
        side = network.side(pictures)
        with self._half(batch.driving):
            unit = network.query_net(batch.driving, side).float()
        attended = self.attend(self._seen(batch, pool, unit, side), pool)
        present = torch.arange(batch.table.shape[1], device=pictures.device) < batch.counts[:, None]
        with self._half(batch.driving):
            picture, _, _ = network.decode(attended, unit, pictures, present, batch.suppressions)
        return to_uint8(picture.permute(0, 2, 3, 1)).contiguous()

    def _seen(self, batch: Batch, pool: Pool, unit: Tensor, side: int) -> Seen:
        network, table = self.network, batch.table.long()
        # The prior's numbers are large and cancel: never in half precision.
        if network.config.prior:
            membership, basis, keypoints = (part[table] for part in (pool.membership, pool.basis, pool.keypoints))
            terms = network.prior.terms(membership, basis, keypoints, batch.driving[:, None], side)
            key_geometry = network.prior.key_dims(terms)
        else:
            key_geometry = batch.driving.new_zeros(*table.shape, side * side, PRIOR_DIMS)
        content = (unit * network.log_temperature.exp()).to(pool.keys.dtype)
        places = network.prior.query_dims(side, batch.driving).expand(len(table), -1, -1)
        return Seen(content, places, key_geometry, self.extras, batch, self.kept, side)

    @staticmethod
    def _half(like: Tensor) -> torch.autocast:
        """Convolutions in fp16 on CUDA. Without the cache of weights: a graph must not keep tensors made outside it."""
        kind = like.device.type
        return torch.autocast(kind, torch.float16, enabled=kind == "cuda", cache_enabled=False)


def pack(
    jobs: Sequence[Job], callers: int, active: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Keypoints (callers, K, 3), pages (callers, active), counts (callers,) and dead zones (callers,) of a batch.

    Callers beyond the last repeat the first, pages beyond a caller's last repeat its first: a padded place is always
    a valid one, and never enters a softmax.
    """
    lines = [*jobs, *[jobs[0]] * (callers - len(jobs))]
    pages = [[source.features.number for source in job.sources] for job in lines]
    table = np.array([line + line[:1] * (active - len(line)) for line in pages], np.int32)
    counts = np.array([len(line) for line in pages], np.int32)
    zones = np.array([job.suppression for job in lines], np.float32)
    return np.stack([job.keypoints for job in lines]).astype(np.float32), table, counts, zones


def padded(count: int) -> int:
    """Callers of the graph that serves `count`: the next power of two, so that few graphs are captured."""
    return 1 << (count - 1).bit_length()


class Lane:
    """Host and device memory of one frame under way."""

    def __init__(self, batch: Batch, pictures: Tensor) -> None:
        self.inputs = tuple(torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in batch)
        self.staged = torch.empty_like(pictures)
        self.pictures = torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True)
        self.left = torch.cuda.Event()
        self.pending: Pending | None = None


class FrameGraph:
    """The frame path for one number of callers, captured once; two lanes, so that copying out overlaps."""

    def __init__(self, path: FramePath, pool: Pool, callers: int, stream: torch.cuda.Stream) -> None:
        device, points = pool.keys.device, path.network.config.keypoints
        self.batch = Batch(
            torch.zeros(callers, points, 3, device=device),
            torch.zeros(callers, MAX_ACTIVE, dtype=torch.int32, device=device),
            torch.ones(callers, dtype=torch.int32, device=device),
            torch.zeros(callers, device=device),
        )
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):  # kernels are compiled and chosen before the capture, which allows neither
                path(self.batch, pool)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self.pictures = path(self.batch, pool)
        self._lanes = [Lane(self.batch, self.pictures) for _ in range(2)]

    def submit(self, jobs: Sequence[Job], compute: torch.cuda.Stream, copies: torch.cuda.Stream) -> "Pending":
        lane = self._lanes[0]
        self._lanes.reverse()
        if lane.pending is not None:
            lane.pending.pictures()  # the lane's memory is about to be written again
        for pinned, values in zip(lane.inputs, pack(jobs, len(self.batch.counts), MAX_ACTIVE), strict=True):
            pinned.copy_(torch.from_numpy(values))
        with torch.cuda.stream(compute):
            for static, pinned in zip(self.batch, lane.inputs, strict=True):
                static.copy_(pinned, non_blocking=True)
            self._graph.replay()
            lane.staged.copy_(self.pictures)  # on the device: the next replay may then begin
            done = compute.record_event()
        with torch.cuda.stream(copies):
            copies.wait_event(done)
            lane.pictures.copy_(lane.staged, non_blocking=True)
            lane.left.record(copies)
        lane.pending = Pending(jobs, lane)
        return lane.pending


class Pending:
    """Pictures on their way."""

    def __init__(self, jobs: Sequence[Job], lane: Lane | None, ready: NDArray[np.uint8] | None = None) -> None:
        self._jobs = jobs  # keeps their pages from being given away
        self._lane = lane
        self._ready = ready

    def pictures(self) -> list[Picture]:
        """One (H, W, 3) for each job; waits for them."""
        if self._ready is None:
            assert self._lane is not None
            self._lane.left.synchronize()
            self._ready = self._lane.pictures.numpy().copy()
            self._lane.pending = None
        return list(self._ready[: len(self._jobs)])


class CudaRuntime:
    """See runtime.Runtime; and `submit`, for several callers at once. For one thread.

    A source belongs to the runtime that prepared it.
    """

    def __init__(self, model: str = DEFAULT_MODEL, device: str = "cuda", folder: Path = WEIGHTS) -> None:
        """Raises FileNotFoundError where the model is not there, RuntimeError where CUDA is not."""
        self.device = device
        on_cuda = torch.device(device).type == "cuda"
        if on_cuda and not torch.cuda.is_available():
            raise RuntimeError("no CUDA device that this PyTorch can use")
        self.info = read_info(model, folder)
        self._network = load_network(model, folder).to(device).requires_grad_(False)
        triton_is_there = on_cuda and find_spec("triton") is not None
        self._path = FramePath(self._network, attend_triton if triton_is_there else attend_torch)
        self._pool = Pool(self._network, FIRST_CAPACITY if on_cuda else MAX_ACTIVE, torch.device(device))
        self._graphs: dict[int, FrameGraph] = {}
        if on_cuda:
            self._compute, self._copies, self._uploads = (torch.cuda.Stream(device) for _ in range(3))
            torch.cuda.synchronize(device)  # weights and pool were made on another stream

    @torch.inference_mode()
    def detect(self, picture: Picture) -> Keypoints:
        seen = resized(picture, self._network.config.detector_size)
        return self._network.detect(self._tensor(seen)[None])[0].cpu().numpy()

    @torch.inference_mode()
    def prepare(self, picture: Picture) -> Source:
        if not self._pool.free:
            self._grow()
        if self.device == "cpu":
            keypoints, features = self._encode(picture)
            return Source(picture, keypoints, self._pool.store(features), *(x.numpy() for x in features[-2:]))
        with torch.cuda.stream(self._uploads):
            keypoints, features = self._encode(picture)
            # The page may have been another source's a moment ago, in a frame that is still being computed.
            self._uploads.wait_stream(self._compute)
            page = self._pool.store(features)
        self._compute.wait_stream(self._uploads)
        return Source(picture, keypoints, page, *(x.cpu().numpy() for x in features[-2:]))

    @torch.inference_mode()
    def submit(self, jobs: Sequence[Job]) -> Pending:
        """Start a frame of every caller; two may be under way. Raises ValueError on no job, or one without sources."""
        if not jobs or not all(1 <= len(job.sources) <= MAX_ACTIVE for job in jobs):
            raise ValueError(f"at least one job, each with 1 to {MAX_ACTIVE} sources")
        callers = padded(len(jobs))
        if self.device == "cpu":
            batch = Batch(*map(torch.from_numpy, pack(jobs, callers, MAX_ACTIVE)))
            return Pending(jobs, None, self._path(batch, self._pool).numpy())
        if callers not in self._graphs:
            self._graphs[callers] = FrameGraph(self._path, self._pool, callers, self._compute)
        return self._graphs[callers].submit(jobs, self._compute, self._copies)

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        return self.submit([Job(keypoints, sources, suppression)]).pictures()[0]

    def _encode(self, picture: Picture) -> tuple[Keypoints, tuple[Tensor, ...]]:
        """-> keypoints, features in the order of Pool.tensors."""
        config, keypoints = self._network.config, self.detect(picture)
        pixels, seen = self._tensor(picture), self._tensor(resized(picture, config.seen))
        known = torch.from_numpy(keypoints).to(self.device)
        encoded = self._network.encode_sources(pixels[None, None], known[None, None], seen[None, None])
        rows = encoded.rows[0, 0]
        keys = rows[:, config.values : config.values + config.dim]
        return keypoints, (keys, rows, pixels, known, encoded.membership[0, 0], encoded.basis[0, 0])

    def _grow(self) -> None:
        if self.device == "cpu":
            return self._pool.grow()
        torch.cuda.synchronize(self.device)
        self._graphs.clear()  # they hold the old addresses
        self._pool.grow()
        torch.cuda.synchronize(self.device)

    def _tensor(self, picture: Picture) -> Tensor:
        return torch.from_numpy(picture).to(self.device).permute(2, 0, 1).float() / 255
