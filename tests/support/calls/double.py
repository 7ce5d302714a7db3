"""Replacements of VideoSender and Link that send each picture as a JPEG, for tests of the layers above."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Any

import cv2
import numpy as np
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCIceServer, RTCPeerConnection

from iwcodec.client.link.link_state import LinkState, LinkStats, RenderedFrame
from iwcodec.codec.media.types import Picture


class DoubleVideoSender:
    def __init__(self, runtime: Any = None, executor: Executor | None = None) -> None:
        self.links: set[DoubleLink] = set()
        self.preview: Picture | None = None
        self.number = 0
        self.paused = False

    async def push(self, picture: Picture, captured_s: float) -> None:
        self.preview = picture
        if not self.paused:
            for link in self.links:
                link.send(self.number, picture, captured_s)
        self.number += 1

    def pause(self, on: bool) -> None:
        self.paused = on

    async def close(self) -> None:
        self.paused = True


class DoubleLink:
    congested = False
    first_picture_waits = False
    words = None

    def __init__(
        self,
        connection: RTCPeerConnection,
        video_sender: DoubleVideoSender,
        runtime: Any = None,
        executor: Executor | None = None,
    ) -> None:
        self.video_sender = video_sender
        self.queue: asyncio.Queue[RenderedFrame | None] = asyncio.Queue(2)
        self.state = LinkState.CONNECTING
        self.received = 0
        self.delay_s = 0.05
        self.connections = 0
        video_sender.links.add(self)
        self.replace_connection(connection)

    def replace_connection(self, connection: RTCPeerConnection) -> None:
        self.connections += 1
        self.channel = connection.createDataChannel("video", ordered=False, maxRetransmits=0, negotiated=True, id=0)
        self.channel.on("message", self.take)

    def send(self, number: int, picture: Picture, captured_s: float) -> None:
        if self.channel.readyState == "open":
            jpeg = cv2.imencode(".jpg", picture[:, :, ::-1])[1].tobytes()
            self.channel.send(struct.pack("<Id", number, captured_s) + jpeg)

    def take(self, data: bytes) -> None:
        number, captured_s = struct.unpack_from("<Id", data)
        picture = np.asarray(cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1]
        now = time.monotonic()
        self.delay_s = now - captured_s
        self.received += 1
        self.state = LinkState.LIVE
        self.put(RenderedFrame(number, picture, now, self.delay_s, self.state))

    def put(self, frame: RenderedFrame | None) -> None:
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(frame)

    async def frames(self) -> AsyncIterator[RenderedFrame]:
        while (frame := await self.queue.get()) is not None:
            yield frame

    def stats(self) -> LinkStats:
        rate = {"motion": 2.0, "sources": 1.0, "total": 12.0}
        return LinkStats(rate, rate, 24.0, self.delay_s * 1000, 0.0, 1, {})

    def limit(self, max_kbps: float | None) -> None:
        self.max_kbps = max_kbps

    def playout_delay_s(self) -> float:
        return self.delay_s

    async def close(self) -> None:
        self.state = LinkState.CLOSED
        self.video_sender.links.discard(self)
        self.put(None)


def make_connection(ice_servers: list[dict[str, Any]]) -> RTCPeerConnection:
    servers = [RTCIceServer(**server) for server in ice_servers]
    return RTCPeerConnection(RTCConfiguration(servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
