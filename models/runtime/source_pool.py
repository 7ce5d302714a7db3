"""A pool of source features resident on the device, addressed by page number."""

import weakref

import torch
from torch import Tensor

from iwcodec.models.network.network import ImplicitWarp


class Page:
    """The slot of one source in the pool; it is freed when this object is garbage-collected."""

    def __init__(self, number: int, free: list[int]) -> None:
        self.number = number
        weakref.finalize(self, free.append, number)


class SourcePool:
    """Features of all sources of all callers, one page each; fp16 on CUDA, else fp32."""

    def __init__(self, network: ImplicitWarp, capacity: int, device: torch.device) -> None:
        config = network.config
        cells = config.side**2
        half = torch.float16 if device.type == "cuda" else torch.float32

        def allocate(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(capacity, *shape, dtype=dtype, device=device)

        self.keys = allocate(cells, config.dim, dtype=half)
        self.rows = allocate(cells, config.values + config.dim + 3, dtype=half)
        self.pictures = allocate(3, config.size, config.size, dtype=half)
        self.keypoints = allocate(config.keypoints, 3)
        self.membership = allocate(cells, config.keypoints + 1)
        self.basis = allocate(config.basis_side**2, 3 * config.keypoints)
        self.free = list(range(capacity))

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the pool in the order that `store` expects."""
        return self.keys, self.rows, self.pictures, self.keypoints, self.membership, self.basis

    @property
    def capacity(self) -> int:
        """Number of pages."""
        return len(self.keys)

    def store(self, features: tuple[Tensor, ...]) -> Page:
        """Store one source's features, in the order of `tensors`. Raises IndexError if the pool is full."""
        page = Page(self.free.pop(), self.free)
        for target, value in zip(self.tensors(), features, strict=True):
            target[page.number].copy_(value)
        return page

    def grow(self) -> None:
        """Double the number of pages. Page numbers stay valid, device addresses change."""
        old = self.capacity
        for name, tensor in vars(self).copy().items():
            if isinstance(tensor, Tensor):
                setattr(self, name, torch.cat([tensor, torch.zeros_like(tensor)]))
        self.free.extend(range(old, 2 * old))
