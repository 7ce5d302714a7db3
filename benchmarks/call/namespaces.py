"""A server and two headless clients, each in a network namespace of Linux, over links that are shaped here.

Every namespace has one TUN device, whose packets come to this process: they take a simulated path (simulation.py), in
real time, and go to the device of whom they are for. So the kernel needs no packet scheduler of its own, and every
byte of IP is counted, signalling and sound included. Needs root and iproute2.

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

from iwcodec.benchmarks.call import simulation
from iwcodec.codec.errors import CodecError

if sys.platform == "linux":
    from fcntl import ioctl

NAMES = ("iwbench-server", "iwbench-ada", "iwbench-bob")
TRIED = f"iwbench{os.getpid()}"
"""Of this process alone: others may be trying too."""
NETWORK = "10.77.0"
PORT = 8000
START_S = 60.0
"""Longest wait for a process to be ready, or for a picture."""
OUTAGE_S = 5.0
_TUNSETIFF, _TUN, _PLAIN = 0x400454CA, 0x0001, 0x1000
_IPV4 = 4


def obstacle() -> str | None:
    """Why it cannot be done here; None where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    if shutil.which("ip") is None or not Path("/dev/net/tun").exists():
        return "needs iproute2 and TUN devices"
    try:
        os.close(add(0, TRIED))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"needs network namespaces with TUN devices ({error})"
    finally:
        subprocess.run(["ip", "netns", "del", TRIED], capture_output=True)
    return None


@dataclass
class Network:
    """Who is in which namespace, by number in NAMES."""

    devices: list[int]
    ups: list[simulation.Path]
    """From each client; that of the server is not used."""
    downs: list[simulation.Path]
    """From the server to each client."""
    first_s: dict[int, float] = field(default_factory=dict)
    """When each sent its first packet, by time.monotonic()."""
    joined_s: dict[int, float] = field(default_factory=dict)
    """When the server's welcome reached each."""

    def carry(self, source: int) -> None:
        """A packet of a device: on its way, unless it is for nobody here."""
        data = os.read(self.devices[source], 65536)
        target = data[19] - 1 if len(data) >= 20 and data[0] >> 4 == _IPV4 else -1
        if not 0 <= target < len(self.devices) or data[16:19] != bytes(map(int, NETWORK.split("."))):
            return
        self.first_s.setdefault(source, time.monotonic())
        path = self.ups[source] if source else self.downs[target]
        path.send(len(data), lambda: self.deliver(target, data))

    def deliver(self, target: int, data: bytes) -> None:
        os.write(self.devices[target], data)
        if b'"type":"welcome"' in data:
            self.joined_s.setdefault(target, time.monotonic())

    def out(self, seconds: float) -> float:
        """Nothing gets through from now on; returns until when."""
        now = time.monotonic()
        for path in (*self.ups, *self.downs):
            path.outages = ((now, now + seconds),)
        return now + seconds


@contextmanager
def network(**path: float) -> Iterator[Network]:
    """The namespaces, and the thread that carries their packets; `path` as simulation.Path, each way alike."""
    remove()
    paths = [simulation.Path(**path, seed=seed) for seed in range(2 * len(NAMES))]  # type: ignore[arg-type]
    try:
        devices = [add(number, name) for number, name in enumerate(NAMES)]
        made = Network(devices, paths[: len(NAMES)], paths[len(NAMES) :])
        loop = asyncio.new_event_loop()
        for number, device in enumerate(devices):
            loop.add_reader(device, made.carry, number)
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
        remove()


def add(number: int, name: str) -> int:
    """A namespace and its TUN device: made here, then moved there. Returns its descriptor."""
    ip("netns", "add", name)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _PLAIN))
    ip("netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    ip("link", "set", name, "netns", name)
    ip("-n", name, "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", name)
    for link in ("lo", name):
        ip("-n", name, "link", "set", link, "up")
    return device


def remove() -> None:
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Process:
    """A program of the package in a namespace, and what it says: lines of either stream with the time of each."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def listen(self, stream: Any) -> None:
        for line in stream:
            self.lines.append((time.monotonic(), line.rstrip()))

    def wait(self, text: str, longest_s: float = START_S, after_s: float = 0.0) -> float:
        """When the first line with `text` came, of those after `after_s`. Raises CodecError."""
        until = time.monotonic() + longest_s
        while time.monotonic() < until and self.process.poll() is None:
            for at, line in self.lines:
                if at > after_s and text in line:
                    return at
            time.sleep(0.02)
        raise CodecError(f"There was no {text!r} within {longest_s:.0f} s: {[line for _, line in self.lines[-5:]]}")

    def looks(self, after_s: float = 0.0) -> list[dict[str, Any]]:
        """What a client said with --json of the one it sees."""
        said = [json.loads(line) for at, line in self.lines if at > after_s and line.startswith('{"state"')]
        return [look["participants"][0] for look in said if look["participants"]]


def start(namespace: str, words: list[str], stack: ExitStack) -> Process:
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
    """Ada waits, Bob joins; goes on when both see each other. With it: when each had a picture, by time.monotonic();
    clients say so up to session.NOTICE_S late."""
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


def measure(film: Path, seconds: float, name: str) -> dict[str, Any]:
    """One of CASES. Raises CodecError where no pictures come."""
    with network(**CASES[name]) as carried, call(film, carried) as (ada, bob, lives):
        time.sleep(2.0)
        began, before = time.monotonic(), [path.bytes for path in carried.ups]
        out: dict[str, Any] = {
            "first_picture_s": {who: at - carried.first_s[2] for who, at in lives.items()},
            "first_picture_after_joining_s": {who: at - carried.joined_s[2] for who, at in lives.items()},
        }
        if name == "5 s outage":
            back = carried.out(OUTAGE_S)
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
        looks = {"Ada": ada.looks(began), "Bob": bob.looks(began)}
        for key in ("frames_per_s", "delay_ms", "loss"):
            out[key] = {
                who: float(np.mean([look[key] for look in some if key in look])) for who, some in looks.items() if some
            }
        out["state"] = {who: some[-1]["state"] for who, some in looks.items() if some}
        return out


def all_cases(film: Path, seconds: float, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """By name; Raises CodecError where it cannot be done here."""
    if (why := obstacle()) is not None:
        raise CodecError(f"The measurement in network namespaces {why}.")
    out = {}
    for n, name in enumerate(CASES):
        tell(f"namespaces: {name}", n / len(CASES))
        out[name] = measure(film, seconds, name)
    return out
