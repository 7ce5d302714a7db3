"""Peer connections over real ICE and DTLS: their transports, cipher and certificate."""

import asyncio
from datetime import UTC, datetime

import pytest
from aiortc import RTCCertificate, RTCPeerConnection
from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcsctptransport import RTCSctpTransport
from cryptography.hazmat.primitives import serialization

from iwcodec.client.transport.connection import Certificate, make_connection
from iwcodec.client.transport.sctp import IP_UDP, BundlingSctpTransport


async def connect(a: RTCPeerConnection, b: RTCPeerConnection) -> list[RTCDataChannel]:
    """Open one channel on each connection."""
    channels = [c.createDataChannel("x", negotiated=True, id=1) for c in (a, b)]
    await a.setLocalDescription(await a.createOffer())
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription(await b.createAnswer())
    await a.setRemoteDescription(b.localDescription)
    while not all(channel.readyState == "open" for channel in channels):
        await asyncio.sleep(0.01)
    return channels


@pytest.mark.parametrize(("answers", "aes"), [(make_connection, False), (lambda _: RTCPeerConnection(), True)])
async def test_cipher_with_the_shortest_records_is_used_and_all_bytes_are_counted(answers, aes) -> None:
    ours, theirs = make_connection([]), answers([])  # the answerer is the DTLS client, whose cipher order counts
    mine, _ = await connect(ours, theirs)
    name = ours.sctp.transport._ssl.get_cipher_name()
    assert ("AES" in name, "CHACHA20" in name) == (aes, not aes)
    datagrams: list[int] = []
    ice = ours.sctp.transport.transport
    send = ice._send

    async def counting(data: bytes) -> None:
        datagrams.append(len(data) + IP_UDP)
        await send(data)

    ice._send = counting
    before = sum(ours.sctp.sent.values())
    for n in range(5):
        mine.send(bytes(7 * n + 1))
        await asyncio.sleep(0.02)
    assert len(datagrams) >= 5
    # The counts include the padding of chunks to 4 bytes.
    assert sum(ours.sctp.sent.values()) - before == sum(datagrams)
    await ours.close()
    await theirs.close()


async def test_connects_to_a_standard_peer_connection() -> None:
    """The peer is a connection of unmodified aiortc."""
    ours, theirs = make_connection([]), RTCPeerConnection()
    channels = await connect(ours, theirs)
    got: asyncio.Queue[bytes] = asyncio.Queue()
    for channel in channels:
        channel.on("message", got.put_nowait)
    channels[0].send(b"to")
    assert await got.get() == b"to"
    channels[1].send(b"fro")
    assert await got.get() == b"fro"
    assert isinstance(ours.sctp, BundlingSctpTransport)
    assert type(theirs.sctp) is RTCSctpTransport
    await ours.close()
    await theirs.close()


async def test_both_ends_know_both_certificates():
    """What the words that verify a connection are made of."""
    ours, theirs = make_connection([]), make_connection([])
    theirs._RTCPeerConnection__certificates = [Certificate.generateCertificate()]
    assert ours.sctp is None
    await connect(ours, theirs)
    a, b = ours.sctp.transport.certificates, theirs.sctp.transport.certificates
    assert a == b[::-1]
    assert len(set(a)) == 2
    await ours.close()
    await theirs.close()


def test_certificates_are_small_and_unique() -> None:
    certificates = [Certificate.generateCertificate() for _ in range(2)]
    sizes = [len(certificate._cert.public_bytes(serialization.Encoding.DER)) for certificate in certificates]
    usual = RTCCertificate.generateCertificate()._cert.public_bytes(serialization.Encoding.DER)
    assert max(sizes) < len(usual) - 60
    assert certificates[0].getFingerprints() != certificates[1].getFingerprints()
    assert [fingerprint.algorithm for fingerprint in certificates[0].getFingerprints()] == ["sha-256"]
    now = datetime.now(tz=UTC)
    assert all(certificate._cert.not_valid_before_utc < now < certificate.expires for certificate in certificates)


@pytest.mark.parametrize("after_s", [0.0, 0.02])
def test_nothing_is_left_of_a_connection_that_is_closed_while_it_connects(after_s: float):
    """Tasks would be destroyed with the event loop, with a warning each, when somebody leaves with Ctrl-C."""
    problems: list[str] = []

    async def case() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["message"]))
        a, b = make_connection([]), make_connection([])
        for connection in (a, b):
            connection.createDataChannel("x", negotiated=True, id=1)
        await a.setLocalDescription(await a.createOffer())
        await b.setRemoteDescription(a.localDescription)
        await b.setLocalDescription(await b.createAnswer())
        await a.setRemoteDescription(b.localDescription)
        await asyncio.sleep(after_s)
        await asyncio.gather(a.close(), b.close())
        await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if "Dtls" in str(task.get_coro())]

    asyncio.run(case())
    assert not problems
