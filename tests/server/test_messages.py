"""The signalling messages: valid ones, every limit, and that nothing else is accepted."""

import json
import random
from typing import Any, get_args

import pytest

from iwcodec.server import messages
from iwcodec.server.messages import BadMessage, Candidate, Description, Join, Signal, parse

OFFER = {"type": "offer", "sdp": "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n"}
CANDIDATE = {
    "candidate": "candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host",
    "sdpMid": "0",
    "sdpMLineIndex": 0,
    "usernameFragment": "abcd",
}
GOOD: list[dict[str, Any]] = [
    {"type": "join", "protocol": 2, "name": "Ada"},
    {"type": "join", "protocol": 2, "name": "  Zoë  ", "token": "iw1.x.y", "resume": "iwr.a.b"},
    {"type": "signal", "to": "peer-1", "sdp": OFFER, "call": "c1"},
    {"type": "signal", "to": "peer-1", "sdp": {**OFFER, "type": "answer"}},
    {"type": "signal", "to": "peer-1", "sdp": {"type": "offer", "deflated": "q83v+/0="}, "call": "c1"},
    {"type": "signal", "to": "peer-1", "candidate": CANDIDATE},
    {"type": "signal", "to": "peer-1", "candidate": {"candidate": ""}},
    {"type": "signal", "to": "peer-1", "candidate": None},
    {"type": "ice"},
    {"type": "ping"},
    {"type": "leave"},
]
BAD: list[tuple[str, str]] = [
    ("", "not JSON"),
    ("null", "message"),
    ("[]", "message"),
    ('"ping"', "message"),
    ('{"type":"ping"}}', "not JSON"),
    ("[" * 60_000, "not JSON"),
    ('{"type":"ping","x":' * 3000, "not JSON"),
    ("{}", "no type"),
    ('{"type":"reboot"}', "unknown type"),
    ('{"type":1}', "unknown type"),
    ('{"type":"ping","more":1}', "unknown field"),
    ('{"type":"welcome"}', "unknown type"),
    ('{"type":"join","name":"Ada"}', "join.protocol: is missing"),
    ('{"type":"join","protocol":"1","name":"Ada"}', "join.protocol: must be a whole number"),
    ('{"type":"join","protocol":true,"name":"Ada"}', "join.protocol"),
    ('{"type":"join","protocol":1e999,"name":"Ada"}', "join.protocol"),
    ('{"type":"join","protocol":NaN,"name":"Ada"}', "message|protocol"),
    ('{"type":"join","protocol":-1,"name":"Ada"}', "join.protocol"),
    ('{"type":"join","protocol":2,"name":""}', "join.name"),
    ('{"type":"join","protocol":2,"name":"   "}', "join.name"),
    ('{"type":"join","protocol":2,"name":"a\\u0000b"}', "join.name"),
    ('{"type":"join","protocol":2,"name":"a\\u202eb"}', "join.name"),
    ('{"type":"join","protocol":2,"name":"\\ud800"}', "JSON|name"),
    (json.dumps({"type": "join", "protocol": 2, "name": "n" * 41}), "join.name"),
    (json.dumps({"type": "join", "protocol": 2, "name": "Ada", "token": "t" * 513}), "join.token: is too long"),
    (json.dumps({"type": "signal", "to": "p"}), "either sdp or candidate"),
    (json.dumps({"type": "signal", "to": "p", "sdp": None}), "either sdp or candidate"),
    (json.dumps({"type": "signal", "to": "p", "sdp": OFFER, "candidate": None}), "either sdp or candidate"),
    (json.dumps({"type": "signal", "sdp": OFFER}), "signal.to: is missing"),
    (json.dumps({"type": "signal", "to": "a b", "sdp": OFFER}), "signal.to"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {"type": "rollback", "sdp": "v=0"}}), "signal.sdp.type"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {"type": "offer", "sdp": "hello"}}), "signal.sdp.sdp"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {"type": "offer", "sdp": "v=0\x00"}}), "signal.sdp.sdp"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {"type": "offer", "sdp": "v=0" + "a" * 32_000}}), "too long"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {"type": "offer"}}), "either sdp or deflated"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {**OFFER, "deflated": "abcd"}}), "either sdp or deflated"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {"type": "offer", "deflated": ""}}), "signal.sdp.deflated"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {"type": "offer", "deflated": "a\nb"}}), "signal.sdp.deflated"),
    (json.dumps({"type": "signal", "to": "p", "sdp": {"type": "offer", "deflated": "a" * 8_001}}), "too long"),
    (json.dumps({"type": "signal", "to": "p", "candidate": {"candidate": "c" * 513}}), "too long"),
    (json.dumps({"type": "signal", "to": "p", "candidate": {"candidate": "a\nb"}}), "signal.candidate"),
    (json.dumps({"type": "signal", "to": "p", "candidate": {"candidate": "", "sdpMLineIndex": -1}}), "sdpMLineIndex"),
    (json.dumps({"type": "signal", "to": "p", "candidate": None, "call": "a b"}), "signal.call"),
    (json.dumps({"type": "signal", "to": "p", "sdp": "v=0" * 40_000}), "at most"),
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: message["type"])
def test_valid_messages_are_parsed(message: dict[str, Any]) -> None:
    understood = parse(json.dumps(message))
    assert understood.type == message["type"]
    assert parse(json.dumps(message).encode()) == understood


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_invalid_messages_are_rejected_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(BadMessage) as refusal:
        parse(text)
    assert any(part in str(refusal.value) for part in reason.split("|")), refusal.value


