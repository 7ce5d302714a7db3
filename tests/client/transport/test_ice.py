"""Selection of ICE servers that aiortc can use."""

import random

import pytest
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from aiortc.rtcicetransport import connection_kwargs

from iwcodec.client.transport import ice

SECRETS = {"username": "u", "credential": "c"}


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("stun:s.example", True),
        ("stun:192.0.2.1:3478", True),
        ("turn:t.example?transport=udp", True),
        ("turn:t.example:3478?transport=tcp", True),
        ("turns:t.example:5349", True),
        ("stun:[2001:db8::1]:3478", False),
        ("turn:[2001:db8::1]", False),
        ("stuns:s.example", False),
        ("stun:s.example?transport=udp", False),
        ("turns:t.example?transport=udp", False),
        ("turn:t.example?transport=sctp", False),
        ("stun:s.example:", False),
        ("stun:s.example:99999", False),
        ("stun:s.example:0", False),
        ("stun:a:b:c", False),
        ("turn:??", False),
    ],
)
def test_usable_urls(url: str, usable: bool) -> None:
    kept, dropped = ice.usable_servers([{"urls": [url], **SECRETS}])
    assert (kept, dropped) == (([{"urls": [url], **SECRETS}], []) if usable else ([], [url]))
    if usable:
        assert connection_kwargs([RTCIceServer(**server) for server in kept])


def test_each_attempt_uses_the_next_servers() -> None:
    servers, _ = ice.usable_servers(
        [
            {"urls": ["stun:a.example", "stun:b.example"]},
            {"urls": ["turn:c.example", "turns:d.example", "turn:[::1]"], **SECRETS},
            {"urls": ["stun:e.example"]},
        ]
    )
    urls = [[server["urls"] for server in ice.servers_for_attempt(servers, attempt)] for attempt in range(4)]
    assert urls == [
        [["stun:a.example"], ["turn:c.example"]],
        [["stun:b.example"], ["turns:d.example"]],
        [["stun:e.example"], ["turn:c.example"]],
        [["stun:a.example"], ["turns:d.example"]],
    ]
    assert ice.servers_for_attempt(servers, 0)[1]["credential"] == "c"
    assert ice.servers_for_attempt([], 3) == []


async def test_random_urls_never_break_a_connection() -> None:
    """aiortc accepts all servers that remain of random ones."""
    rng = random.Random(8)
    for _ in range(300):
        urls = [
            rng.choice(["stun:", "turn:", "stuns:", "turns:"])
            + "".join(rng.choice("ab1:.?[]=-transport=udptcp%") for _ in range(rng.randrange(1, 30)))
            for _ in range(4)
        ]
        servers, dropped = ice.usable_servers([{"urls": urls, **SECRETS}])
        assert len(servers) + len(dropped) == 4
        chosen = [RTCIceServer(**server) for server in ice.servers_for_attempt(servers, rng.randrange(9))]
        connection = RTCPeerConnection(RTCConfiguration(iceServers=chosen))
        connection.createDataChannel("x")
        await connection.close()
