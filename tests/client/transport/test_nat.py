"""A call between two networks behind symmetric NAT, through coturn, in network namespaces of Linux.

Needs root, iproute2, nftables and coturn (Debian: apt-get install iproute2 nftables coturn); skipped elsewhere.

    host 1 (10.1.0.2) - nat 1 (10.1.0.1 | 203.0.113.11) - wan (203.0.113.1, coturn) - nat 2 - host 2 (10.2.0.2)
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from iwcodec.benchmarks.call.namespaces import start as start_process

pytestmark = [pytest.mark.realtime, pytest.mark.patient]

WAN, TURN = "iwtest-wan", "203.0.113.1"
NAMES = [WAN, *(f"iwtest-{kind}{n}" for n in (1, 2) for kind in ("nat", "host"))]
SECRET = "north wind and sun"
SERVER = f"-n --listening-ip {TURN} --relay-ip {TURN} --realm test --no-tls --no-dtls --no-cli --log-file stdout"
USER = ["--lt-cred-mech", "--user=user:secret", "--pidfile=/dev/null"]
SHORT_LIVED = ["--use-auth-secret", f"--static-auth-secret={SECRET}", "--pidfile=/dev/null"]
NAT = """
table ip nat {
    chain out {
        type nat hook postrouting priority srcnat
        oifname "wan" masquerade fully-random
    }
}
"""
"""Symmetric NAT, with a new port for each destination: only the relay works."""


def is_possible() -> bool:
    if os.name != "posix" or os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "turnserver"))):
        return False
    namespace = f"iwtest{os.getpid()}"
    created = subprocess.run(["ip", "netns", "add", namespace], capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
    return created


def run(*words: str, text: str | None = None) -> None:
    subprocess.run(words, check=True, input=text, text=True, capture_output=True)


def ip(namespace: str, *words: str) -> None:
    run("ip", "-n", namespace, *words)


@pytest.fixture
def networks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two networks behind NAT, and coturn with the authentication options of the test's parameter."""
    remove()
    try:
        build()
        server = subprocess.Popen(
            ["ip", "netns", "exec", WAN, "turnserver", *SERVER.split(), *request.param],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(1.0)
        yield
        server.terminate()
        server.wait()
    finally:
        remove()


def build() -> None:
    for name in NAMES:
        run("ip", "netns", "add", name)
        ip(name, "link", "set", "lo", "up")
    ip(WAN, "link", "add", "bridge", "type", "bridge")
    ip(WAN, "addr", "add", f"{TURN}/24", "dev", "bridge")
    ip(WAN, "link", "set", "bridge", "up")
    # coturn ends a session on "unreachable" errors: packets to other addresses are discarded silently instead.
    ip(WAN, "link", "add", "void", "type", "veth", "peer", "name", "end")
    for end in ("void", "end"):
        ip(WAN, "link", "set", end, "up")
    ip(WAN, "route", "add", "default", "dev", "void")
    for n in (1, 2):
        nat, host = f"iwtest-nat{n}", f"iwtest-host{n}"
        ip(WAN, "link", "add", f"to{n}", "type", "veth", "peer", "name", "wan", "netns", nat)
        ip(WAN, "link", "set", f"to{n}", "master", "bridge", "up")
        ip(nat, "addr", "add", f"203.0.113.{10 + n}/24", "dev", "wan")
        ip(nat, "link", "add", "lan", "type", "veth", "peer", "name", "eth", "netns", host)
        ip(nat, "addr", "add", f"10.{n}.0.1/24", "dev", "lan")
        ip(host, "addr", "add", f"10.{n}.0.2/24", "dev", "eth")
        for namespace, device in ((nat, "wan"), (nat, "lan"), (host, "eth")):
            ip(namespace, "link", "set", device, "up")
        ip(host, "route", "add", "default", "via", f"10.{n}.0.1")
        run("ip", "netns", "exec", nat, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "netns", "exec", nat, "nft", "-f", "-", text=NAT)


def remove() -> None:
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def start(n: int, role: str) -> subprocess.Popen[str]:
    peer = [sys.executable, "-m", "support.calls.nat_peer", role, f"turn:{TURN}:3478"]
    command, tests = ["ip", "netns", "exec", f"iwtest-host{n}", *peer], Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=tests, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


REQUIREMENTS = pytest.mark.skipif(not is_possible(), reason="needs root, network namespaces, nftables and coturn")


@REQUIREMENTS
@pytest.mark.realtime
@pytest.mark.parametrize("networks", [SHORT_LIVED], indirect=True)
def test_clients_with_short_lived_credentials(networks: None, face_clip: Path, tmp_path: Path) -> None:
    """`iwcodec serve` gives each client a name and password for coturn, which expire; `iwcodec call` uses them."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    with ExitStack() as stack:
        words = ["serve", "--host", TURN, "--turn", f"turn:{TURN}:3478", "--turn-secret-file", str(secret)]
        start_process(WAN, words, stack).wait('"serving"')
        url = f"http://{TURN}:8000/r/nat"
        call = ["call", url, "--headless", "--json", "--video", str(face_clip), "--name"]
        ada, bob = (start_process(f"iwtest-host{n}", [*call, name], stack) for n, name in ((1, "Ada"), (2, "Bob")))
        for client, other in ((ada, "Bob"), (bob, "Ada")):
            client.wait(f"{other}: live")
        time.sleep(6)
        for client in (ada, bob):
            assert client.reports()[-1]["frames_per_s"] > 0


@REQUIREMENTS
@pytest.mark.parametrize("networks", [USER], indirect=True)
def test_call_through_a_relay(networks: None) -> None:
    offering, answering = start(1, "offer"), start(2, "answer")
    try:
        for a, b in ((offering, answering), (answering, offering)):
            b.stdin.write(a.stdout.readline())
            b.stdin.flush()
        results = [json.loads(peer.stdout.readline()) for peer in (offering, answering) if peer.stdout is not None]
        for peer in (offering, answering):
            peer.communicate("\n", timeout=20)
    finally:
        for peer in (offering, answering):
            peer.kill()
    for result in results:
        assert result["shown"] >= 50, result
        assert result["state"] == "live"
        assert "relay" in result["candidates"]
