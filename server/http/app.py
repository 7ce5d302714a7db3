"""The HTTP application: the page, the rooms' API, health, metrics, and the WebSocket of each room."""

import base64
import contextlib
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response, WebSocket
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse
from pydantic import BaseModel, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.websockets import WebSocketDisconnect, WebSocketState

from iwcodec import __version__
from iwcodec.server import messages, tokens
from iwcodec.server.http.access import client_address, is_foreign, is_misdirected, may_read_metrics
from iwcodec.server.http.body_limit import BodyLimit
from iwcodec.server.http.player import NOT_BUILT, headers_of, is_built, media_type, player_files
from iwcodec.server.hub import Hub
from iwcodec.server.limits import AddressBuckets, address_key
from iwcodec.server.link import Disconnected
from iwcodec.server.store.base import StoreError

ROOM_BYTES: Final = 9
"""Random bytes of a new room's name: 12 characters of base64, 72 bits, cannot be guessed."""
GUEST_S: Final = 24 * 3600
"""Life of a guest's token, in seconds, unless the host's ends earlier."""

RoomName = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="Name of the room")]
Bearer = Annotated[str | None, Header(alias="Authorization", max_length=600, description="Bearer TOKEN")]
Access = Literal["open", "invitation"]


class NewRoom(BaseModel):
    """A request for a room."""

    access: Access = "invitation"
    hours: Annotated[float, Field(gt=0, le=tokens.MAX_LIFE_S / 3600, description="Life of the host's token")] = 24.0


class Invitation(BaseModel):
    """A room, and the token that opens it."""

    room: str
    path: str
    """Path of the room's page from the server's root, with the token, if any, in its fragment."""
    token: str | None
    expires: int | None
    """Unix seconds."""


class CreatedRoom(Invitation):
    """A new room."""

    access: Access


class Person(BaseModel):
    """A participant of a room."""

    name: str
    joined: int
    """Unix seconds."""


class Room(BaseModel):
    """A room and its participants."""

    room: str
    access: Access
    size: int
    """Largest number of participants."""
    people: list[Person]


class Health(BaseModel):
    """Whether calls can be set up."""

    status: Literal["ok", "unavailable"]
    version: str
    store: str


