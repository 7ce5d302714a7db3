"""A call server for tests, running in the test's event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from iwcodec.server.http.app import create_app
from iwcodec.server.hub import Hub
from iwcodec.server.limits import Limits
from iwcodec.server.settings import Settings
from iwcodec.server.store.memory import MemoryStore
from support.server.signalling import SECRET

PATIENCE_S = 60.0


class Server:
    """A server on a free port, in the running event loop, that can be stopped and started again."""

    def __init__(self, **limits: Any) -> None:
        self.store = MemoryStore()
        self.settings = Settings(SECRET, limits=Limits(**limits))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    async def start(self) -> None:
        app = create_app(Hub(self.store, self.settings))
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws_per_message_deflate=False))
        self.task = asyncio.create_task(self.server.serve(sockets=[self.listener.dup()]))
        while not self.server.started:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.server.should_exit = True
        await self.task


@asynccontextmanager
async def rooms(**limits: Any) -> AsyncIterator[Server]:
    """A running server; the test must finish within PATIENCE_S."""
    server = Server(**limits)
    await server.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield server
    finally:
        await server.stop()
