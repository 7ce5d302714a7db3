"""The commands serve and invite: two processes that share rooms, one of them killed; TLS; few descriptors; errors."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from iwcodec.codec.errors import CodecError
from iwcodec.server import serve, tokens
from iwcodec.server.limits import Limits
from support.server.certificates import write_certificate
from support.server.signalling import PATIENCE_S, SECRET, DirectCall, connected, free_port, redis_server

pytestmark = pytest.mark.realtime

PROGRAM = """
import typer
from iwcodec.server import serve
app = typer.Typer(pretty_exceptions_enable=False)
app.command("serve")(serve.serve)
app.command("invite")(serve.invite)
app()
"""


class Server:
    """A server process, and what it logs."""

    def __init__(self, *options: str, descriptors: int | None = None) -> None:
        environment = {**os.environ, "IWCODEC_SECRET": SECRET.decode()}
        arguments = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *options]
        if descriptors:
            arguments = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *arguments]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)
        self.log: list[dict[str, Any]] = []
        self.address: str = self.logged("serving")["address"]

    def logged(self, event: str) -> dict[str, Any]:
        """Wait for a line of the log with that event."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == event:
                return self.log[-1]
        raise AssertionError(f"no {event} in {self.log}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self.process.stderr
        self.process.stderr.close()


@contextmanager
def server(*options: str, descriptors: int | None = None) -> Iterator[Server]:
    """Run a server process; `descriptors`: its limit of open files."""
    made = Server(*options, descriptors=descriptors)
    try:
        yield made
    finally:
        made.close()


async def listening(address: str, **options: Any) -> None:
    """Wait until the server answers. Its socket listens before it is ready, so the first request only waits."""
    async with httpx.AsyncClient(timeout=PATIENCE_S, **options) as client:
        assert (await client.get(f"{address}/health")).json()["status"] == "ok"


def test_a_call_survives_one_of_two_processes(tmp_path: Path) -> None:
    """Ada and Bob are connected to different processes, and Bob's is killed. The call goes on, Bob resumes through the
    other process as the same participant, and a newcomer finds both."""

    async def scenario(first: Server, second: Server) -> None:
        for process in (first, second):
            await listening(process.address)
        async with connected(first.address) as ada:
            one = (await ada.join("Ada"))["id"]
            async with connected(second.address) as bob:
                welcome = await bob.join("Bob")
                assert [peer["id"] for peer in welcome["peers"]] == [one]
                assert (await ada.hear("peer-joined"))["peer"]["id"] == welcome["id"]
                call = DirectCall()
                await call.set_up(bob, ada, welcome["id"], one)
                await call.works("before")
                second.kill()
                await bob.closed()
            await call.works("meanwhile")

            async with connected(first.address) as bob, connected(first.address) as cyd:
                back = await bob.join("Bob", resume=welcome["resume"])
                assert (back["id"], back["resumed"]) == (welcome["id"], True)
                newcomer = await cyd.join("Cyd")
                assert {peer["name"] for peer in newcomer["peers"]} == {"Ada", "Bob"}
                # Ada was not told that Bob was disconnected: her next message is about Cyd.
                assert (await ada.hear("peer-joined"))["peer"]["name"] == "Cyd"
                assert (await bob.hear("peer-joined"))["peer"]["name"] == "Cyd"
                await cyd.say(type="signal", to=welcome["id"], candidate=None)
                assert (await bob.hear("signal"))["from"] == newcomer["id"]
                await call.works("after")
                await call.close()

    with redis_server(tmp_path) as redis:
        options = ("--redis", redis.url)
        with server(*options) as first, server(*options) as second:
            asyncio.run(scenario(first, second))


def test_a_member_of_a_killed_process_is_lost_after_the_grace_period(tmp_path: Path) -> None:
    async def scenario(first: Server, second: Server) -> None:
        for process in (first, second):
            await listening(process.address)
        async with connected(first.address) as ada, connected(second.address) as bob:
            await ada.join("Ada")
            gone = (await bob.join("Bob"))["id"]
            await ada.hear("peer-joined")
            second.kill()
            assert await ada.hear() == {"type": "peer-left", "id": gone, "reason": "lost"}

    with redis_server(tmp_path) as redis:
        options = ("--redis", redis.url, "--grace", "2")
        with server(*options) as first, server(*options) as second:
            asyncio.run(scenario(first, second))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can handle")
def test_sigterm_shuts_down_cleanly() -> None:
    async def scenario(process: Server) -> None:
        await listening(process.address)
        async with connected(process.address) as ada:
            await ada.join()
            process.process.send_signal(signal.SIGTERM)
            assert await ada.closed() == 1012

    with server() as process:
        asyncio.run(scenario(process))
        process.logged("stopped")
        assert process.process.wait(PATIENCE_S) in (0, -signal.SIGTERM)
        assert [line["event"] for line in process.log] == ["serving", "joined", "closed", "stopped"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
def test_half_written_requests_do_not_take_all_descriptors() -> None:
    async def scenario(process: Server) -> None:
        await listening(process.address)
        port = int(process.address.rpartition(":")[2])
        floods = []
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nX-")
            floods.append(writer)
        transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        await listening(process.address, transport=transport)
        for writer in floods:
            writer.transport.abort()
        process.process.send_signal(signal.SIGTERM)

    with server(descriptors=150) as process:
        asyncio.run(scenario(process))
        process.logged("stopped")
        events = {(line["event"], line.get("reason")) for line in process.log}
        # A slow machine sees the deadlines pass, too.
        assert events - {("refused", "slow")} == {("serving", None), ("refused", "connections"), ("stopped", None)}


def test_tls(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(certificate))

    async def scenario(process: Server) -> None:
        assert process.address.startswith("https://")
        await listening(process.address, verify=trusted)
        async with connected(process.address, ssl=trusted) as ada:
            assert (await ada.join())["type"] == "welcome"

    with server("--ssl", str(certificate), str(key)) as process:
        asyncio.run(scenario(process))


def commands() -> typer.Typer:
    app = typer.Typer()
    app.command("serve")(serve.serve)
    app.command("invite")(serve.invite)
    return app


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--redis", "redis://127.0.0.1:1/0"], "secret"),
        (["--invitation-only"], "secret"),
        (["--secret-file", "missing"], "cannot be read"),
        (["--stun", "http://x"], "STUN address"),
        (["--turn", "turn:x"], "static-auth-secret"),
        (["--ssl", "missing", "missing"], "certificate"),
        (["--host", "256.0.0.1"], "Cannot listen"),
        (["--log-level", "loud"], "loud|LOUD"),
        (["--trusted-proxy", "proxy.example"], "trusted proxy"),
        (["--allow-origin", "calls.example"], "origin"),
        (["--metrics-token-file", "missing"], "cannot be read"),
    ],
)
def test_wrong_options_are_reported_in_one_sentence(
    arguments: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("IWCODEC_SECRET", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(commands(), ["serve", *arguments])
    assert isinstance(result.exception, CodecError)
    assert any(part in str(result.exception) for part in reason.split("|"))


def test_an_unreachable_redis_is_reported_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redis")
    monkeypatch.setenv("IWCODEC_SECRET", SECRET.decode())
    result = CliRunner().invoke(commands(), ["serve", "--redis", f"redis://127.0.0.1:{free_port()}/0"])
    assert isinstance(result.exception, CodecError)
    assert "Redis does not answer" in str(result.exception)


def test_a_port_in_use_is_reported() -> None:
    with serve.listen("127.0.0.1", 0) as listener, pytest.raises(CodecError, match="Cannot listen"):
        serve.listen("127.0.0.1", listener.getsockname()[1])


def test_an_invitation_opens_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IWCODEC_SECRET", raising=False)
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    arguments = [
        "invite",
        "private-board",
        "--secret-file",
        str(secret),
        "--server",
        "https://calls.example/",
        "--host",
    ]
    result = CliRunner().invoke(commands(), arguments)
    address, _, token = result.stdout.strip().partition("#token=")
    assert address == "https://calls.example/r/private-board"
    assert tokens.verify(token, "private-board", SECRET, time.time()).role == "host"


@pytest.mark.parametrize(("room", "secret"), [("a b", SECRET.decode()), ("blue", ""), ("blue", "short")])
def test_an_invitation_needs_a_room_and_the_secret(room: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IWCODEC_SECRET", secret)
    result = CliRunner().invoke(commands(), ["invite", room])
    assert isinstance(result.exception, CodecError)


def test_the_defaults_of_the_command_are_those_of_the_limits() -> None:
    command = typer.main.get_command(commands()).commands["serve"]
    defaults = {option.name: option.default for option in command.params}
    limits = Limits()
    assert defaults["room_size"] == limits.room_size
    assert defaults["rooms"] == limits.rooms
    assert (defaults["grace"], defaults["idle"]) == (limits.grace_s, limits.idle_s)