class _Socket:
    """Adapts a Starlette WebSocket to `iwcodec.server.link.Socket`."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket

    async def receive(self) -> str | bytes:
        try:
            message = await self.websocket.receive()
        except RuntimeError as error:
            raise Disconnected from error
        if message["type"] == "websocket.disconnect":
            raise Disconnected
        text: str | None = message.get("text")
        return text if text is not None else bytes(message.get("bytes") or b"")

    async def send(self, text: str) -> None:
        try:
            await self.websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise Disconnected from error

    async def close(self, code: int) -> None:
        if self.websocket.application_state is WebSocketState.CONNECTED:
            try:
                await self.websocket.close(code)
            except (WebSocketDisconnect, RuntimeError) as error:
                raise Disconnected from error


def create_app(hub: Hub) -> FastAPI:
    """Return the application. Its lifespan opens and closes the hub; StoreError at start-up if the shared state cannot
    be reached."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await hub.open()
        yield
        await hub.close()

    app = FastAPI(
        title="iwcodec rooms",
        version=__version__,
        summary="Rooms and signalling for calls. Media never passes through here.",
        description=messages.__doc__ or "",
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from other servers.
        docs_url=None,
        redoc_url=None,
    )
    limits, settings = hub.settings.limits, hub.settings
    requests = AddressBuckets(limits.requests_per_s, limits.request_burst)
    new_rooms = AddressBuckets(limits.rooms_per_s, limits.room_burst)

    def refused(
        request: Request, reason: str, status: int, text: str, headers: dict[str, str] | None = None
    ) -> NoReturn:
        hub.refuse(reason, client_address(request))
        raise HTTPException(status, text, headers)

    def within_rate(request: Request) -> None:
        if not requests.take(client_address(request), hub.ticks()):
            refused(request, "rate", 429, "Too many requests; wait a little.", {"Retry-After": "10"})

    def own_page(request: Request) -> None:
        if is_foreign(request, settings.allowed_origins):
            refused(request, "origin", 403, "Pages of other servers may not use this one.")

    limited = [Depends(within_rate)]
    changing = [*limited, Depends(own_page)]
    page, policy = _page()

    app.add_middleware(BodyLimit)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        response: Response
        if is_misdirected(request, settings.allowed_origins):
            hub.refuse("host", client_address(request))
            response = PlainTextResponse(
                "This server has another name; its operator allows more by --allow-origin.", 421
            )
        else:
            response = await call_next(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        # Do not give the addresses of rooms to other servers.
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Content-Security-Policy", policy)
        return response

    @app.get("/", response_class=HTMLResponse, summary="How to call", include_in_schema=False)
    async def landing() -> str:
        return page

    @app.get("/r/{room}", response_class=HTMLResponse, summary="How to join the room, and who is in it")
    async def room_page(room: RoomName) -> str:
        return page

    @app.get("/play", include_in_schema=False)
    async def player(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/play/", 308)

    @app.get("/play/{path:path}", dependencies=limited, include_in_schema=False)
    def player_file(request: Request, path: str) -> Response:
        return _player_file(path or "index.html", request.headers.get("accept-encoding", ""))

    @app.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """200 while calls can be set up here; 503 while the shared state cannot be reached."""
        try:
            await hub.store.ping()
        except StoreError:
            response.status_code = 503
            return Health(status="unavailable", version=__version__, store=hub.store.kind)
        return Health(status="ok", version=__version__, store=hub.store.kind)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, 403: {}})
    async def metrics(request: Request) -> Response:
        """Prometheus metrics of this process (rooms and participants: of all processes)."""
        if not may_read_metrics(request, settings.metrics_token):
            refused(request, "metrics", 403, "Metrics need the server's metrics token (--metrics-token-file).")
        await hub.refresh_totals()
        return Response(hub.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/api/rooms", status_code=201, dependencies=changing, responses={403: {}, 429: {}})
    async def make_room(request: Request, new: NewRoom) -> CreatedRoom:
        """Name a new room, which cannot be guessed: by invitation, with its host's token, or open to everyone with its
        address."""
        if hub.settings.invitation_only:
            raise HTTPException(403, "Rooms of this server are made by its operator: iwcodec invite ROOM.")
        if not new_rooms.take(client_address(request), hub.ticks()):
            refused(request, "rooms", 429, "Too many new rooms; wait a little.", {"Retry-After": "10"})
        name = secrets.token_urlsafe(ROOM_BYTES).replace("-", "x").replace("_", "y")
        if new.access == "open":
            return CreatedRoom(room=name, path=f"/r/{name}", token=None, expires=None, access="open")
        expires = int(hub.clock() + new.hours * 3600)
        token = tokens.Token(tokens.CLOSED_PREFIX + name, "host", expires)
        return CreatedRoom(**_invitation(hub, token).model_dump(), access="invitation")

    @app.post("/api/rooms/{room}/invitations", status_code=201, dependencies=changing, responses={401: {}, 403: {}})
    async def invite(room: RoomName, authorization: Bearer = None) -> Invitation:
        """A guest's token for the room, valid for a day but no longer than the host's, which authorizes this."""
        host = _checked(hub, room, authorization)
        if host is None:
            return Invitation(room=room, path=f"/r/{room}", token=None, expires=None)
        if host.role != "host":
            raise HTTPException(403, "Only the room's host invites.")
        return _invitation(hub, tokens.Token(room, "guest", min(host.expires, int(hub.clock()) + GUEST_S)))

    @app.get("/api/rooms/{room}", dependencies=limited, responses={401: {}, 503: {}})
    async def people(room: RoomName, authorization: Bearer = None) -> Room:
        """The room and its participants. A room by invitation needs a token."""
        closed = _checked(hub, room, authorization) is not None
        try:
            members = await hub.store.members(room, hub.clock())
        except StoreError as error:
            raise HTTPException(503, str(error)) from None
        return Room(
            room=room,
            access="invitation" if closed else "open",
            size=hub.settings.limits.room_size,
            people=[Person(name=member.name, joined=member.joined) for member in members],
        )

    @app.websocket("/r/{room}/ws")
    async def signalling(websocket: WebSocket, room: str) -> None:
        address = client_address(websocket)
        misdirected = is_misdirected(websocket, settings.allowed_origins)
        if misdirected or is_foreign(websocket, settings.allowed_origins):
            hub.refuse("host" if misdirected else "origin", address)
            # Before the WebSocket is accepted this is HTTP 403.
            await websocket.close()
            return
        reason, error = _refusal(hub, requests, room, address)
        await websocket.accept()
        connection = _Socket(websocket)
        if error is None:
            await hub.serve(connection, room, address)
            return
        hub.refuse(reason, address)
        with contextlib.suppress(Disconnected):
            await connection.send(messages.encode(error))
            await connection.close(messages.CLOSE_CODES[error.code])

    return app


def _refusal(hub: Hub, requests: AddressBuckets, room: str, address: str) -> tuple[str, messages.Error | None]:
    """Return the reason, for logs and metrics, and the error with which a new WebSocket is closed; None to serve it."""
    limits = hub.settings.limits
    if not messages.is_room_name(room):
        text = "A room's name has letters, digits, - and _, at most 64."
        return "name", messages.Error(code="refused", text=text)
    if not requests.take(address, hub.ticks()):
        return "rate", messages.Error(code="unavailable", text="Too many connections; wait a little.")
    if len(hub.links) >= limits.connections:
        text = "The server has as many connections as it accepts."
        return "capacity", messages.Error(code="unavailable", text=text)
    # Behind a proxy the connections of all clients are the proxy's, so they are counted here by client, too.
    key = address_key(address)
    if sum(link.address == key for link in hub.links) >= limits.address_connections:
        return "connections", messages.Error(code="unavailable", text="Too many connections are open from here.")
    return "", None


def _checked(hub: Hub, room: str, authorization: str | None) -> tokens.Token | None:
    """Return the contents of a valid bearer token, or None if the room needs none. Raises HTTP 401 otherwise."""
    scheme, _, token = (authorization or "").partition(" ")
    try:
        return hub.check_token(room, token.strip() if scheme.lower() == "bearer" else None)
    except tokens.TokenError as error:
        raise HTTPException(401, str(error), {"WWW-Authenticate": "Bearer"}) from None


def _invitation(hub: Hub, token: tokens.Token) -> Invitation:
    text = tokens.sign(token, hub.settings.secret)
    return Invitation(room=token.room, path=f"/r/{token.room}#token={text}", token=text, expires=token.expires)


def _page() -> tuple[str, str]:
    """Return the page, and the content security policy that allows its own script and style and nothing else."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    if is_built():
        page = page.replace(' id="browser" hidden', ' id="browser"')

    def allowed(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    policy = (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _player_file(path: str, encodings: str) -> Response:
    """Return a file of the player, compressed if there is such a copy that the client takes."""
    if not is_built():
        return PlainTextResponse(NOT_BUILT, 404)
    files, headers = player_files(), headers_of(path)
    if path not in files:
        raise HTTPException(404, "There is no such file.")
    content, taken = files[path], re.split(r"[\s,;]+", encodings)
    for encoding, suffix in (("br", "br"), ("gzip", "gz")):
        if encoding in taken and f"{path}.{suffix}" in files:
            content, headers["Content-Encoding"] = files[f"{path}.{suffix}"], encoding
            break
    if isinstance(content, bytes):
        return Response(content, headers=headers, media_type=media_type(path))
    return FileResponse(content, headers=headers, media_type=media_type(path))
