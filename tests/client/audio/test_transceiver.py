"""Audio over real WebRTC: a standard aiortc peer receives ours, and we receive a standard peer's."""

import asyncio
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtcpByePacket, RtcpReceiverInfo, RtcpRrPacket
from av import AudioFrame

from iwcodec.client.audio.jitter_buffer import AudioJitterBuffer
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.audio.transceiver import (
    REPORT_EVERY,
    AudioTraffic,
    accept_offer,
    add_audio,
    reported_loss,
    throttle_reports,
)
from iwcodec.client.transport.connection import make_connection as make_real_connection
from support.calls.double import make_connection
from support.media.sounds import RATE, voice

BLOCK = 960


async def meet(caller: RTCPeerConnection, callee: RTCPeerConnection) -> None:
    await caller.setLocalDescription(await caller.createOffer())
    offer = caller.localDescription
    await callee.setRemoteDescription(RTCSessionDescription(offer.sdp, offer.type))
    accept_offer(callee)
    await callee.setLocalDescription(await callee.createAnswer())
    answer = callee.localDescription
    await caller.setRemoteDescription(RTCSessionDescription(answer.sdp, answer.type))


async def talking(audio_sender: AudioSender) -> None:
    """Feed speech in real time until cancelled."""
    sound, start, at = voice(4.0), time.monotonic(), 0
    while True:
        place = at % len(sound)
        audio_sender.push(sound[place : place + BLOCK], start + at / RATE)
        at += BLOCK
        await asyncio.sleep(max(0.0, start + at / RATE - time.monotonic()))


async def test_a_standard_peer_decodes_our_audio() -> None:
    audio_sender = AudioSender()
    ours, theirs = make_connection([]), RTCPeerConnection(RTCConfiguration(iceServers=[]))
    add_audio(ours, audio_sender, AudioJitterBuffer())
    heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    theirs.on("track", heard.set_result)
    speaking = asyncio.create_task(talking(audio_sender))
    await meet(ours, theirs)
    track = await heard
    samples: list[np.ndarray] = []
    while sum(map(len, samples)) < RATE:
        frame = await track.recv()
        assert (frame.sample_rate, frame.samples) == (RATE, 2880)
        samples.append(frame.to_ndarray().reshape(-1)[::2])  # stereo, both alike
    assert np.abs(np.concatenate(samples).astype(int)).max() > 2000
    speaking.cancel()
    await asyncio.gather(ours.close(), theirs.close())


