"""TURN credentials: the published construction, and a coturn that accepts only valid ones."""

import asyncio
import contextlib
import hmac
import shutil
import subprocess
import time
from base64 import b64decode
from pathlib import Path

import pytest

from iwcodec.server.turn import TTL_S, IceConfig, credentials
from support.server.signalling import PATIENCE_S, free_port

pytestmark = pytest.mark.realtime

SECRET = "north wind and sun"


def test_credentials_are_the_hmac_of_expiry_and_participant() -> None:
    username, credential = credentials("a1b2", 1000.9, SECRET)
    assert username == f"{1000 + TTL_S}:a1b2"
    assert b64decode(credential) == hmac.digest(SECRET.encode(), username.encode(), "sha1")


def test_known_answer() -> None:
    # Computed with: printf 4600:a | openssl dgst -sha1 -hmac north -binary | base64
    assert credentials("a", 1000, "north") == ("4600:a", "xPT9j25n4HvURcg/SAava58rwAA=")


def test_servers_of_a_participant() -> None:
    config = IceConfig(("stun:s.example:3478",), ("turn:t.example?transport=udp", "turns:t.example:5349"), SECRET)
    stun, turn = config.servers("a", 0)
    assert stun.model_dump(exclude_unset=True) == {"urls": ["stun:s.example:3478"]}
    assert turn.urls == ["turn:t.example?transport=udp", "turns:t.example:5349"]
    assert (turn.username, turn.credential) == credentials("a", 0, SECRET)
    assert IceConfig().servers("a", 0) == []


@pytest.mark.parametrize(
    ("stun", "turn", "secret"),
    [
        (("http://x",), (), ""),
        (("stun:",), (), ""),
        (("turn:x",), (), ""),
        ((), ("turn:x?transport=sctp",), SECRET),
        ((), ("turn:x",), ""),
        ((), ("turn:x",), "short"),
    ],
)
def test_invalid_configurations_are_rejected(stun: tuple[str, ...], turn: tuple[str, ...], secret: str) -> None:
    with pytest.raises(ValueError, match=r"address|secret"):
        IceConfig(stun, turn, secret)


def test_ipv6_addresses_are_accepted() -> None:
    IceConfig(("stun:[2001:db8::1]:3478",))


@contextlib.contextmanager
def coturn(folder: Path):
    """Run a coturn on loopback with SECRET; yields its port."""
    if shutil.which("turnserver") is None:
        pytest.skip("coturn is not installed")
    port = free_port()
    arguments = ["turnserver", "-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"]
    arguments += ["--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=tests", "--no-tls", "--no-dtls"]
    arguments += ["--no-cli", "--log-file=stdout", f"--pidfile={folder / 'pid'}", f"--userdb={folder / 'db'}"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd=folder)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def test_coturn_accepts_credentials_until_they_expire(tmp_path: Path) -> None:
    turn = pytest.importorskip("aioice.turn")
    stun = pytest.importorskip("aioice.stun")

    async def allocate(port: int, username: str, credential: str) -> None:
        transport, _ = await turn.create_turn_endpoint(
            asyncio.DatagramProtocol, ("127.0.0.1", port), username=username, password=credential, transport="tcp"
        )
        transport.close()

    async def scenario(port: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await allocate(port, *credentials("a1b2", time.time(), SECRET))
                    break
                except OSError:
                    # Not listening yet.
                    await asyncio.sleep(0.1)
        for username, credential in (
            credentials("a1b2", time.time() - TTL_S - 60, SECRET),
            credentials("a1b2", time.time(), "another secret"),
        ):
            with pytest.raises(stun.TransactionFailed):
                await allocate(port, username, credential)

    with coturn(tmp_path) as port:
        asyncio.run(scenario(port))
