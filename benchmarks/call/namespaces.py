"""A real call in Linux network namespaces: a server and two headless clients over links shaped in this process.

Every namespace has one TUN device whose packets arrive in this process, pass through a simulated path (simulation.py)
in real time, and are written to the device of their destination. The kernel needs no packet scheduler, and every IP
byte is counted, signalling and audio included. Needs root and iproute2.

    server 10.77.0.1    Ada 10.77.0.2    Bob 10.77.0.3
"""

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from iwcodec.benchmarks.call.simulation import SimulatedPath
from iwcodec.codec.errors import CodecError

if sys.platform == "linux":
    from fcntl import ioctl

NAMES = ("iwbench-server", "iwbench-ada", "iwbench-bob")
PROBE = f"iwbench{os.getpid()}"
"""Namespace that checks for permissions; named after this process, because others may check at the same time."""
NETWORK = "10.77.0"
"""First three bytes of the IPv4 addresses."""
PORT = 8000
START_S = 60.0
"""Longest wait in seconds for a process to be ready, or for a picture."""
OUTAGE_S = 5.0
_TUNSETIFF, _TUN, _NO_PACKET_INFO = 0x400454CA, 0x0001, 0x1000
_IPV4 = 4


def unavailable_reason() -> str | None:
    """Why this machine cannot run it; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    if shutil.which("ip") is None or not Path("/dev/net/tun").exists():
        return "needs iproute2 and TUN devices"
    try:
        os.close(add_namespace(0, PROBE))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"needs network namespaces with TUN devices ({error})"
    finally:
        subprocess.run(["ip", "netns", "del", PROBE], capture_output=True)
    return None


@dataclass
class Network:
    """TUN devices and paths of the participants, by index in NAMES."""

    devices: list[int]
    ups: list[SimulatedPath]
    """Path from each client; that of the server is not used."""
    downs: list[SimulatedPath]
    """Path to each client."""
    first_s: dict[int, float] = field(default_factory=dict)
    """Participant -> time of its first packet, by time.monotonic()."""
    joined_s: dict[int, float] = field(default_factory=dict)
    """Participant -> time when the server's welcome message reached it."""

    def forward(self, source: int) -> None:
        """Read one packet of a device and send it on the path to its destination; drop it if there is none."""
        data = os.read(self.devices[source], 65536)
        target = data[19] - 1 if len(data) >= 20 and data[0] >> 4 == _IPV4 else -1
        if not 0 <= target < len(self.devices) or data[16:19] != bytes(map(int, NETWORK.split("."))):
            return
        self.first_s.setdefault(source, time.monotonic())
        path = self.ups[source] if source else self.downs[target]
        path.send(len(data), lambda: self.deliver(target, data))

    def deliver(self, target: int, data: bytes) -> None:
        """Write a packet to a device."""
        os.write(self.devices[target], data)
        if b'"type":"welcome"' in data:
            self.joined_s.setdefault(target, time.monotonic())

    def start_outage(self, seconds: float) -> float:
        """Drop all packets from now on; returns the end of the outage by time.monotonic()."""
        now = time.monotonic()
        for path in (*self.ups, *self.downs):
            path.outages = ((now, now + seconds),)
        return now + seconds


@contextmanager
def network(**path: float) -> Iterator[Network]:
    """Create the namespaces and the thread that forwards their packets; `path` are parameters of SimulatedPath."""
    remove_namespaces()
    paths = [SimulatedPath(**path, seed=seed) for seed in range(2 * len(NAMES))]  # type: ignore[arg-type]
    try:
        devices = [add_namespace(number, name) for number, name in enumerate(NAMES)]
        made = Network(devices, paths[: len(NAMES)], paths[len(NAMES) :])
        loop = asyncio.new_event_loop()
        for number, device in enumerate(devices):
            loop.add_reader(device, made.forward, number)
        thread = Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
            for device in devices:
                os.close(device)
    finally:
        remove_namespaces()


