"""The sound of a call over real WebRTC: a standard aiortc peer decodes it, and we decode a standard peer's."""

import asyncio
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiortc")
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtcpByePacket, RtcpReceiverInfo, RtcpRrPacket
from av import AudioFrame

from call_double import make_connection
from iwcodec.client.audio import track as audio
from iwcodec.client.audio.jitter_buffer import Playout
from iwcodec.client.audio.opus import OpusDecoder
from iwcodec.client.transport import sctp
from sounds import RATE, voice

PATIENCE_S = 60.0
BLOCK = 960


class Recording:
    """In place of a track: what the microphone sends."""

    def __init__(self, microphone: audio.Microphone) -> None:
        self.sent: list[tuple[bytes, int]] = []
        microphone._tracks.append(self)  # type: ignore[arg-type]

    def put(self, payload: bytes, stamp: int) -> None:
        self.sent.append((payload, stamp))


def speak(microphone: audio.Microphone, sound: np.ndarray, start_s: float = 100.0) -> None:
    for at in range(0, len(sound), BLOCK):
        microphone.push(sound[at : at + BLOCK], start_s + at / RATE)


def test_timestamps_are_those_of_the_first_samples() -> None:
    microphone = audio.Microphone()
    out = Recording(microphone)
    speak(microphone, voice(1.2))
    assert [stamp for _, stamp in out.sent] == [100 * RATE + n * 2880 for n in range(20)]


def test_a_capture_that_stalls_leaves_a_gap_in_the_timestamps() -> None:
    microphone = audio.Microphone()
    out = Recording(microphone)
    speak(microphone, voice(0.6))
    speak(microphone, voice(0.6), start_s=103.0)
    assert [stamp for _, stamp in out.sent][10] == 103 * RATE


def test_mute_is_silence_and_costs_nothing() -> None:
    microphone = audio.Microphone()
    out = Recording(microphone)
    speak(microphone, voice(1.2))
    spoken = len(out.sent)
    microphone.mute(True)
    speak(microphone, voice(6.0), start_s=101.2)
    silent = out.sent[spoken + 5 :]
    assert sum(len(payload) for payload, _ in silent) * 8 / 6.0 < 1500
    decoder = OpusDecoder()
    heard = np.concatenate([decoder.decode(payload) for payload, _ in out.sent])
    assert np.abs(heard[-5 * 2880 :].astype(int)).max() < 200


def test_copies_are_sent_while_a_peer_reports_losses() -> None:
    microphone = audio.Microphone()
    out = Recording(microphone)

    def kbps(seconds: float) -> float:
        before = len(out.sent)
        speak(microphone, voice(seconds), start_s=100.0 + before * 0.06)
        return sum(len(payload) for payload, _ in out.sent[before:]) * 8 / 1000 / seconds

    thin = kbps(3.0)
    microphone.report(0.1)
    assert microphone.robust
    assert kbps(3.0) > thin + 4
    for _ in range(audio.CALM):
        assert microphone.robust
        microphone.report(0.0)
    assert not microphone.robust
    assert kbps(3.0) == pytest.approx(thin, abs=1.5)


def test_a_queue_makes_sound_smaller_not_larger() -> None:
    """What a queue loses is not made up for with more bytes: only what is lost without one."""
    microphone = audio.Microphone()
    asked: list[tuple[int, int]] = []
    adapt = microphone._encoder.adapt
    microphone._encoder.adapt = lambda *how: (asked.append(how), adapt(*how))[1]  # type: ignore[method-assign]
    microphone.report(0.2, queued=True)
    assert (microphone.congested, microphone.robust) == (True, False)
    for _ in range(audio.CALM - 1):
        microphone.report(0.2)  # the queue drains; what it has lost is still being reported
    microphone.report(0.0)
    assert (microphone.congested, microphone.robust) == (False, False)
    microphone.report(0.2)
    assert microphone.robust
    microphone.report(0.2, queued=True)
    assert not microphone.robust
    assert asked == [(audio.THIN, 0), (audio.BITRATE, 0), audio.ROBUST, (audio.THIN, 0)]


async def meet(caller: RTCPeerConnection, callee: RTCPeerConnection) -> None:
    await caller.setLocalDescription(await caller.createOffer())
    offer = caller.localDescription
    await callee.setRemoteDescription(RTCSessionDescription(offer.sdp, offer.type))
    audio.decline_video(callee)
    await callee.setLocalDescription(await callee.createAnswer())
    answer = callee.localDescription
    await caller.setRemoteDescription(RTCSessionDescription(answer.sdp, answer.type))


async def talking(microphone: audio.Microphone) -> None:
    """For ever, in real time."""
    sound, start, at = voice(4.0), time.monotonic(), 0
    while True:
        place = at % len(sound)
        microphone.push(sound[place : place + BLOCK], start + at / RATE)
        at += BLOCK
        await asyncio.sleep(max(0.0, start + at / RATE - time.monotonic()))


def test_a_standard_peer_hears_us() -> None:
    async def scenario() -> None:
        microphone = audio.Microphone()
        ours, theirs = make_connection([]), RTCPeerConnection(RTCConfiguration(iceServers=[]))
        audio.carry_sound(ours, microphone, Playout())
        heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        theirs.on("track", heard.set_result)
        speaking = asyncio.create_task(talking(microphone))
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

    run(scenario())


