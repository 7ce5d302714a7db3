"""The runtime on CUDA: resident sources, one CUDA graph per frame, several callers per launch.

A source is encoded once into a page of a device pool (source_pool.py). A frame of up to B callers takes three steps:
their keypoints and page numbers are copied from pinned memory; one CUDA graph is replayed (query network, prior,
attention, decoder, conversion to bytes; frame_path.py); the pictures are copied out on a side stream while the next
frame is computed. Nothing is allocated and nothing else crosses the bus. Callers and sources are padded to the graph's
shape, so that a few graphs serve every combination.

On the CPU the same code runs without graph and streams, for tests.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iwcodec.models.runtime.frame_path import Batch, FramePath, attend_torch, attend_triton
from iwcodec.models.runtime.pictures import resize_area
from iwcodec.models.runtime.source_pool import Page, SourcePool
from iwcodec.models.runtime.torch import load_network
from iwcodec.models.runtime.types import MAX_ACTIVE, Keypoints, Picture, Source
from iwcodec.models.runtime.weights import DEFAULT_MODEL, WEIGHTS, read_info

FIRST_CAPACITY = 64
"""Initial number of pages: source libraries of 16 for four callers. One page takes 1.7 MB at 256x256."""


@dataclass(frozen=True)
class Job:
    """One frame of one caller."""

    keypoints: Keypoints  # (K, 3)
    sources: Sequence[Source]  # 1 to MAX_ACTIVE, prepared by the same runtime
    suppression: float = 0.0


def pack(
    jobs: Sequence[Job], callers: int, active: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Arrange jobs as the arrays of a Batch: keypoints (callers, K, 3), page table (callers, active), source counts
    (callers,) and small-shift suppressions (callers,).

    Padding callers repeat the first caller, and padding pages repeat the caller's first page: every table entry is a
    valid page, and `counts` keeps padding out of the softmax.
    """
    padded = [*jobs, *[jobs[0]] * (callers - len(jobs))]
    pages = [[source.features.number for source in job.sources] for job in padded]
    table = np.array([row + row[:1] * (active - len(row)) for row in pages], np.int32)
    counts = np.array([len(row) for row in pages], np.int32)
    suppressions = np.array([job.suppression for job in padded], np.float32)
    return np.stack([job.keypoints for job in padded]).astype(np.float32), table, counts, suppressions


def padded_callers(count: int) -> int:
    """Return the batch size that serves `count` callers: the next power of two, so that few graphs are captured."""
    return 1 << (count - 1).bit_length()


class Lane:
    """Host and device buffers of one frame in flight."""

    def __init__(self, batch: Batch, pictures: Tensor) -> None:
        self.inputs = tuple(torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in batch)
        self.staged = torch.empty_like(pictures)
        self.pictures = torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True)
        self.copied = torch.cuda.Event()
        self.pending: Pending | None = None


class FrameGraph:
    """The frame path captured for one number of callers. Two lanes let the copy of one frame overlap the next frame."""

    def __init__(self, path: FramePath, pool: SourcePool, callers: int, stream: torch.cuda.Stream) -> None:
        device, points = pool.keys.device, path.network.config.keypoints
        self.batch = Batch(
            torch.zeros(callers, points, 3, device=device),
            torch.zeros(callers, MAX_ACTIVE, dtype=torch.int32, device=device),
            torch.ones(callers, dtype=torch.int32, device=device),
            torch.zeros(callers, device=device),
        )
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):  # compile and select kernels first: neither is allowed during capture
                path(self.batch, pool)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use CUDA meanwhile, for another model or a stream of their own.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self.pictures = path(self.batch, pool)
        self._lanes = [Lane(self.batch, self.pictures) for _ in range(2)]

    def replay(self) -> None:
        """Compute the frame whose inputs are on the device, on the current stream."""
        self._graph.replay()

    def submit(self, jobs: Sequence[Job], compute: torch.cuda.Stream, copies: torch.cuda.Stream) -> "Pending":
        """Start a frame: compute on one stream, copy the pictures out on the other."""
        lane = self._lanes[0]
        self._lanes.reverse()
        if lane.pending is not None:
            lane.pending.pictures()  # finish it: the lane's buffers are about to be overwritten
        for pinned, values in zip(lane.inputs, pack(jobs, len(self.batch.counts), MAX_ACTIVE), strict=True):
            pinned.copy_(torch.from_numpy(values))
        with torch.cuda.stream(compute):
            for static, pinned in zip(self.batch, lane.inputs, strict=True):
                static.copy_(pinned, non_blocking=True)
            self.replay()
            lane.staged.copy_(self.pictures)  # a device copy, so that the next replay may begin
            done = compute.record_event()
        with torch.cuda.stream(copies):
            copies.wait_event(done)
            lane.pictures.copy_(lane.staged, non_blocking=True)
            lane.copied.record(copies)
        lane.pending = Pending(jobs, lane)
        return lane.pending


class Pending:
    """Pictures of a submitted frame that may not have arrived yet."""

    def __init__(self, jobs: Sequence[Job], lane: Lane | None, ready: NDArray[np.uint8] | None = None) -> None:
        self._jobs = jobs  # a reference, so that their pages are not reused
        self._lane = lane
        self._ready = ready
        self._lock = threading.Lock()  # whoever waits, and a later frame that needs the lane

    def pictures(self) -> list[Picture]:
        """Wait for the pictures and return one (H, W, 3) for each job."""
        with self._lock:
            if self._ready is None:
                assert self._lane is not None
                self._lane.copied.synchronize()
                self._ready = self._lane.pictures.numpy().copy()
                self._lane.pending = None
        return list(self._ready[: len(self._jobs)])


