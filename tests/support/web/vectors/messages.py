"""Messages of calls, intact and damaged; session descriptions, and the words that verify a call."""

import hashlib
from typing import Any
from unittest import mock

import numpy as np

from iwcodec.client.link.messages import (
    PROTOCOL,
    Commitment,
    Hello,
    MotionMessage,
    Nonce,
    Report,
    SourceAck,
    SourceChunk,
    Status,
    control_from_bytes,
    control_to_bytes,
)
from iwcodec.client.link.verification import Verification, words_of
from iwcodec.client.transport.sdp_compression import compress_sdp
from iwcodec.codec.bitstream.packets import MotionPacket, Run
from iwcodec.codec.errors import CodecError
from iwcodec.server.messages import PROTOCOL as SIGNALLING_PROTOCOL
from support.codec.fuzzing import mutated
from support.web.vectors.values import plain, text

MESSAGES: list[tuple[str, bytes]] = [
    ("motion", MotionMessage(7, (1000, 1040, 1080), 1, 9, MotionPacket(300, 3, 298, b"abcdef")).to_bytes()),
    (
        "motion",
        MotionMessage(255, (1000, 1013, 1080), 0, None, MotionPacket(9, 3, None, b"ab", (Run(2, 3),))).to_bytes(),
    ),
    ("chunk", SourceChunk(70_000, 3, False, 900, 300, b"part").to_bytes()),
    ("chunk", SourceChunk(1, 0, True, 4, 0, b"part").to_bytes()),
    ("control", control_to_bytes(Report(70_000, None, 0, 25, 1, 40, 300, 24))),
    ("control", control_to_bytes(Hello(1, b"8 bytes!", 2**32 - 5, 3_000_000_000, None, 0))),
    ("control", control_to_bytes(Status(camera_off=True, face_lost=False))),
    ("control", control_to_bytes(SourceAck(7, 4))),
    ("control", control_to_bytes(Commitment(bytes(range(32))))),
    ("control", control_to_bytes(Nonce(bytes(range(16))))),
]


def plain_message(kind: str, data: bytes) -> Any:
    """A message of a call with the names and values of the browser's. Raises CodecError."""
    if kind == "motion":
        message = MotionMessage.from_bytes(data)
        numbers = {"sequence": message.sequence, "stamps": message.stamps, "coarseness": message.coarseness}
        return {**numbers, "acknowledged": message.acknowledged, "packet": plain(message.packet)}
    if kind == "chunk":
        chunk = SourceChunk.from_bytes(data)
        numbers = {"sequence": chunk.sequence, "index": chunk.index, "length": chunk.length, "offset": chunk.offset}
        return {**numbers, "isSnapshot": chunk.is_snapshot, "part": text(chunk.part)}
    fields = [text(value) if isinstance(value, bytes) else value for value in vars(control_from_bytes(data)).values()]
    kinds = ("report", "hello", "status", "ack", "commitment", "nonce")
    return {"kind": kinds[data[0] - 0x80], "fields": fields}


def message_vector(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """A message of a call, damaged in all but the first ones, and what it parses to: None if it is refused."""
    kind, seed = MESSAGES[number % len(MESSAGES)]
    data = seed if number < len(MESSAGES) else mutated(seed, rng)
    try:
        return {"kind": kind, "data": text(data), "message": plain_message(kind, data)}
    except CodecError:
        return {"kind": kind, "data": text(data), "message": None}


def sdp_vector() -> dict[str, Any]:
    """A session description, and its compressed form."""
    fingerprint = bytes(range(32)).hex(":").upper()
    lines = ["v=0", "o=- 3 4 IN IP4 0.0.0.0", f"a=fingerprint:sha-256 {fingerprint}", "a=mid:0", "a=setup:active"]
    sdp = "".join(f"{line}\r\n" for line in [*lines, f"a=fingerprint:sha-256 {fingerprint}", "a=ice-ufrag:abcd"])
    return {"sdp": sdp, "deflated": compress_sdp(sdp)}


def verification_vectors(rng: np.random.Generator) -> dict[str, Any]:
    """The words of ends, and what one end of an exchange is told and answers: numbers out of turn, another exchange,
    more than are answered, another certificate."""
    ends = [[rng.bytes(32), rng.bytes(16), rng.bytes(32), rng.bytes(16)] for _ in range(20)]
    told: list[Commitment | Nonce | bytes] = [bytes(32)]
    for n in range(8):
        nonce = rng.bytes(16)
        told += [Nonce(nonce), Commitment(hashlib.sha256(nonce).digest()), Nonce(rng.bytes(16)), Nonce(nonce)]
        told += [bytes([n // 4] * 32)] if n % 2 else []
    events: list[dict[str, Any]] = []
    numbers = [rng.bytes(16) for _ in told]
    with mock.patch("secrets.token_bytes", side_effect=numbers):
        end = Verification()
        for n, one in enumerate(told):
            sent = end.connected((bytes(32), one)) if isinstance(one, bytes) else end.receive(one, 3.0 * n)
            event = {"atS": 3.0 * n, "answers": [text(control_to_bytes(answer)) for answer in sent], "words": end.words}
            asked = {"certificate": text(one)} if isinstance(one, bytes) else {"told": text(control_to_bytes(one))}
            events.append(event | asked)
    return {
        "numbers": [text(number) for number in numbers],
        "ends": [
            {"parts": [text(part) for part in parts], "words": words_of((parts[0], parts[1]), (parts[2], parts[3]))}
            for parts in ends
        ],
        "events": events,
    }


def vectors(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "protocols": [PROTOCOL, SIGNALLING_PROTOCOL],
        "messages": [message_vector(n, rng) for n in range(400)],
        "sdp": sdp_vector(),
        "verification": verification_vectors(rng),
    }