def add_namespace(number: int, name: str) -> int:
    """Create a namespace and move a new TUN device into it. Returns the device's descriptor."""
    ip("netns", "add", name)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _NO_PACKET_INFO))
    ip("netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    ip("link", "set", name, "netns", name)
    ip("-n", name, "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", name)
    for link in ("lo", name):
        ip("-n", name, "link", "set", link, "up")
    return device


def remove_namespaces() -> None:
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def ip(*words: str) -> None:
    """Run iproute2. Raises subprocess.CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Process:
    """An `iwcodec` process in a namespace, and its output: (time, line) of both streams."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def listen(self, stream: Any) -> None:
        """Collect the lines of a stream until it ends."""
        for line in stream:
            self.lines.append((time.monotonic(), line.rstrip()))

    def wait(self, text: str, longest_s: float = START_S, after_s: float = 0.0) -> float:
        """Time of the first line after `after_s` that contains `text`. Raises CodecError if there is none in time."""
        until = time.monotonic() + longest_s
        while time.monotonic() < until and self.process.poll() is None:
            for at, line in self.lines:
                if at > after_s and text in line:
                    return at
            time.sleep(0.02)
        raise CodecError(
            f"The output {text!r} did not appear within {longest_s:.0f} s: {[line for _, line in self.lines[-5:]]}"
        )

    def reports(self, after_s: float = 0.0) -> list[dict[str, Any]]:
        """Status reports of a client (--json) about the other participant."""
        states = [json.loads(line) for at, line in self.lines if at > after_s and line.startswith('{"state"')]
        return [state["participants"][0] for state in states if state["participants"]]


def start(namespace: str, words: list[str], stack: ExitStack) -> Process:
    """Run `iwcodec` with these arguments in a namespace; the stack ends it."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "iwcodec", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stack.callback(process.wait)
    stack.callback(process.kill)
    made = Process(process)
    for stream in (process.stdout, process.stderr):
        Thread(target=made.listen, args=(stream,), daemon=True).start()
    return made


@contextmanager
def call(film: Path, carried: Network) -> Iterator[tuple[Process, Process, dict[str, float]]]:
    """A call that Bob joins after Ada; entered when both receive pictures.

    Yields both clients and the time at which each reported its first picture, by time.monotonic(); reports are up to
    session.NOTICE_S late.
    """
    with ExitStack() as stack:
        server = start(NAMES[0], ["serve", "--host", f"{NETWORK}.1", "--port", str(PORT)], stack)
        server.wait('"serving"')
        url = f"http://{NETWORK}.1:{PORT}/r/shaped"
        clients = []
        for number, name in ((1, "Ada"), (2, "Bob")):
            words = ["call", url, "--headless", "--json", "--video", str(film), "--name", name]
            clients.append(start(NAMES[number], words, stack))
            if number == 1:
                clients[0].wait("waiting")
        ada, bob = clients
        lives = [bob.wait("Ada: live"), ada.wait("Bob: live")]
        yield ada, bob, dict(zip(("Bob", "Ada"), lives, strict=True))


CASES: dict[str, dict[str, float]] = {
    "30 kbps, 100 ms": {"kbps": 30.0, "delay_s": 0.05},
    "10 % loss": {"loss": 0.1, "delay_s": 0.02},
    "30 % loss": {"loss": 0.3, "delay_s": 0.02},
    "5 s outage": {"delay_s": 0.02},
}
"""Name -> parameters of SimulatedPath."""


def measure(film: Path, seconds: float, name: str) -> dict[str, Any]:
    """Measure one of CASES. Raises CodecError if no pictures arrive."""
    with network(**CASES[name]) as carried, call(film, carried) as (ada, bob, lives):
        time.sleep(2.0)
        began, before = time.monotonic(), [path.bytes for path in carried.ups]
        out: dict[str, Any] = {
            "first_picture_s": {who: at - carried.first_s[2] for who, at in lives.items()},
            "first_picture_after_joining_s": {who: at - carried.joined_s[2] for who, at in lives.items()},
        }
        if name == "5 s outage":
            back = carried.start_outage(OUTAGE_S)
            ended = {"Ada": ada.wait("Bob: frozen", after_s=began), "Bob": bob.wait("Ada: frozen", after_s=began)}
            again = {
                "Ada": ada.wait("Bob: live", after_s=ended["Ada"]),
                "Bob": bob.wait("Ada: live", after_s=ended["Bob"]),
            }
            out["live_again_s"] = {who: at - back for who, at in again.items()}
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        lasted_s = time.monotonic() - began
        sent = [path.bytes - start for path, start in zip(carried.ups, before, strict=True)]
        out["sent_kbps"] = dict(zip(("Ada", "Bob"), [n * 8 / 1000 / lasted_s for n in sent[1:]], strict=True))
        reports = {"Ada": ada.reports(began), "Bob": bob.reports(began)}
        for key in ("frames_per_s", "delay_ms", "loss"):
            out[key] = {
                who: float(np.mean([report[key] for report in some if key in report]))
                for who, some in reports.items()
                if some
            }
        out["state"] = {who: some[-1]["state"] for who, some in reports.items() if some}
        return out


def all_cases(film: Path, seconds: float, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Results of all CASES by name. Raises CodecError if this machine cannot run them."""
    if (reason := unavailable_reason()) is not None:
        raise CodecError(f"The measurement in network namespaces {reason}.")
    out = {}
    for n, name in enumerate(CASES):
        progress(f"namespaces: {name}", n / len(CASES))
        out[name] = measure(film, seconds, name)
    return out
