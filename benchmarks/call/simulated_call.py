"""Calls over simulated paths on a simulated clock: bytes by layer, quality, delay, loss and outages."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from aiortc.rtcsctptransport import SCTP_COMMON_HEADER_LENGTH

from iwcodec.benchmarks.call.participants import (
    FPS,
    Camera,
    DeferredReconstruction,
    End,
    PrecomputedDetection,
    make_end,
)
from iwcodec.benchmarks.call.simulation import (
    ImmediateExecutor,
    SimulatedConnection,
    SimulatedPath,
    connection_pair,
    simulate,
)
from iwcodec.client.transport.sctp import IP_UDP
from iwcodec.codec.media.quality import psnr
from iwcodec.models.runtime.types import Runtime

SETTLED_S = 5.0
"""Seconds from the start of a call after which it is measured as steady."""
COMPARED_FRAMES = 80
"""Frames of a scenario that are reconstructed and compared with the camera."""
SCENARIOS: dict[str, dict[str, Any]] = {
    "no loss": {},
    "10 % loss": {"loss": 0.1},
    "30 % loss": {"loss": 0.3},
    "reordering and duplicates": {"reordered": 0.1, "duplicates": 0.1, "jitter_s": 0.03},
    "30 kbps, 100 ms": {"kbps": 30.0, "delay_s": 0.05},
    "12 kbps, 100 ms": {"kbps": 12.0, "delay_s": 0.05},
}
"""Name -> parameters of SimulatedPath, both ways alike."""
OUTAGE = (10.0, 15.0)
"""Start and end of the outage in its scenario, in seconds from the start of the call."""
CHANCES = {"loss", "reordered", "duplicates", "jitter_s"}
"""Parameters of a path that are random, so that results differ between seeds."""
AVERAGED = (
    "first_picture_s",
    "psnr_db",
    "psnr_db_at_equal_sources",
    "delay_ms",
    "frames_shown_per_s",
    "longest_hold_s",
    "kbps",
)
"""Figures that are kept of every seed."""


def run_simulated(
    runtime: Runtime,
    camera: Camera,
    there: SimulatedPath,
    back: SimulatedPath,
    duration_s: float,
    every_second: Callable[[End, End, list[SimulatedConnection]], None] | None = None,
    plan: Sequence[float] | None = None,
) -> tuple[End, End, DeferredReconstruction, list[SimulatedConnection]]:
    """A call between two ends that both film; `every_second` is called once per second of the call.

    Returns the ends, the runtime that reconstructs what they received, and their connections.
    """
    deferred, sending = DeferredReconstruction(runtime), PrecomputedDetection(runtime, camera)

    async def work() -> tuple[End, End, DeferredReconstruction, list[SimulatedConnection]]:
        connections = connection_pair(there, back)
        a, b = (
            make_end(connection, sending, ImmediateExecutor(), camera, deferred, plan) for connection in connections
        )
        tasks = [asyncio.create_task(task) for end in (a, b) for task in (end.film(), end.watch())]
        for connection in connections:
            await connection.start()
        for _ in range(round(duration_s)):
            await asyncio.sleep(1)
            if every_second is not None:
                every_second(a, b, connections)
        for end, connection in zip((a, b), connections, strict=True):
            await end.link.close()
            await connection.close()
        for task in tasks:
            task.cancel()
        return a, b, deferred, connections

    return simulate(work())


def steady(runtime: Runtime, camera: Camera, duration_s: float) -> dict[str, Any]:
    """Rate of one direction by layer over a fast link, from SETTLED_S to the end, and over the whole call.

    `kbps` is computed from the sizes of all packets; both sides film.
    """
    counts: list[dict[str, int]] = []

    def count(a: End, b: End, connections: list[SimulatedConnection]) -> None:
        counts.append(dict(by_layer(connections[0].sctp), packets=there.packets, total=there.bytes))

    there = SimulatedPath(delay_s=0.02)
    a, b, _, _ = run_simulated(runtime, camera, there, SimulatedPath(delay_s=0.02, seed=2), duration_s, count)
    first, last = counts[round(SETTLED_S) - 1], counts[-1]
    lasted_s = duration_s - SETTLED_S
    kbps = {layer: (last[layer] - first.get(layer, 0)) * 8 / 1000 / lasted_s for layer in last if layer != "packets"}
    return {
        "kbps": kbps,
        "kbps_with_the_beginning": last["total"] * 8 / 1000 / duration_s,
        "packets_per_s": (last["packets"] - first["packets"]) / lasted_s,
        "frames_shown_per_s": len([1 for at, _ in b.shown if at > 1000 + SETTLED_S]) / lasted_s,
        "sources": a.link.outgoing.sequence.next if a.link.outgoing.sequence else 0,
    }


def by_layer(transport: Any) -> dict[str, int]:
    """Bytes that a transport has sent, by layer; packets with only acknowledgements count as acknowledgements."""
    sent, header_bytes = transport.sent, transport._header_bytes
    packets = sent["packets"] // header_bytes
    return {
        "motion": sent[1],
        "sources": sent[2],
        "control": sent[3],
        "acknowledgements": sent["acknowledgements"],
        "sctp": sent["sctp"] + packets * SCTP_COMMON_HEADER_LENGTH,
        "dtls": packets * (header_bytes - SCTP_COMMON_HEADER_LENGTH - IP_UDP),
        "udp_ip": packets * IP_UDP,
    }


def scenario(
    runtime: Runtime,
    camera: Camera,
    duration_s: float,
    path: dict[str, Any],
    outage: tuple[float, float] | None = None,
    seed: int = 0,
    plan: Sequence[float] | None = None,
) -> dict[str, Any]:
    """A call over the same path in both directions, with random losses by seed.

    Quality compares each camera frame with the picture on the display when it is due. `plan`: capture times of the
    sources, to use the same ones as another call.
    """
    start = 1000.0
    outages = () if outage is None else ((start + outage[0], start + outage[1]),)
    paths = [SimulatedPath(**path, outages=outages, seed=2 * seed + way) for way in (1, 2)]
    a, b, deferred, _ = run_simulated(runtime, camera, paths[0], paths[1], duration_s, plan=plan)
    settled = start + SETTLED_S
    delays = [shown.delay_s for at, shown in b.shown if at > settled] or [float("nan")]
    median_s = float(np.median(delays))
    out: dict[str, Any] = {
        "first_picture_s": b.shown[0][0] - start,
        "psnr_db": quality(a, b, deferred, median_s, settled),
        "delay_ms": {name: 1000 * float(np.percentile(delays, share)) for name, share in (("p50", 50), ("p95", 95))},
        "frames_shown_per_s": len([1 for at, _ in b.shown if at > settled]) / (duration_s - SETTLED_S),
        "longest_hold_s": max(q - p for p, q in pairwise([at for at, _ in b.shown if at > settled])),
        "kbps": paths[0].bytes * 8 / 1000 / duration_s,
        "sources_at_s": a.sender.added_at,
    }
    if outage is not None:
        back = start + outage[1]
        again = (at for at, s in b.shown if at > back and s.due_s - s.delay_s > back - 0.5)
        out["back_after_s"] = next(again, float("inf")) - back
    return out


def quality(a: End, b: End, deferred: DeferredReconstruction, delay_s: float, from_s: float) -> float:
    """Mean PSNR between COMPARED_FRAMES camera frames of `a` and what `b` displays `delay_s` and half a frame later.

    Half a frame later is the middle of a frame's time on the display, so a millisecond of jitter changes nothing.
    """
    times = [at for at, _ in b.shown]
    late_s = delay_s + 0.5 / FPS
    due = [(at + late_s, number) for at, number in a.captured if from_s <= at + late_s <= a.captured[-1][0]]
    values = []
    for at, number in due[:: max(1, len(due) // COMPARED_FRAMES)]:
        on_display = b.shown[max(0, int(np.searchsorted(times, at + 0.001)) - 1)][1]
        values.append(psnr(deferred.rebuild(on_display.picture), a.camera.frame(number)))
    return float(np.mean(values))


def seeded(
    runtime: Runtime, camera: Camera, seconds: float, path: dict[str, Any], seeds: int, before: dict[str, Any]
) -> dict[str, Any]:
    """A scenario over several seeds: all figures of the first and, under "runs", the AVERAGED ones of each.

    Without random parameters it runs once. If `before` has the call without loss, each seed is also run with that
    call's sources.
    """
    if not CHANCES & path.keys():
        return scenario(runtime, camera, seconds, path)
    plan = before.get("no loss", {}).get("sources_at_s")
    runs = []
    for seed in range(seeds):
        run = scenario(runtime, camera, seconds, path, seed=seed)
        if plan is not None:
            equal = scenario(runtime, camera, seconds, path, seed=seed, plan=plan)
            run["psnr_db_at_equal_sources"] = equal["psnr_db"]
        runs.append(run)
    return {**runs[0], "runs": [{name: run[name] for name in AVERAGED if name in run} for run in runs]}