class Stereo(MediaStreamTrack):
    """What a standard aiortc application sends: frames, which aiortc encodes at 20 ms and 96 kbps in stereo."""

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


def test_we_hear_a_standard_peer() -> None:
    async def scenario() -> None:
        out, count = Playout(), audio.SoundCount()
        ours, theirs = make_connection([]), RTCPeerConnection(RTCConfiguration(iceServers=[]))
        theirs.addTrack(Stereo())
        theirs.createDataChannel("something")
        audio.carry_sound(ours, None, out, count)
        await meet(theirs, ours)
        loudest = 0
        while loudest < 2000:
            await asyncio.sleep(0.02)
            loudest = max(loudest, int(np.abs(out.pull(BLOCK, time.monotonic()).astype(int)).max()))
        assert out.counts["malformed"] == 0
        assert count.received.bytes > 1000
        assert count.received.bytes > count.sent.bytes
        await asyncio.gather(ours.close(), theirs.close())

    run(scenario())


def test_sound_waits_a_moment_for_the_first_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """No longer than HOLD_S from the connection on, and not for a picture that has gone."""
    now = 100.0
    monkeypatch.setattr(audio.time, "monotonic", lambda: now)
    track = audio.Microphone().track()
    waits = True
    track.waits = lambda: waits
    track.put(b"before the connection", 0)
    track.connected_s = now
    track.put(b"with it", 1)
    now += audio.HOLD_S - 0.1
    track.put(b"still early", 2)
    assert track._queue.empty()
    now += 0.2
    track.put(b"long enough", 3)
    assert bytes(track._queue.get_nowait()) == b"long enough"
    now, waits = 100.0, False
    track.put(b"nothing to wait for", 4)
    assert bytes(track._queue.get_nowait()) == b"nothing to wait for"


def test_a_connection_that_never_came_up_is_not_spoken_to() -> None:
    async def scenario() -> None:
        microphone = audio.Microphone()
        connection = make_connection([])
        audio.carry_sound(connection, microphone, None)
        assert len(microphone._tracks) == 1
        await connection.close()
        assert microphone._tracks == []

    run(scenario())


@pytest.mark.parametrize(("speaks", "listens"), [(False, False), (True, False), (False, True)])
def test_what_is_not_wanted_is_declined(speaks: bool, listens: bool) -> None:
    async def scenario() -> None:
        connections = [make_connection([]) for _ in range(2)]
        microphone = audio.Microphone()
        audio.carry_sound(connections[0], microphone, Playout())
        audio.carry_sound(connections[1], microphone if speaks else None, Playout() if listens else None)
        for connection in connections:
            connection.createDataChannel("video", negotiated=True, id=0)
        await meet(*connections)
        wanted = {(False, False): "inactive", (True, False): "sendonly", (False, True): "recvonly"}
        assert connections[1].getTransceivers()[0].currentDirection == wanted[speaks, listens]
        while any(connection.connectionState != "connected" for connection in connections):
            await asyncio.sleep(0.02)
        await asyncio.gather(*(connection.close() for connection in connections))

    run(scenario())


def test_what_sound_costs_on_the_wire() -> None:
    """Both ends ours: 50 bytes around a packet, and a report now and then."""
    seconds = 6.0

    async def scenario() -> None:
        microphone, counts = audio.Microphone(), (audio.SoundCount(), audio.SoundCount())
        ends = [sctp.make_connection([]) for _ in range(2)]
        for end, count in zip(ends, counts, strict=True):
            audio.carry_sound(end, microphone, Playout(), count)
            end.createDataChannel("video", negotiated=True, id=0)
        await meet(*ends)
        assert all("extmap" not in end.localDescription.sdp for end in ends)
        while any(end.connectionState != "connected" for end in ends):
            await asyncio.sleep(0.02)
        speaking = asyncio.create_task(talking(microphone))
        payload, before, start = microphone.bytes, [count.sent.bytes for count in counts], time.monotonic()
        await asyncio.sleep(seconds)
        took, payload = time.monotonic() - start, microphone.bytes - payload
        for count, was in zip(counts, before, strict=True):
            kbps = (count.sent.bytes - was) * 8 / 1000 / took
            around = (count.sent.bytes - was - payload) * 8 / 1000 / took
            assert 6.0 < around < 7.5
            assert 10.0 < kbps < 14.0
            assert count.sent.kbps(time.monotonic()) == pytest.approx(kbps, abs=2.0)
            assert count.received.kbps(time.monotonic()) == pytest.approx(kbps, abs=2.0)
        speaking.cancel()
        await asyncio.gather(*(end.close() for end in ends))

    run(scenario())


def test_reports_are_seldom_unless_something_is_lost() -> None:
    sent: list[Any] = []

    async def send(packets: Any) -> None:
        sent.append(packets)

    def report(lost: int) -> RtcpRrPacket:
        return RtcpRrPacket(1, [RtcpReceiverInfo(2, lost, 0, 0, 0, 0, 0)])

    async def scenario() -> None:
        some = audio.seldom(send)
        for _ in range(2 * audio.REPORT_EVERY):
            await some(report(0))
        assert len(sent) == 2
        for lost in (30, 30, 0, 0):
            await some(report(lost))
        assert [packet.reports[0].fraction_lost for packet in sent[2:]] == [30, 30, 0]
        await some([RtcpByePacket([1])])
        assert len(sent) == 6

    run(scenario())


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))
