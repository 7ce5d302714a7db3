"""The commands `iwcodec serve` and `iwcodec invite`."""

import asyncio
import logging
import os
import secrets
import socket
import ssl
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Annotated

import typer

from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.terminal import console
from iwcodec.server import logs, tokens
from iwcodec.server.http.connections import Server, ServerConfig
from iwcodec.server.http.player import NOT_BUILT, is_built, player_files
from iwcodec.server.hub import Hub
from iwcodec.server.limits import MAX_ROOM_SIZE, Limits
from iwcodec.server.messages import is_room_name
from iwcodec.server.settings import Settings
from iwcodec.server.store.base import Store, StoreError
from iwcodec.server.store.memory import MemoryStore
from iwcodec.server.turn import IceConfig

TCP_THIN_LINEAR_TIMEOUTS = 16
"""Linux socket option: retransmit at constant intervals instead of doubling them, on connections with few packets."""

SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        help="File with the secret that signs tokens (16 bytes or more); or set IWCODEC_SECRET. "
        "The same for all processes that share rooms.",
    ),
]


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 accepts other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any free one.", min=0, max=65535)] = 8000,
    certificate: Annotated[
        tuple[Path, Path] | None, typer.Option("--ssl", metavar="CERT KEY", help="Serve HTTPS: two PEM files.")
    ] = None,
    redis: Annotated[
        str | None, typer.Option(envvar="IWCODEC_REDIS", help="Share rooms between processes: redis://HOST:PORT/0.")
    ] = None,
    secret_file: SecretFile = None,
    invitation_only: Annotated[
        bool, typer.Option("--invitation-only", help="No open rooms; only `iwcodec invite` makes rooms.")
    ] = False,
    room_size: Annotated[int, typer.Option(help="Participants in a room.", min=2, max=MAX_ROOM_SIZE)] = MAX_ROOM_SIZE,
    rooms: Annotated[int, typer.Option(help="Rooms at the same time.", min=1)] = 1000,
    grace: Annotated[
        float, typer.Option(help="Seconds that a disconnected participant keeps its place.", min=1)
    ] = 30.0,
    idle: Annotated[
        float, typer.Option(help="Seconds without a message after which a connection is closed.", min=3)
    ] = 60.0,
    stun: Annotated[list[str] | None, typer.Option(help="stun:HOST:PORT; may be repeated.")] = None,
    turn: Annotated[
        list[str] | None, typer.Option(help="turn:HOST:PORT?transport=udp of a coturn server; may be repeated.")
    ] = None,
    turn_secret_file: Annotated[
        Path | None, typer.Option(help="File with coturn's static-auth-secret; or set IWCODEC_TURN_SECRET.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="https://HOST whose pages may use this server: besides its own ones, or its own behind a proxy on "
            "this machine; may be repeated."
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address or network (CIDR) of a reverse proxy whose X-Forwarded-For is believed; repeatable."
        ),
    ] = None,
    metrics_token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the bearer token that opens /metrics, closed without; or set IWCODEC_METRICS_TOKEN."
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve rooms and signalling for calls, and at /play a page that plays .iwc files in a browser; rooms' pages lead
    to one that joins the call. Sound and picture never pass through the server.

    Any number of processes with the same --redis and secret serve the same rooms. Behind a reverse proxy, name it with
    --trusted-proxy, on the same machine too: otherwise the limits of one address apply to all its clients together.
    """
    try:
        logs.configure(log_level)
        settings = Settings(
            secret=read_secret(secret_file) or own_secret(bool(redis), invitation_only),
            limits=Limits(room_size=room_size, rooms=rooms, grace_s=grace, idle_s=idle),
            ice=IceConfig(
                tuple(stun or ()), tuple(turn or ()), read_secret_file(turn_secret_file, "IWCODEC_TURN_SECRET")
            ),
            invitation_only=invitation_only,
            allowed_origins=tuple(origin.rstrip("/").lower() for origin in allow_origin or ()),
            trusted_proxies=tuple(trusted_proxy or ()),
            metrics_token=read_secret_file(metrics_token_file, "IWCODEC_METRICS_TOKEN"),
        )
        run(settings, make_store(redis), host, port, certificate)
    except ValueError as error:
        raise CodecError(str(error)) from error


def invite(
    room: Annotated[str, typer.Argument(help="Name of the room.")],
    secret_file: SecretFile = None,
    server: Annotated[str, typer.Option(help="Address of the server.")] = "http://127.0.0.1:8000",
    hours: Annotated[float, typer.Option(help="Life of the invitation.", min=0.01, max=720)] = 24.0,
    host: Annotated[
        bool, typer.Option("--host", help="For the host, who may invite others, lock the room and remove people.")
    ] = False,
) -> None:
    """Print an invitation to a room of the server that has the same secret.

    A room whose name starts with private- is by invitation on every server.
    """
    secret = read_secret(secret_file)
    if secret is None:
        raise CodecError("An invitation is signed with the server's secret: --secret-file FILE or IWCODEC_SECRET.")
    if not is_room_name(room):
        raise CodecError("A room's name has at most 64 letters, digits, - and _, and starts with a letter or digit.")
    token = tokens.Token(room, "host" if host else "guest", int(time.time() + hours * 3600))
    print(f"{server.rstrip('/')}/r/{room}#token={tokens.sign(token, secret)}")


def run(settings: Settings, store: Store, host: str, port: int, certificate: tuple[Path, Path] | None) -> None:
    """Serve until SIGINT or SIGTERM. Raises CodecError if the port or the certificate cannot be used."""
    if certificate:
        check_certificate(*certificate)
    config = ServerConfig(Hub(store, settings), certificate)
    if is_built():
        Thread(target=player_files, daemon=True).start()  # so that the first visitor need not wait for it
    with listen(host, port) as listener:
        port = listener.getsockname()[1]
        address = f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        logs.emit("serving", address=address, store=store.kind, node=store.node)
        if logs.logger.isEnabledFor(logging.INFO) and console.is_terminal:
            console.print(
                f"Make a room at {address}/ or join one at {address}/r/ANY-NAME. Ctrl-C stops.", soft_wrap=True
            )
            console.print(f"A player of .iwc files: {address}/play/" if is_built() else NOT_BUILT)
        Server(config).run(sockets=[listener])


def make_store(redis: str | None) -> Store:
    """Return a store in Redis, or in memory for None. Raises CodecError if Redis does not answer."""
    if redis is None:
        return MemoryStore()
    try:
        from iwcodec.server.store.redis import RedisStore
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
    # Do not reuse the probed store: its connections belong to an event loop that is closed.
    return RedisStore(redis)


def read_secret(file: Path | None) -> bytes | None:
    """Return the secret that signs tokens, from the file or the environment; None if there is neither. Raises
    CodecError if it is unreadable or too short."""
    secret = read_secret_file(file, "IWCODEC_SECRET").encode()
    if secret and len(secret) < tokens.MIN_SECRET:
        raise CodecError(f"The secret must have at least {tokens.MIN_SECRET} bytes.")
    return secret or None


def own_secret(shared: bool, invitation_only: bool) -> bytes:
    """Return a random secret for this process. Raises CodecError if other processes need the same one."""
    if shared or invitation_only:
        raise CodecError("Set the secret that signs tokens: --secret-file FILE or IWCODEC_SECRET.")
    logs.emit("own-secret", text="Invitations are valid until this process ends; with --secret-file they last longer.")
    return secrets.token_bytes(32)


def read_secret_file(file: Path | None, variable: str) -> str:
    """Return the content of `file`, or without one that of the environment variable, which may be empty. Raises
    CodecError if the file is empty or cannot be read."""
    if file is None:
        return os.environ.get(variable, "")
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise CodecError(f"The secret in {file} cannot be read: {error}") from error
    if not text:
        raise CodecError(f"The secret in {file} is empty.")
    return text


def check_certificate(certificate: Path, key: Path) -> None:
    """Raise CodecError if the PEM files are no certificate with its key."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:
        raise CodecError(f"The certificate {certificate} with the key {key} cannot be used: {error}") from error


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket. Raises CodecError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise CodecError(f"Cannot listen at {host}:{port}: {error.strerror or error}") from error
    if sys.platform == "linux":  # accepted connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1)
    return listener
