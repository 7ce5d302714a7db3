"""SDP compression: size, round trip, and bounds on what a malicious text inflates to."""

import asyncio
import random
import zlib
from base64 import b64encode

import pytest
from aiortc import RTCSessionDescription

from iwcodec.client.audio.jitter_buffer import AudioJitterBuffer
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.audio.transceiver import add_audio
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.transport.sdp_compression import DICTIONARY, MAX_COMPRESSED, MAX_SDP, compress_sdp, decompress_sdp

DIGEST = bytes(range(224, 256))
LINE = "a=fingerprint:sha-256 " + DIGEST.hex(":").upper() + "\r\n"
GOLDEN = "4OHi4+Tl5ufo6err7O3u7/Dx8vP09fb3+Pn6+/z9/v8Dp0hc7gcA"
"""Compressed "v=0\\r\\n" + LINE, with the dictionary of this protocol version. Another zlib may encode it otherwise."""
CRC = 0x1901498B


async def offer_and_answer() -> list[str]:
    ada, bob = make_connection([]), make_connection([])
    try:
        for connection in (ada, bob):
            add_audio(connection, AudioSender(), AudioJitterBuffer())
        ada.createDataChannel("motion")
        await ada.setLocalDescription(await ada.createOffer())
        await bob.setRemoteDescription(RTCSessionDescription(ada.localDescription.sdp, "offer"))
        await bob.setLocalDescription(await bob.createAnswer())
        return [ada.localDescription.sdp, bob.localDescription.sdp]
    finally:
        await ada.close()
        await bob.close()


def deflated(data: bytes) -> str:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return b64encode(DIGEST + deflate.compress(data) + deflate.flush()).decode()


def test_our_sdp_is_compressed_to_less_than_a_third() -> None:
    for sdp in asyncio.run(offer_and_answer()):
        compressed = compress_sdp(sdp)
        assert decompress_sdp(compressed) == sdp
        assert len(compressed) < len(sdp) / 3.5  # more addresses are less predictable


def test_dictionary_has_not_changed() -> None:
    assert decompress_sdp(GOLDEN) == "v=0\r\n" + LINE
    assert zlib.crc32(DICTIONARY) == CRC


LONGEST = "a" * (MAX_SDP - len("\r\n" + LINE)) + "\r\n" + LINE


@pytest.mark.parametrize(
    "sdp", ["v=0\r\n" + LINE, f"v=0\r\ns=Zoë\r\n{LINE}m=x\r\n{LINE}", "v=0\r\n" + LINE * 9, LONGEST]
)
def test_round_trip_of_any_text_with_one_fingerprint(sdp: str) -> None:
    compressed = compress_sdp(sdp)
    assert compressed is not None
    assert decompress_sdp(compressed) == sdp


@pytest.mark.parametrize(
    "sdp",
    [
        "a" + LONGEST,
        "".join(map(chr, random.Random(1).choices(range(33, 127), k=9_000))) + "\r\n" + LINE,
        *("", "v=0\r\n", "v=0\r\n" + LINE.lower(), "v=0\r\n" + LINE[:-5] + "\r\n"),
        "v=0\r\na=fingerprint:sha-256 \r\n",
        "v=0\r\na=fingerprint:sha-256 \r\n" + LINE,
        "v=0\r\n" + LINE + LINE.replace("E0:", "00:"),
    ],
)
def test_other_texts_are_not_compressed(sdp: str) -> None:
    assert compress_sdp(sdp) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "A", "!!!!", "é" * 4, "AAAA", deflated(b"") + "AAAA", "A" * (MAX_COMPRESSED + 4)),
        deflated(b"v=0\r\n")[:-8] + " " + deflated(b"v=0\r\n")[-8:],
        b64encode(DIGEST).decode(),
        b64encode(DIGEST + bytes(40)).decode(),
        deflated(b"a" * (MAX_SDP + 1)),  # one character too long
        deflated(b"\r\na=fingerprint:sha-256 " * 1000 + b"\r\n"),  # too long after the fingerprints are inserted
        deflated(bytes(3_000_000)),  # a zip bomb of 4 kB
        deflated(b"\xff\xfe"),
        deflated(b"v=0\r\n" * 50)[:-4],  # cut off
    ],
)
def test_other_input_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"too long|not deflated|does not end|decode|ASCII"):
        decompress_sdp(text)


def test_damaged_input_is_refused_or_bounded() -> None:
    whole = compress_sdp(asyncio.run(offer_and_answer())[0])
    rng = random.Random(2)
    refused = 0
    for _ in range(2000):
        text = list(whole)
        for _ in range(rng.randrange(1, 4)):
            text[rng.randrange(len(text))] = rng.choice("ABCDabcd0123+/=")
        try:
            assert len(decompress_sdp("".join(text))) <= MAX_SDP
        except ValueError:
            refused += 1
    assert 0 < refused < 2000
