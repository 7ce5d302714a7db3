"""Simulated network for calls: real SCTP associations over simulated paths, on a simulated clock.

Deterministic by seed: the event loop jumps to its next timer instead of sleeping, and the executor runs jobs
immediately. Packets have their size on the wire, DTLS, UDP and IP included.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

import numpy as np
from aiortc import rtcsctptransport
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpTransport

from iwcodec.client.transport.sctp import DTLS, IP_UDP, BundlingSctpTransport

T = TypeVar("T")


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing is ready."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._simulated = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: nothing is ready and no timer is set; what is awaited will never happen")
            self._simulated.now += max(0.0, timeout)
        return ready


def simulate(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new SimulatedLoop, as asyncio.run does. SCTP's clock (for round trips) is simulated too."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        loop = runner.get_loop()
        with mock.patch.object(rtcsctptransport, "time", SimpleNamespace(time=loop.time)):
            return runner.run(work)


class ImmediateExecutor(Executor):
    """Runs each job when it is submitted, which takes no simulated time."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass
class SimulatedPath:
    """One direction of a link: a queue of at most `queue_s` before a rate limit of `kbps`, then a delay.

    `loss`, `duplicates` and `reordered` are probabilities per packet.
    """

    kbps: float = 10_000.0
    delay_s: float = 0.01
    jitter_s: float = 0.0
    """Maximum of the uniformly distributed extra delay; it does not reorder packets."""
    loss: float = 0.0
    duplicates: float = 0.0
    reordered: float = 0.0
    """A reordered packet arrives 50 ms later."""
    queue_s: float = 1.0
    outages: tuple[tuple[float, float], ...] = ()
    """(start, end) on the simulated clock."""
    seed: int = 1
    packets: int = 0
    bytes: int = 0
    """Packets and bytes sent so far, including lost ones."""
    _free_s: float = 0.0
    _last_s: float = 0.0
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def send(self, size: int, deliver: Callable[[], object]) -> None:
        """Send a packet of `size` bytes, all layers included; `deliver` is called when it arrives."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.packets += 1
        self.bytes += size
        lost, double, late, jitter = self._rng.random(4).tolist()
        out = any(start <= now < end for start, end in self.outages)
        if out or lost < self.loss or self._free_s - now > self.queue_s:
            return
        self._free_s = max(now, self._free_s) + size * 8 / 1000 / self.kbps
        arrives = max(self._last_s + 1e-6, self._free_s + self.delay_s + jitter * self.jitter_s)
        self._last_s = arrives
        loop.call_at(arrives + 0.05 * (late < self.reordered), deliver)
        if double < self.duplicates:
            loop.call_at(arrives + 0.03, deliver)


class _Wire:
    """Replaces a DTLS transport."""

    state = "connected"

    def __init__(self, role: str, path: SimulatedPath) -> None:
        self._role = role
        self.path = path
        self.other: _Wire
        self._receiver: RTCSctpTransport | None = None

    async def _send_data(self, data: bytes) -> None:
        self.path.send(len(data) + DTLS + IP_UDP, lambda: asyncio.ensure_future(self.other._deliver(data)))

    async def _deliver(self, data: bytes) -> None:
        if self._receiver is not None:
            await self._receiver._handle_data(data)

    def _register_data_receiver(self, receiver: RTCSctpTransport) -> None:
        self._receiver = receiver

    def _unregister_data_receiver(self, receiver: RTCSctpTransport) -> None:
        self._receiver = None


class SimulatedConnection:
    """The part of RTCPeerConnection's interface that a Link uses."""

    def __init__(self, wire: _Wire, bundling: bool) -> None:
        self.connectionState = "connected"
        kind = BundlingSctpTransport if bundling else RTCSctpTransport
        self.sctp = kind(wire)  # type: ignore[arg-type]

    def createDataChannel(self, label: str, **options: Any) -> RTCDataChannel:
        return RTCDataChannel(self.sctp, RTCDataChannelParameters(label=label, **options))

    async def start(self) -> None:
        """Set up the association, after which the channels open."""
        await self.sctp.start(RTCSctpTransport.getCapabilities(), 5000)

    async def close(self) -> None:
        self.connectionState = "closed"
        await self.sctp.stop()


def connection_pair(
    there: SimulatedPath, back: SimulatedPath, bundling: tuple[bool, bool] = (True, True)
) -> list[SimulatedConnection]:
    """Two ends, the first of which sends over `there`. Create the channels before starting them."""
    wires = [_Wire("client", there), _Wire("server", back)]
    wires[0].other, wires[1].other = wires[1], wires[0]
    return [SimulatedConnection(wire, kind) for wire, kind in zip(wires, bundling, strict=True)]
