"""Parsing of room addresses and server messages, with malformed and mutated input."""

import json
import random
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from iwcodec.client.room.protocol import MalformedMessage, SignallingError, parse_address, parse_message
from iwcodec.client.transport.sdp_compression import compress_sdp

SDP = "v=0\r\na=fingerprint:sha-256 " + bytes(32).hex(":") + "\r\n"
ICE_SERVERS = [{"urls": ["turn:turn.example:3478"], "username": "u", "credential": "c"}]


@pytest.mark.parametrize(
    ("address", "websocket_url", "token"),
    [
        ("http://localhost:8000/r/blue", "ws://localhost:8000/r/blue/ws", None),
        ("https://x.example/calls/r/a-b_c/#token=abc.def", "wss://x.example/calls/r/a-b_c/ws", "abc.def"),
        ("https://[2001:db8::1]:8443/r/b", "wss://[2001:db8::1]:8443/r/b/ws", None),
        ("x.example/r/b", "wss://x.example/r/b/ws", None),
        ("x.example:8443/r/b#token=t", "wss://x.example:8443/r/b/ws", "t"),
        ("localhost:8000/r/b", "ws://localhost:8000/r/b/ws", None),
        ("127.0.0.1/r/b", "ws://127.0.0.1/r/b/ws", None),
    ],
)
def test_addresses_are_parsed(address: str, websocket_url: str, token: str | None) -> None:
    parsed = parse_address(address)
    assert (parsed.websocket_url, parsed.token) == (websocket_url, token)
    assert parse_address(parsed.link) == replace(parsed, token=None)
    assert parsed.link.startswith("http")


@pytest.mark.parametrize("name", ["my room", "my%20room", "-x", "a.b", "x" * 65, "caf\u00e9", "a\x1b[31m"])
def test_names_that_no_room_can_have_are_explained(name: str) -> None:
    with pytest.raises(SignallingError, match=r"not the address of a room.*letters, digits, - and _") as raised:
        parse_address(f"https://x.example/r/{name}")
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("http://x.example/r/b", "x.example"),
        ("http://192.168.1.5:8000/r/b", "192.168.1.5"),
        *((f"http://{host}:8000/r/b", None) for host in ("localhost", "127.0.0.1", "[::1]", "a.localhost")),
        ("https://x.example/r/b", None),
    ],
)
def test_unencrypted_signalling_beyond_this_machine_is_noticed(address: str, host: str | None) -> None:
    assert parse_address(address).exposed_host == host


@pytest.mark.parametrize(
    "address",
    [
        *("", "blue", "http://host", "ftp://host/r/blue", "http://host/r/..", "http:///r/b", "http://[/r/b"),
        *("http://a..b/r/b", f"http://{'a' * 70}/r/b", "http://host:99999/r/b", "http://host:x/r/b", "http://a b/r/b"),
        *("http://ho\x00st/r/b", "http://h\u2100st/r/b", "http://x]/r/b", "http://:80/r/b"),
    ],
)
def test_invalid_addresses_are_rejected(address: str) -> None:
    with pytest.raises(SignallingError, match="not the address of a room"):
        parse_address(address)


def test_mutated_addresses_are_connectable_or_rejected() -> None:
    """10,000 mutations."""
    rng = random.Random(12)
    seeds = [
        "https://x.example:8443/calls/r/a-b_c/#token=abc.def",
        "http://[2001:db8::1]/r/b",
        "http://u:p@h\u00e9/r/b",
    ]
    odd = "[]:/@#?%. \x00\n\u2100\ud800\u3002é" + "a" * 5
    accepted = 0
    for number in range(10_000):
        text = list(seeds[number % 3])
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(3)] = rng.choices(odd, k=rng.randrange(3)) * rng.choice([1, 1, 40])
        try:
            parsed = parse_address("".join(text))
        except SignallingError:
            continue
        accepted += 1
        parts = urlsplit(parsed.websocket_url)
        assert parts.scheme in ("ws", "wss")
        assert (parts.hostname or "").encode("idna")
        assert parts.port is None or 0 <= parts.port < 65536
        assert parsed.room.isascii()
    assert 500 < accepted < 9500


def test_mutated_messages_are_parsed_or_rejected() -> None:
    """10,000 mutations of valid messages give an event, None, or MalformedMessage."""
    rng = random.Random(5)
    seeds = [
        json.dumps({"type": "signal", "from": "bob", "sdp": {"type": "offer", "sdp": "v=0\r\n"}, "call": "c"}),
        json.dumps({"type": "signal", "from": "bob", "sdp": {"type": "offer", "deflated": compress_sdp(SDP)}}),
        json.dumps(
            {"type": "signal", "from": "bob", "candidate": {"candidate": "candidate:1 1 udp", "sdpMLineIndex": 0}}
        ),
        json.dumps({"type": "ice", "ice_servers": ICE_SERVERS, "ice_ttl_s": 60}),
        json.dumps({"type": "peer-joined", "peer": {"id": "bob", "name": "Bob"}}),
        json.dumps({"type": "error", "code": "rate", "text": "slow"}),
    ]
    values = ["null", "[]", "{}", "1e999", "-1", '""', "true", '"' + "x" * 40_000 + '"', "[" * 2000, '"\\ud800"']
    rejected = 0
    for number in range(10_000):
        text = bytearray(rng.choice(seeds).encode())
        if number % 2:
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(4)] = bytes(rng.randrange(256) for _ in range(rng.randrange(4)))
        else:
            parts = text.decode().split(": ")
            at = rng.randrange(1, len(parts))
            tail = parts[at][len(parts[at].split(",")[0].rstrip("]}")) :]
            parts[at] = rng.choice(values) + tail
            text = bytearray(": ".join(parts).encode())
        try:
            parse_message(bytes(text))
        except MalformedMessage:
            rejected += 1
    assert 1000 < rejected < 10_000