class CudaRuntime:
    """The network on CUDA (types.Runtime), with `submit` for frames of several callers. Several threads may use
    one instance, as a call does; they take turns.

    A source can only be used with the runtime that prepared it.
    """

    def __init__(self, model: str = DEFAULT_MODEL, device: str = "cuda", folder: Path = WEIGHTS) -> None:
        """Raises FileNotFoundError on an unknown model and RuntimeError if there is no CUDA device."""
        self.device = device
        on_cuda = torch.device(device).type == "cuda"
        if on_cuda and not torch.cuda.is_available():
            raise RuntimeError("no CUDA device that this PyTorch can use")
        self.info = read_info(model, folder)
        self.network = load_network(model, folder).to(device).requires_grad_(False)
        has_triton = on_cuda and find_spec("triton") is not None
        self._path = FramePath(self.network, attend_triton if has_triton else attend_torch)
        self._pool = SourcePool(self.network, FIRST_CAPACITY if on_cuda else MAX_ACTIVE, torch.device(device))
        self._graphs: dict[int, FrameGraph] = {}
        self._lock = threading.RLock()
        if on_cuda:
            self._compute, self._copies, self._uploads = (torch.cuda.Stream(device) for _ in range(3))
            torch.cuda.synchronize(device)  # weights and pool were written on another stream

    @torch.inference_mode()
    def detect(self, picture: Picture) -> Keypoints:
        scaled = resize_area(picture, self.network.config.detector_size)
        with self._lock:
            return self.network.detect(self._tensor(scaled)[None])[0].cpu().numpy()

    @torch.inference_mode()
    def prepare(self, picture: Picture) -> Source:
        with self._lock:
            keypoints, features, page = self._store(lambda: self._encode(picture))
            return Source(picture, keypoints, page, *(x.cpu().numpy() for x in features[-2:]))

    @torch.inference_mode()
    def with_picture(self, source: Source, picture: Picture) -> Source:
        def features() -> tuple[Keypoints, tuple[Tensor, ...]]:
            keys, rows, _, *geometry = (tensor[source.features.number] for tensor in self._pool.tensors())
            return source.keypoints, (keys, rows, self._tensor(picture), *geometry)

        with self._lock:
            return replace(source, picture=picture, features=self._store(features)[2])

    def _store(
        self, compute: Callable[[], tuple[Keypoints, tuple[Tensor, ...]]]
    ) -> tuple[Keypoints, tuple[Tensor, ...], Page]:
        """Compute keypoints and features on the upload stream, and put the features into the pool."""
        if not self._pool.free:
            self._grow()
        if self.device == "cpu":
            keypoints, features = compute()
            return keypoints, features, self._pool.store(features)
        with torch.cuda.stream(self._uploads):
            keypoints, features = compute()
            # The page may be reused from a source that a frame in flight still reads.
            self._uploads.wait_stream(self._compute)
            page = self._pool.store(features)
        self._compute.wait_stream(self._uploads)
        return keypoints, features, page

    @torch.inference_mode()
    def submit(self, jobs: Sequence[Job]) -> Pending:
        """Start one frame for each job; two calls may be in flight.

        Raises ValueError if there is no job, or a job has no or too many sources."""
        if not jobs or not all(1 <= len(job.sources) <= MAX_ACTIVE for job in jobs):
            raise ValueError(f"at least one job, each with 1 to {MAX_ACTIVE} sources")
        with self._lock:
            if self.device == "cpu":
                batch = Batch(*map(torch.from_numpy, pack(jobs, padded_callers(len(jobs)), MAX_ACTIVE)))
                return Pending(jobs, None, self._path(batch, self._pool).numpy())
            return self.graph(len(jobs)).submit(jobs, self._compute, self._copies)

    @torch.inference_mode()
    def graph(self, callers: int) -> FrameGraph:
        """The graph for up to `callers` callers, captured when it is first asked for. Not on the CPU."""
        callers = padded_callers(callers)
        with self._lock:
            if callers not in self._graphs:
                self._graphs[callers] = FrameGraph(self._path, self._pool, callers, self._compute)
            return self._graphs[callers]

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        return self.submit([Job(keypoints, sources, suppression)]).pictures()[0]

    def _encode(self, picture: Picture) -> tuple[Keypoints, tuple[Tensor, ...]]:
        """Return the keypoints of a source picture and its features in the order of SourcePool.tensors."""
        config, keypoints = self.network.config, self.detect(picture)
        pixels, net_pixels = self._tensor(picture), self._tensor(resize_area(picture, config.net_size))
        on_device = torch.from_numpy(keypoints).to(self.device)
        encoded = self.network.encode_sources(pixels[None, None], on_device[None, None], net_pixels[None, None])
        rows = encoded.rows[0, 0]
        keys = rows[:, config.values : config.values + config.dim]
        return keypoints, (keys, rows, pixels, on_device, encoded.membership[0, 0], encoded.basis[0, 0])

    def _grow(self) -> None:
        if self.device == "cpu":
            return self._pool.grow()
        torch.cuda.synchronize(self.device)
        self._graphs.clear()  # captured with the old addresses
        self._pool.grow()
        torch.cuda.synchronize(self.device)

    def _tensor(self, picture: Picture) -> Tensor:
        return torch.from_numpy(picture).to(self.device).permute(2, 0, 1).float() / 255
