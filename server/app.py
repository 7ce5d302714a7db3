"""The HTTP side: the page, the rooms' API, health, metrics, and the WebSocket of each room."""

import base64
import contextlib
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response, WebSocket
from fastapi import Path as PathParameter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field
from starlette.websockets import WebSocketDisconnect, WebSocketState

from iwcodec import __version__
from iwcodec.server import messages, tokens
from iwcodec.server.hub import Disconnected, Hub
from iwcodec.server.limits import Addresses
from iwcodec.server.logs import emit
from iwcodec.server.rooms import StoreError

ROOM_BYTES: Final = 9
"""Of a made-up room name: 12 characters, which nobody guesses."""
DAY_S: Final = 24 * 3600

RoomName = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="Name of the room")]
Bearer = Annotated[str | None, Header(alias="Authorization", max_length=600, description="Bearer TOKEN")]
Access = Literal["open", "invitation"]


class NewRoom(BaseModel):
    access: Access = "invitation"
    hours: Annotated[float, Field(gt=0, le=tokens.MAX_LIFE_S / 3600, description="Life of the host's token")] = 24.0


class Invitation(BaseModel):
    room: str
    path: str
    """Of the room's page, from the server's root; with the token, where there is one, in its fragment."""
    token: str | None
    expires: int | None
    """Unix seconds."""


class Made(Invitation):
    access: Access


class Person(BaseModel):
    name: str
    joined: int
    """Unix seconds."""


class Room(BaseModel):
    room: str
    access: Access
    size: int
    """People that it holds."""
    people: list[Person]


class Health(BaseModel):
    status: Literal["ok", "unavailable"]
    version: str
    store: str


class _Socket:
    """A Starlette WebSocket as the hub wants it."""

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
    """The application; its lifespan opens and closes the hub. StoreError at start-up if the state cannot be reached."""

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
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    addresses = Addresses(hub.settings.limits)

    def within_rate(request: Request) -> None:
        if not addresses.allow(_address(request), hub.ticks()):
            hub.metrics.requests.inc()
            raise HTTPException(429, "Too many requests; wait a little.", {"Retry-After": "10"})

    limited = [Depends(within_rate)]
    page, policy = _page()

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        # Addresses of rooms stay between those who have them.
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Content-Security-Policy"] = policy
        return response

    @app.get("/", response_class=HTMLResponse, summary="How to call", include_in_schema=False)
    async def landing() -> str:
        return page

    @app.get("/r/{room}", response_class=HTMLResponse, summary="How to join the room, and who is in it")
    async def room_page(room: RoomName) -> str:
        return page

    @app.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """200 while calls can be set up here; 503 while the shared state cannot be reached."""
        try:
            await hub.store.ping()
        except StoreError:
            response.status_code = 503
            return Health(status="unavailable", version=__version__, store=hub.store.kind)
        return Health(status="ok", version=__version__, store=hub.store.kind)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Prometheus metrics of this process (rooms and participants: of all)."""
        await hub.refresh_totals()
        return Response(hub.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/api/rooms", status_code=201, dependencies=limited, responses={403: {}, 429: {}})
    async def make_room(wanted: NewRoom) -> Made:
        """A new room under a name that nobody guesses, by invitation or open; the first comes with its host's token."""
        if hub.settings.invitation_only:
            raise HTTPException(403, "Rooms of this server are made by its operator: iwcodec invite ROOM.")
        name = secrets.token_urlsafe(ROOM_BYTES).replace("-", "x").replace("_", "y")
        if wanted.access == "open":
            return Made(room=name, path=f"/r/{name}", token=None, expires=None, access="open")
        expires = int(hub.clock() + wanted.hours * 3600)
        token = tokens.Token(tokens.CLOSED_PREFIX + name, "host", expires)
        return Made(**_invitation(hub, token).model_dump(), access="invitation")

    @app.post("/api/rooms/{room}/invitations", status_code=201, dependencies=limited, responses={401: {}, 403: {}})
    async def invite(room: RoomName, authorization: Bearer = None) -> Invitation:
        """A guest's token for the room, good for a day or as long as the host's, whose token is needed here."""
        host = _checked(hub, room, authorization)
        if host is None:
            return Invitation(room=room, path=f"/r/{room}", token=None, expires=None)
        if host.role != "host":
            raise HTTPException(403, "Only the room's host invites.")
        return _invitation(hub, tokens.Token(room, "guest", min(host.expires, int(hub.clock()) + DAY_S)))

    @app.get("/api/rooms/{room}", dependencies=limited, responses={401: {}, 503: {}})
    async def people(room: RoomName, authorization: Bearer = None) -> Room:
        """Who is in the room; of a room by invitation, for those with a token."""
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
        refused = _refusal(hub, addresses, room, websocket)
        await websocket.accept()
        connection = _Socket(websocket)
        if not refused:
            await hub.serve(connection, room)
            return
        hub.metrics.requests.inc()
        with contextlib.suppress(Disconnected):
            await connection.send(messages.encode(refused))
            await connection.close(messages.CLOSE_CODES[refused.code])

    _document(app)
    return app


def _refusal(hub: Hub, addresses: Addresses, room: str, websocket: WebSocket) -> messages.Error | None:
    """Why this connection is not even served."""
    if not messages.is_room_name(room):
        return messages.Error(code="refused", text="A room's name has letters, digits, - and _, at most 64.")
    if not addresses.allow(_address(websocket), hub.ticks()):
        return messages.Error(code="unavailable", text="Too many connections; wait a little.")
    if len(hub.links) >= hub.settings.limits.connections:
        emit("full")
        return messages.Error(code="unavailable", text="The server has as many connections as it takes.")
    return None


def _address(request: Request | WebSocket) -> str:
    """The peer's; uvicorn has put the one behind a trusted proxy there already."""
    return request.client.host if request.client else ""


def _checked(hub: Hub, room: str, authorization: str | None) -> tokens.Token | None:
    """The token that was brought, or None where the room needs none; 401 otherwise."""
    scheme, _, token = (authorization or "").partition(" ")
    try:
        return hub.check_token(room, token.strip() if scheme.lower() == "bearer" else None)
    except tokens.TokenError as error:
        raise HTTPException(401, str(error), {"WWW-Authenticate": "Bearer"}) from None


def _invitation(hub: Hub, token: tokens.Token) -> Invitation:
    text = tokens.sign(token, hub.settings.secret)
    return Invitation(room=token.room, path=f"/r/{token.room}#token={text}", token=text, expires=token.expires)


def _page() -> tuple[str, str]:
    """The page, and the policy that lets its own script and style run and nothing else."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    policy = (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _document(app: FastAPI) -> None:
    """Put the schemas of the signalling messages into the OpenAPI document, which knows no WebSockets."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        found = plain()
        found.setdefault("components", {}).setdefault("schemas", {}).update(messages.schemas())
        return found

    # Assigning a method is FastAPI's documented way.
    app.openapi = document  # type: ignore[method-assign]
