"""A limit on request bodies, enforced before any route sees the request."""

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 4096
"""Longest request body. The API's own requests have less than 100 bytes."""


class BodyLimit:
    """ASGI middleware: answers 413 to a body longer than MAX_BODY_BYTES, and closes the connection.

    A declared length is refused unread. A chunked body is refused as soon as it exceeds the limit.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        # Nine digits decide; int() itself refuses thousands of them.
        excess = not length.isdecimal() or int(length[:9]) > MAX_BODY_BYTES
        body = b""
        more = not excess and ("content-length" in headers or "transfer-encoding" in headers)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            excess = len(body) > MAX_BODY_BYTES
            more = message.get("more_body", False) and not excess
        if excess:
            text = f"A request body has at most {MAX_BODY_BYTES} bytes."
            await JSONResponse({"detail": text}, 413, {"Connection": "close"})(scope, receive, send)
            return
        whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            message, whole = whole, None
            return message or await receive()

        await self.app(scope, replay, send)
