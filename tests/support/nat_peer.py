"""One participant of test_nat.py, in a network namespace of its own: descriptions over standard input and output, one
JSON object a line."""

import asyncio
import json
import sys

from aiortc import RTCSessionDescription

from iwcodec.benchmarks.call.simulation import AtOnce
from iwcodec.client.transport.sctp import make_connection
from iwcodec.client.video.link import Link, LinkState
from iwcodec.client.video.video_sender import VideoSender
from stub_runtime import StubRuntime, picture

ENOUGH = 50
MAX_S = 30.0


async def main(offers: bool, turn: str) -> None:
    connection = make_connection([{"urls": [turn], "username": "user", "credential": "secret"}])
    feed = VideoSender(StubRuntime(), AtOnce(), lambda picture: True)
    link = Link(connection, feed, StubRuntime(), AtOnce())
    loop = asyncio.get_running_loop()
    if not offers:
        await connection.setRemoteDescription(RTCSessionDescription(**json.loads(await hear())))
    await connection.setLocalDescription(await (connection.createOffer() if offers else connection.createAnswer()))
    say({"type": connection.localDescription.type, "sdp": connection.localDescription.sdp})
    if offers:
        await connection.setRemoteDescription(RTCSessionDescription(**json.loads(await hear())))
    shown = 0

    async def watch() -> None:
        nonlocal shown
        async for _ in link.frames():
            shown += 1

    watching = asyncio.create_task(watch())
    end = loop.time() + MAX_S
    while loop.time() < end and not (shown >= ENOUGH and link.state == LinkState.LIVE):
        await feed.push(picture(128), loop.time())
        await asyncio.sleep(0.04)
    assert connection.sctp is not None
    pair = connection.sctp.transport.transport._connection._nominated[1]
    types = [pair.local_candidate.type, pair.remote_candidate.type]
    say({"shown": shown, "state": str(link.state), "candidates": types})
    await hear()  # the other one is ready, too
    await link.close()
    await connection.close()
    await watching


def say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


async def hear() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] == "offer", sys.argv[2]))
