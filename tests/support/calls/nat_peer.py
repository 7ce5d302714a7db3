"""One participant of test_nat.py, in a network namespace of its own. Exchanges SDP over standard input and output, one
JSON object per line."""

import asyncio
import json
import sys

from aiortc import RTCPeerConnection, RTCSessionDescription

from iwcodec.benchmarks.call.simulation import ImmediateExecutor
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.video.video_sender import VideoSender
from support.codec.stub_runtime import StubRuntime, picture

MIN_FRAMES = 50
"""Number of frames after which the call may end."""
MAX_S = 30.0
"""Maximum duration of the call."""


async def main(offers: bool, turn: str) -> None:
    connection = make_connection([{"urls": [turn], "username": "user", "credential": "secret"}])
    video_sender = VideoSender(StubRuntime(), ImmediateExecutor(), lambda picture: True)
    link = Link(connection, video_sender, StubRuntime(), ImmediateExecutor())
    loop = asyncio.get_running_loop()
    if not offers:
        await connection.setRemoteDescription(RTCSessionDescription(**json.loads(await read_line())))
    await connection.setLocalDescription(await (connection.createOffer() if offers else connection.createAnswer()))
    write_line({"type": connection.localDescription.type, "sdp": connection.localDescription.sdp})
    if offers:
        await connection.setRemoteDescription(RTCSessionDescription(**json.loads(await read_line())))
    shown = 0

    async def watch() -> None:
        nonlocal shown
        async for _ in link.frames():
            shown += 1

    watching = asyncio.create_task(watch())
    end = loop.time() + MAX_S
    others: asyncio.Task[str] | None = None
    while others is None or not others.done():  # frames are sent until the other participant has seen enough, too
        if others is None and ((shown >= MIN_FRAMES and link.state == LinkState.LIVE) or loop.time() > end):
            write_line({"shown": shown, "state": str(link.state), "candidates": candidate_types(connection)})
            others = asyncio.create_task(read_line())
        await video_sender.push(picture(128), loop.time())
        await asyncio.sleep(0.04)
    await link.close()
    await connection.close()
    await watching


def candidate_types(connection: RTCPeerConnection) -> list[str]:
    """The types of the nominated candidates, ours first."""
    pair = connection.sctp.transport.transport._connection._nominated[1]
    return [pair.local_candidate.type, pair.remote_candidate.type]


def write_line(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


async def read_line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] == "offer", sys.argv[2]))
