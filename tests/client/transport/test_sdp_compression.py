"""Descriptions made small: how small, that all comes back, and that no foreign text inflates without bounds."""

import asyncio
import random
import zlib
from base64 import b64encode

import pytest

pytest.importorskip("aiortc")
from aiortc import RTCSessionDescription

from iwcodec.client.audio.track import Microphone, Playout, carry_sound
from iwcodec.client.transport.sctp import make_connection
from iwcodec.client.transport.sdp_compression import DICTIONARY, MAX_PACKED, MOST, packed, unpacked

DIGEST = bytes(range(224, 256))
LINE = "a=fingerprint:sha-256 " + DIGEST.hex(":").upper() + "\r\n"
GOLDEN = "4OHi4+Tl5ufo6err7O3u7/Dx8vP09fb3+Pn6+/z9/v8Dp0hc7gcA"
"""Of "v=0", a line's end and LINE, with the dictionary of this version of the protocol; another zlib may choose other
bits."""
CRC = 0x1901498B


async def offer_and_answer() -> list[str]:
    ada, bob = make_connection([]), make_connection([])
    try:
        for connection in (ada, bob):
            carry_sound(connection, Microphone(), Playout())
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


def test_ours_come_back_and_are_a_quarter() -> None:
    for sdp in asyncio.run(offer_and_answer()):
        small = packed(sdp)
        assert small is not None
        assert unpacked(small) == sdp
        assert len(small) < len(sdp) / 3.5  # networks with more addresses have more that nobody can foresee


def test_the_dictionary_is_that_of_the_protocol() -> None:
    assert unpacked(GOLDEN) == "v=0\r\n" + LINE
    assert zlib.crc32(DICTIONARY) == CRC


LONGEST = "a" * (MOST - len("\r\n" + LINE)) + "\r\n" + LINE


@pytest.mark.parametrize(
    "sdp", ["v=0\r\n" + LINE, f"v=0\r\ns=Zoë\r\n{LINE}m=x\r\n{LINE}", "v=0\r\n" + LINE * 9, LONGEST]
)
def test_any_text_with_one_fingerprint_comes_back(sdp: str) -> None:
    small = packed(sdp)
    assert small is not None
    assert unpacked(small) == sdp


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
def test_what_does_not_fit_goes_as_it_is(sdp: str) -> None:
    assert packed(sdp) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "A", "!!!!", "é" * 4, "AAAA", deflated(b"") + "AAAA", "A" * (MAX_PACKED + 4)),
        deflated(b"v=0\r\n")[:-8] + " " + deflated(b"v=0\r\n")[-8:],
        b64encode(DIGEST).decode(),
        b64encode(DIGEST + bytes(40)).decode(),
        deflated(b"a" * (MOST + 1)),  # one too many
        deflated(b"\r\na=fingerprint:sha-256 " * 1000 + b"\r\n"),  # too many when it has come back
        deflated(bytes(3_000_000)),  # a bomb, of 4 kB
        deflated(b"\xff\xfe"),
        deflated(b"v=0\r\n" * 50)[:-4],  # cut off
    ],
)
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"too long|not deflated|does not end|decode|ASCII"):
        unpacked(text)


def test_damaged_texts_are_refused_or_bounded() -> None:
    whole = packed(asyncio.run(offer_and_answer())[0])
    assert whole is not None
    rng = random.Random(2)
    refused = 0
    for _ in range(2000):
        text = list(whole)
        for _ in range(rng.randrange(1, 4)):
            text[rng.randrange(len(text))] = rng.choice("ABCDabcd0123+/=")
        try:
            assert len(unpacked("".join(text))) <= MOST
        except ValueError:
            refused += 1
    assert 0 < refused < 2000
