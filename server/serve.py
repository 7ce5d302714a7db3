"""`iwcodec serve` and `iwcodec invite`."""

import asyncio
import logging
import os
import secrets
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from iwcodec.codec.cli import console
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.server import logs, tokens
from iwcodec.server.app import create_app
from iwcodec.server.hub import Hub, Settings
from iwcodec.server.limits import MAX_ROOM_SIZE, Limits
from iwcodec.server.messages import MAX_MESSAGE_BYTES, is_room_name
from iwcodec.server.rooms import MemoryStore, Store, StoreError
from iwcodec.server.turn import IceConfig

THIN_LINEAR_TIMEOUTS = 16
"""Linux's TCP_THIN_LINEAR_TIMEOUTS: a lost message is repeated at an even pace, not after ever longer pauses."""
GOODBYE_S = 10
"""Connections that have not closed by then are cut."""

SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        help="File with the secret that signs tokens (16 bytes or more); or set IWCODEC_SECRET. "
        "The same for all processes that share rooms.",
    ),
]


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one.", min=0, max=65535)] = 8000,
    certificate: Annotated[
        tuple[Path, Path] | None, typer.Option("--ssl", metavar="CERT KEY", help="Serve HTTPS: two PEM files.")
    ] = None,
    redis: Annotated[
        str | None, typer.Option(envvar="IWCODEC_REDIS", help="Share rooms over processes: redis://HOST:PORT/0.")
    ] = None,
    secret_file: SecretFile = None,
    invitation_only: Annotated[
        bool, typer.Option("--invitation-only", help="No open rooms; `iwcodec invite` makes rooms.")
    ] = False,
    room_size: Annotated[int, typer.Option(help="People in a room.", min=2, max=MAX_ROOM_SIZE)] = MAX_ROOM_SIZE,
    rooms: Annotated[int, typer.Option(help="Rooms at a time.", min=1)] = 1000,
    grace: Annotated[float, typer.Option(help="Seconds that a lost participant keeps its place.", min=1)] = 30.0,
    idle: Annotated[float, typer.Option(help="Seconds without a message that end a connection.", min=3)] = 60.0,
    stun: Annotated[list[str] | None, typer.Option(help="stun:HOST:PORT; may be repeated.")] = None,
    turn: Annotated[
        list[str] | None, typer.Option(help="turn:HOST:PORT?transport=udp of a coturn server; may be repeated.")
    ] = None,
    turn_secret_file: Annotated[
        Path | None, typer.Option(help="File with coturn's static-auth-secret; or set IWCODEC_TURN_SECRET.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve rooms: who is there, and how they find each other. Sound and picture never pass through the server.

    Any number of processes with the same --redis and secret serve the same rooms. Behind a reverse proxy on another
    machine, set FORWARDED_ALLOW_IPS to its address, so that limits count its clients and not the proxy.
    """
    try:
        logs.configure(log_level)
        settings = Settings(
            secret=read_secret(secret_file) or own_secret(bool(redis), invitation_only),
            limits=Limits(room_size=room_size, rooms=rooms, grace_s=grace, idle_s=idle),
            ice=IceConfig(tuple(stun or ()), tuple(turn or ()), read_turn_secret(turn_secret_file)),
            invitation_only=invitation_only,
        )
        run(settings, make_store(redis), host, port, certificate)
    except ValueError as error:
        raise CodecError(str(error)) from error


def invite(
    room: Annotated[str, typer.Argument(help="Name of the room.")],
    secret_file: SecretFile = None,
    server: Annotated[str, typer.Option(help="Address of the server.")] = "http://127.0.0.1:8000",
    hours: Annotated[float, typer.Option(help="Life of the invitation.", min=0.01, max=720)] = 24.0,
    host: Annotated[bool, typer.Option("--host", help="For the host, who may invite others.")] = False,
) -> None:
    """Print an invitation to a room of the server that has the same secret.

    A room whose name starts with private- is by invitation on every server.
    """
    secret = read_secret(secret_file)
    if secret is None:
        raise CodecError("An invitation is signed with the server's secret: --secret-file FILE or IWCODEC_SECRET.")
    if not is_room_name(room):
        raise CodecError("A room's name has letters, digits, - and _, at most 64, and starts with a letter or digit.")
    token = tokens.Token(room, "host" if host else "guest", int(time.time() + hours * 3600))
    print(f"{server.rstrip('/')}/r/{room}#token={tokens.sign(token, secret)}")


def run(settings: Settings, store: Store, host: str, port: int, certificate: tuple[Path, Path] | None) -> None:
    """Serve until a signal comes. Raises CodecError where the port or the certificate cannot be used."""
    if certificate:
        check_certificate(*certificate)
    app = create_app(Hub(store, settings))
    config = uvicorn.Config(
        app,
        # uvicorn's own log lines hold the addresses of rooms.
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_max_queue=8,
        # Nothing here is worth compressing, and a bomb cannot be small.
        ws_per_message_deflate=False,
        ssl_certfile=certificate[0] if certificate else None,
        ssl_keyfile=certificate[1] if certificate else None,
        timeout_graceful_shutdown=GOODBYE_S,
    )
    with listen(host, port) as listener:
        port = listener.getsockname()[1]
        address = f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        logs.emit("serving", address=address, store=store.kind, node=store.node)
        if logs.logger.isEnabledFor(logging.INFO) and console.is_terminal:
            console.print(f"Rooms at {address}/r/ANY-NAME. Ctrl-C stops.")
        uvicorn.Server(config).run(sockets=[listener])


def make_store(redis: str | None) -> Store:
    if redis is None:
        return MemoryStore()
    try:
        from iwcodec.server.store_redis import RedisStore
    except ImportError as error:
        raise CodecError(f"--redis needs the Python package redis: {install('server')}.") from error

    async def probe(store: RedisStore) -> None:
        try:
            await store.ping()
        finally:
            await store.close()

    try:
        asyncio.run(probe(RedisStore(redis)))
    except StoreError as error:
        raise CodecError(f"{error} Is --redis right?") from error
    # Another one: connections belong to the event loop that opened them.
    return RedisStore(redis)


def read_secret(file: Path | None) -> bytes | None:
    """The secret that signs tokens, from the file or the environment; None where there is neither."""
    secret = read_file(file).encode() if file else os.environ.get("IWCODEC_SECRET", "").encode()
    if secret and len(secret) < tokens.MIN_SECRET:
        raise CodecError(f"The secret must have at least {tokens.MIN_SECRET} bytes.")
    return secret or None


def own_secret(shared: bool, invitation_only: bool) -> bytes:
    """A secret for this run alone, where that can work."""
    if shared or invitation_only:
        raise CodecError("Set the secret that signs tokens: --secret-file FILE or IWCODEC_SECRET.")
    logs.emit("own-secret", text="Invitations hold until this process ends; --secret-file makes them last.")
    return secrets.token_bytes(32)


def read_turn_secret(file: Path | None) -> str:
    return read_file(file) if file else os.environ.get("IWCODEC_TURN_SECRET", "")


def read_file(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise CodecError(f"The secret in {file} cannot be read: {error}") from error
    if not text:
        raise CodecError(f"The secret in {file} is empty.")
    return text


def check_certificate(certificate: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:
        raise CodecError(f"The certificate {certificate} with the key {key} cannot be used: {error}") from error


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise CodecError(f"Cannot listen at {host}:{port}: {error.strerror or error}") from error
    if sys.platform == "linux":  # connections take it over
        listener.setsockopt(socket.IPPROTO_TCP, THIN_LINEAR_TIMEOUTS, 1)
    return listener