class Stereo(MediaStreamTrack):
    """Track of a standard aiortc application: frames that aiortc encodes at 20 ms and 96 kbit/s in stereo."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._sound, self._at, self._start = voice(4.0), 0, time.monotonic()

    async def recv(self) -> AudioFrame:
        await asyncio.sleep(max(0.0, self._start + self._at / RATE - time.monotonic()))
        place = self._at % len(self._sound)
        frame = AudioFrame.from_ndarray(np.repeat(self._sound[place : place + BLOCK], 2)[None], "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, Fraction(1, RATE)
        self._at += BLOCK
        return frame


async def test_audio_of_a_standard_peer_is_decoded() -> None:
    out, count = AudioJitterBuffer(), AudioTraffic()
    ours, theirs = make_connection([]), RTCPeerConnection(RTCConfiguration(iceServers=[]))
    theirs.addTrack(Stereo())
    theirs.createDataChannel("something")
    add_audio(ours, None, out, count)
    await meet(theirs, ours)
    loudest = 0
    while loudest < 2000:
        await asyncio.sleep(0.02)
        loudest = max(loudest, int(np.abs(out.pull(BLOCK, time.monotonic()).astype(int)).max()))
    assert out.counts["malformed"] == 0
    assert count.received.bytes > 1000
    assert count.received.bytes > count.sent.bytes
    await asyncio.gather(ours.close(), theirs.close())


async def test_closing_a_connection_that_never_came_up_removes_its_track() -> None:
    audio_sender = AudioSender()
    connection = make_connection([])
    add_audio(connection, audio_sender, None)
    assert len(audio_sender._tracks) == 1
    await connection.close()
    assert audio_sender._tracks == []


@pytest.mark.parametrize(("speaks", "listens"), [(False, False), (True, False), (False, True)])
async def test_the_direction_follows_from_what_is_used(speaks: bool, listens: bool) -> None:
    connections = [make_connection([]) for _ in range(2)]
    audio_sender = AudioSender()
    add_audio(connections[0], audio_sender, AudioJitterBuffer())
    add_audio(connections[1], audio_sender if speaks else None, AudioJitterBuffer() if listens else None)
    for connection in connections:
        connection.createDataChannel("video", negotiated=True, id=0)
    await meet(*connections)
    expected = {(False, False): "inactive", (True, False): "sendonly", (False, True): "recvonly"}
    assert connections[1].getTransceivers()[0].currentDirection == expected[speaks, listens]
    while any(connection.connectionState != "connected" for connection in connections):
        await asyncio.sleep(0.02)
    await asyncio.gather(*(connection.close() for connection in connections))


@pytest.mark.realtime
async def test_overhead_on_the_wire() -> None:
    """Between two of our own ends: 50 bytes per packet, and few reports."""
    seconds = 6.0
    audio_sender, counts = AudioSender(), (AudioTraffic(), AudioTraffic())
    ends = [make_real_connection([]) for _ in range(2)]
    for end, count in zip(ends, counts, strict=True):
        add_audio(end, audio_sender, AudioJitterBuffer(), count)
        end.createDataChannel("video", negotiated=True, id=0)
    await meet(*ends)
    assert all("extmap" not in end.localDescription.sdp for end in ends)
    while any(end.connectionState != "connected" for end in ends):
        await asyncio.sleep(0.02)
    speaking = asyncio.create_task(talking(audio_sender))
    payload, before, start = audio_sender.bytes, [count.sent.bytes for count in counts], time.monotonic()
    await asyncio.sleep(seconds)
    took, payload = time.monotonic() - start, audio_sender.bytes - payload
    for count, was in zip(counts, before, strict=True):
        kbps = (count.sent.bytes - was) * 8 / 1000 / took
        around = (count.sent.bytes - was - payload) * 8 / 1000 / took
        assert 6.0 < around < 7.5
        assert 10.0 < kbps < 14.0
        assert count.sent.kbps(time.monotonic()) == pytest.approx(kbps, abs=2.0)
        assert count.received.kbps(time.monotonic()) == pytest.approx(kbps, abs=2.0)
    speaking.cancel()
    await asyncio.gather(*(end.close() for end in ends))


async def test_reports_are_throttled_unless_packets_are_lost() -> None:
    sent: list[Any] = []

    async def send(packets: Any) -> None:
        sent.append(packets)

    def report(lost: int) -> RtcpRrPacket:
        return RtcpRrPacket(1, [RtcpReceiverInfo(2, lost, 0, 0, 0, 0, 0)])

    some = throttle_reports(send)
    for _ in range(2 * REPORT_EVERY):
        await some(report(0))
    assert len(sent) == 2
    for lost in (30, 30, 0, 0):
        await some(report(lost))
    assert [packet.reports[0].fraction_lost for packet in sent[2:]] == [30, 30, 0]
    await some([RtcpByePacket([1])])
    assert len(sent) == 6


async def test_an_offer_without_audio_is_accepted() -> None:
    """As from a program that only shows pictures: its data channel opens, and we send no sound."""
    theirs, ours = RTCPeerConnection(RTCConfiguration(iceServers=[])), make_real_connection([])
    channel = theirs.createDataChannel("x", negotiated=True, id=1)
    opened = asyncio.Event()
    channel.on("open", opened.set)
    add_audio(ours, AudioSender(), AudioJitterBuffer())
    ours.createDataChannel("x", negotiated=True, id=1)
    await meet(theirs, ours)
    await opened.wait()
    assert await reported_loss(ours) == 0
    await theirs.close()
    await ours.close()