def test_a_refusal_never_quotes_the_message() -> None:
    hostile = "iw1-secret-thing"
    for text in (
        json.dumps({"type": hostile}),
        json.dumps({"type": "ping", hostile: 1}),
        json.dumps({"type": "join", "protocol": hostile, "name": "Ada"}),
        json.dumps({"type": "signal", "to": hostile + " ", "sdp": {hostile: hostile}}),
    ):
        with pytest.raises(BadMessage) as refusal:
            parse(text)
        assert hostile not in str(refusal.value)


def test_names_are_trimmed_and_composed() -> None:
    joined = parse(json.dumps({"type": "join", "protocol": 2, "name": " Zoe\u0308 "}))
    assert isinstance(joined, Join)
    assert joined.name == "Zo\u00eb"


def test_a_relayed_signal_equals_the_sent_one_plus_its_sender() -> None:
    for message in GOOD:
        if message["type"] != "signal":
            continue
        signal = parse(json.dumps(message))
        assert isinstance(signal, Signal)
        expected = {**message, "from": "me"}
        del expected["to"]
        assert json.loads(messages.encode(messages.relayed(signal, "me"))) == expected


def test_unknown_fields_of_browsers_are_not_relayed() -> None:
    signal = parse(json.dumps({"type": "signal", "to": "p", "candidate": {**CANDIDATE, "relayProtocol": "udp"}}))
    assert isinstance(signal, Signal)
    assert json.loads(messages.encode(messages.relayed(signal, "me")))["candidate"] == CANDIDATE


def test_server_messages_contain_their_type_and_the_given_fields() -> None:
    welcome = messages.Welcome(
        room="blue",
        id="a",
        resume="iwr.a.b",
        resumed=False,
        peers=[messages.Peer(id="b", name="Zoë")],
        ice_servers=[messages.IceServer(urls=["stun:s:1"])],
        ice_ttl_s=60,
        ping_s=20.0,
        grace_s=30.0,
    )
    fields = json.loads(messages.encode(welcome))
    assert fields["type"] == "welcome"
    assert fields["protocol"] == messages.PROTOCOL
    assert fields["ice_servers"] == [{"urls": ["stun:s:1"]}]
    assert fields["peers"] == [{"id": "b", "name": "Zoë"}]
    assert json.loads(messages.encode(messages.Pong())) == {"type": "pong"}
    assert json.loads(messages.encode(messages.Error(code="rate", text="Slow."))) == {
        "type": "error",
        "code": "rate",
        "text": "Slow.",
    }


def test_the_docstring_names_every_message() -> None:
    for message in (*get_args(messages.ClientMessage), *get_args(messages.ServerMessage)):
        (kind,) = get_args(message.model_fields["type"].annotation)
        assert f"| {kind} |" in (messages.__doc__ or "")
    assert set(messages.CLOSE_CODES) <= set(get_args(messages.ErrorCode))


@pytest.mark.parametrize(
    ("room", "good"),
    [("blue", True), ("A-1_b", True), ("x" * 64, True), ("x" * 65, False), ("", False), ("-a", False), ("a:b", False)],
)
def test_room_names(room: str, good: bool) -> None:
    assert messages.is_room_name(room) is good


def mangled(rng: random.Random) -> bytes:
    """Return a valid message with changed, cut or repeated bytes, one with an odd value, or random bytes."""
    odd = [None, True, -1, 2**70, 1.5, "", "\x00", "a" * 600, [], {}, [[]], {"type": "offer"}, "v=0", "candidate:"]
    message = json.loads(json.dumps(rng.choice(GOOD)))
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        message[rng.choice([*message, "extra", "type"])] = rng.choice(odd)
        return json.dumps(message).encode()
    if kind == 2:
        inner = message.get("sdp") or message.get("candidate") or message
        inner[rng.choice([*inner, "extra"])] = rng.choice(odd)
        return json.dumps(message).encode()
    text = bytearray(json.dumps(message).encode())
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(text))
        if kind == 3:
            text[place] = rng.choice(b'{}[]",:\\0e-\xff\x00 ')
        else:
            text[place:place] = text[rng.randrange(len(text)) :][: rng.randrange(40)]
    return bytes(text)


def test_fuzzed_messages_are_parsed_within_bounds_or_rejected() -> None:
    rng = random.Random(5)
    outcomes = {"understood": 0, "refused": 0}
    longest = 0
    for _ in range(10_000):
        raw = mangled(rng)
        text: str | bytes = raw.decode("utf-8", "replace") if rng.random() < 0.5 else raw
        try:
            message = parse(text)
        except BadMessage as refusal:
            outcomes["refused"] += 1
            longest = max(longest, len(str(refusal)))
            continue
        outcomes["understood"] += 1
        if isinstance(message, Signal):
            check_bounds(message)
            # Every accepted message can be encoded as UTF-8.
            messages.encode(messages.relayed(message, "me")).encode()
        elif isinstance(message, Join):
            assert 1 <= len(message.name) <= messages.MAX_NAME
            message.name.encode()
    assert min(outcomes.values()) > 500, outcomes
    assert longest < 100


def check_bounds(signal: Signal) -> None:
    match signal.sdp or signal.candidate:
        case Description(sdp=None, deflated=deflated):
            assert 0 < len(deflated or "") <= messages.MAX_DEFLATED
        case Description(sdp=sdp):
            assert sdp.startswith("v=0")
            assert len(sdp) <= messages.MAX_SDP
        case Candidate(candidate=candidate):
            assert len(candidate) <= messages.MAX_CANDIDATE
            assert "\n" not in candidate
