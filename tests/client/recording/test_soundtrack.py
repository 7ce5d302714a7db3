"""Recordings with audio: flashes and clicks that were captured together stay together, whatever the network does."""

import asyncio
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from iwcodec.benchmarks.call.simulation import ImmediateExecutor, SimulatedPath, connection_pair, simulate
from iwcodec.client.audio.jitter_buffer import AudioJitterBuffer, AudioRtpPacket
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.link.link import Link
from iwcodec.client.recording.recorder import CallRecorder, Recorder
from iwcodec.client.recording.soundtrack import HOLD_S, PRE_SKIP, TOLERANCE, ShortestTransit, Soundtrack
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.bitstream.packets import AudioPacket, SourcePacket
from iwcodec.codec.file.decode import decode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.audio.opus import OpusEncoder
from iwcodec.codec.media.audio.samples import read_samples
from iwcodec.codec.media.video import probe, read_video
from iwcodec.codec.sources.av1 import SourceEncoder
from support.calls.fake_call import RecordedCall
from support.codec.stub_runtime import NearestSourceFit, StubRuntime, picture
from support.media.sounds import RATE

BLOCK = 960
COUNT = 2880
FPS, PERIOD_FRAMES, FLASH_FRAMES = 24.7, 27, 5
"""A flash of 5 frames in every 27, which falls at varying positions within packets and output frames."""
FLASH_S, PERIOD_S = (PERIOD_FRAMES - FLASH_FRAMES - 0.5) / FPS, PERIOD_FRAMES / FPS
"""Start of the first flash, halfway between a dark and a bright frame, and the period."""
CLICK_S = 0.06
DARK, BRIGHT = 60, 190
START_S = 1000.0
"""Start of the simulated clock."""
DURATION_S = 13.3
"""Duration of the call, which does not end between the arrivals of a click and its flash."""


class ClickingMicrophone:
    """A microphone that clicks at the start of each flash, and the path of its RTP packets to a jitter buffer."""

    def __init__(self, out: AudioJitterBuffer, network: SimulatedPath) -> None:
        self.audio_sender = AudioSender()
        self.silent: Callable[[float], bool] = lambda at_s: False
        self._out, self._network = out, network
        self._sequence = 65_000
        self.audio_sender._tracks.append(self)

    def put(self, payload: bytes, timestamp_samples: int) -> None:
        self._sequence += 1
        sequence, timestamp = self._sequence % 2**16, (timestamp_samples + 2**32 - 1003 * RATE) % 2**32
        self._network.send(len(payload) + 50, lambda: self._out.push(7, sequence, timestamp, payload, now()))

    async def send_audio(self) -> None:
        rng = np.random.default_rng(1)
        for n in range(1 << 30):
            captured_s = START_S + n * BLOCK / RATE
            await asyncio.sleep(max(0.0, captured_s + BLOCK / RATE - now()))
            times = captured_s + np.arange(BLOCK) / RATE
            since = (times - START_S - FLASH_S) % PERIOD_S
            loud = np.where(since < CLICK_S, 9000 * np.sin(2 * np.pi * 700 * since), 0)
            self.audio_sender.mute(self.silent(captured_s))
            self.audio_sender.push((loud + rng.normal(0, 15, BLOCK)).astype(np.int16), captured_s)


def now() -> float:
    return asyncio.get_running_loop().time()


def recorded(
    path: Path,
    seconds: float,
    network: dict[str, float],
    prepare: Callable[[VideoSender, ClickingMicrophone], None] = lambda f, s: None,
) -> None:
    """Record a simulated call at its second end; the camera runs at 24.7 frames/s."""

    async def work() -> None:
        connections = connection_pair(SimulatedPath(**network), SimulatedPath(delay_s=0.02))
        runtime = StubRuntime()
        video_senders = [
            VideoSender(runtime, ImmediateExecutor(), lambda p: True, NearestSourceFit()) for _ in connections
        ]
        links = [Link(c, f, runtime, ImmediateExecutor()) for c, f in zip(connections, video_senders, strict=True)]
        call, audio_buffer = RecordedCall(), AudioJitterBuffer()
        recorder = Recorder(path, runtime.info)
        CallRecorder(call, lambda name: recorder)
        call.link_listeners[0](ParticipantDouble(audio_buffer), links[1])
        microphone = ClickingMicrophone(audio_buffer, SimulatedPath(**network, seed=5))
        prepare(video_senders[0], microphone)
        tasks = [asyncio.create_task(microphone.send_audio()), asyncio.create_task(send_pictures(video_senders[0]))]
        for connection in connections:
            await connection.start()
        await asyncio.sleep(seconds)
        assert recorder.close()
        for task in tasks:
            task.cancel()
        for link, connection in zip(links, connections, strict=True):
            await link.close()
            await connection.close()

    simulate(work())


class ParticipantDouble:
    name = "Ada"

    def __init__(self, audio_buffer: AudioJitterBuffer) -> None:
        self.audio_buffer = audio_buffer


async def send_pictures(video_sender: VideoSender) -> None:
    for n in range(1 << 30):
        captured_s = START_S + n / FPS
        await asyncio.sleep(max(0.0, captured_s - now()))
        await video_sender.push(
            picture(BRIGHT if n % PERIOD_FRAMES >= PERIOD_FRAMES - FLASH_FRAMES else DARK), captured_s
        )


def flashes_and_clicks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Start times in a video file, in seconds; those of flashes are interpolated between frames."""
    frames = [(frame.time_s, frame.picture.mean()) for frame in read_video(path)]
    times, levels = np.array(frames).T
    above = levels - (DARK + BRIGHT) / 2
    begin = np.flatnonzero((above[:-1] < 0) & (above[1:] >= 0))
    share = -above[begin] / (above[begin + 1] - above[begin])
    flashes = times[begin] + share * (times[begin + 1] - times[begin])
    sound = np.concatenate(list(read_samples(path))).astype(np.float64)
    loud = np.flatnonzero(np.abs(sound) > 1500) / RATE
    clicks = loud[np.diff(loud, prepend=-1) > 0.3]
    return flashes, clicks


def click_delays_ms(path: Path) -> np.ndarray:
    """For every click in a decoded recording, its delay after the nearest flash."""
    flashes, clicks = flashes_and_clicks(path)
    return np.array([1000 * (click - flashes[np.abs(flashes - click).argmin()]) for click in clicks])


@pytest.mark.parametrize(
    "network", [{"delay_s": 0.15, "jitter_s": 0.06}, {"kbps": 40.0, "delay_s": 0.05}], ids=["jitter", "narrow"]
)
def test_clicks_and_flashes_coincide(tmp_path: Path, network: dict[str, float]) -> None:
    recorded(tmp_path / "call.iwc", DURATION_S, network)
    decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    clicks_after_ms = click_delays_ms(tmp_path / "call.mkv")
    assert len(clicks_after_ms) >= 8
    assert np.abs(clicks_after_ms).max() < 40


def test_losses_do_not_shift_the_audio(tmp_path: Path) -> None:
    """Losses cut some clicks and blur some flashes; most are unaffected."""
    recorded(tmp_path / "call.iwc", 13.0, {"delay_s": 0.05, "loss": 0.1})
    decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    clicks_after_ms = click_delays_ms(tmp_path / "call.mkv")
    assert len(clicks_after_ms) >= 8
    assert np.percentile(np.abs(clicks_after_ms), 75) < 40


def test_muting_leaves_a_gap_and_shifts_nothing(tmp_path: Path) -> None:
    def prepare(video_sender: VideoSender, microphone: ClickingMicrophone) -> None:
        microphone.silent = lambda at_s: 5 < at_s - START_S < 9

    recorded(tmp_path / "call.iwc", DURATION_S, {"delay_s": 0.03}, prepare)
    with IwcFile(tmp_path / "call.iwc", StubRuntime()) as file:
        held = sum(len(p.packets) for p in file.reader.records() if isinstance(p, AudioPacket))
    assert held < 12.0 / 0.06 - 40
    decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    flashes, clicks = flashes_and_clicks(tmp_path / "call.mkv")
    assert len(flashes) - len(clicks) in (3, 4)
    assert np.abs(click_delays_ms(tmp_path / "call.mkv")).max() < 40


def test_audio_continues_while_the_camera_is_off(tmp_path: Path) -> None:
    """The last picture is held to the end of the audio."""

    def prepare(video_sender: VideoSender, microphone: ClickingMicrophone) -> None:
        asyncio.get_running_loop().call_later(8.0, video_sender.pause, True)

    recorded(tmp_path / "call.iwc", 14.0, {"delay_s": 0.03}, prepare)
    report = decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    flashes, clicks = flashes_and_clicks(tmp_path / "call.mkv")
    assert report.duration_s == pytest.approx(13.7, abs=0.3)
    assert len(clicks) >= len(flashes) + 5
    assert np.diff(clicks) == pytest.approx(PERIOD_S, abs=0.01)


def test_a_truncated_recording_plays_with_its_audio(tmp_path: Path) -> None:
    recorded(tmp_path / "call.iwc", 13.0, {"delay_s": 0.03})
    data = (tmp_path / "call.iwc").read_bytes()
    (tmp_path / "cut.iwc").write_bytes(data[: len(data) * 2 // 3])
    report = decode(tmp_path / "cut.iwc", tmp_path / "cut.mkv", runtime=StubRuntime())
    assert report.truncated
    assert report.damage == []
    clicks_after_ms = click_delays_ms(tmp_path / "cut.mkv")
    assert len(clicks_after_ms) >= 5
    assert np.abs(clicks_after_ms).max() < 40


def test_a_recording_without_audio_packets_is_silent(tmp_path: Path) -> None:
    def prepare(video_sender: VideoSender, microphone: ClickingMicrophone) -> None:
        microphone.audio_sender._tracks.clear()

    recorded(tmp_path / "call.iwc", 5.0, {"delay_s": 0.03}, prepare)
    decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    info = probe(tmp_path / "call.mkv")
    assert info.audio is not None
    assert not np.concatenate(list(read_samples(tmp_path / "call.mkv"))).any()


# Soundtrack alone


def packets(starts: list[int], stream: int = 1, samples: int = COUNT, late_s: float = 0.04) -> list[AudioRtpPacket]:
    """Packets with these timestamps, each arriving `late_s` after its end."""
    return [
        AudioRtpPacket(stream, at, samples, bytes([n + 1]), (at + samples) / RATE + late_s)
        for n, at in enumerate(starts)
    ]


def placed(track: Soundtrack, sound: list[AudioRtpPacket], start_s: float | None = 0.0) -> list[tuple[int, int]]:
    """(first sample, number of packets) of each record."""
    records = [record for packet in sound for record in track.push(packet, start_s)]
    return [(record.first, len(record.packets)) for record in records + track.flush(start_s)]


def pictured(delay_s: float = 0.04) -> Soundtrack:
    track = Soundtrack()
    track.motion([TimedFrame(0, 0.0, np.zeros((2, 3), np.float32))], delay_s)
    return track


def test_records_last_one_second() -> None:
    assert placed(pictured(), packets([n * COUNT for n in range(40)])) == [(0, 17), (17 * COUNT, 17), (34 * COUNT, 6)]


def test_gaps_are_kept_to_the_sample() -> None:
    starts = [0, COUNT, 5 * COUNT + 777, 6 * COUNT + 777]
    assert placed(pictured(), packets(starts)) == [(0, 2), (5 * COUNT + 777, 2)]


def test_reordered_and_duplicate_packets() -> None:
    sound = packets([n * COUNT for n in range(6)])
    assert placed(pictured(), [sound[n] for n in (0, 2, 1, 1, 3, 5, 4)]) == [(0, 6)]


def test_small_offsets_are_joined_and_large_ones_kept() -> None:
    track = pictured()
    assert placed(track, packets([0, COUNT - TOLERANCE + 1, 2 * COUNT])) == [(0, 3)]
    assert placed(pictured(), packets([0, COUNT + TOLERANCE + 1])) == [(0, 1), (COUNT + TOLERANCE + 1, 1)]
    assert placed(pictured(), packets([0, COUNT // 2, 2 * COUNT])) == [(0, 1), (2 * COUNT, 1)]  # one overlaps


def test_the_fastest_packet_determines_the_place_of_held_ones() -> None:
    """The first packets queued for 0.3 s; one that arrived soon after did not."""
    sound = packets([n * COUNT for n in range(10)], late_s=0.34)
    quick = packets([10 * COUNT], late_s=0.04)
    assert quick[0].arrived_s < sound[0].arrived_s + HOLD_S
    assert placed(pictured(), sound + quick) == [(0, 11)]


def test_packets_before_the_first_frame_are_dropped() -> None:
    assert placed(pictured(), packets([0, COUNT, 2 * COUNT]), start_s=COUNT / RATE) == [(0, 2)]
    assert placed(pictured(), packets([0, COUNT]), start_s=None) == []


def test_a_new_stream_continues_after_the_old_one() -> None:
    restarted = [
        AudioRtpPacket(2, 10**9 + n * COUNT, COUNT, b"x", (5 * COUNT + (n + 1) * COUNT) / RATE + 0.04) for n in range(3)
    ]
    assert placed(pictured(), packets([0, COUNT]) + restarted) == [(0, 2), (5 * COUNT, 3)]


def test_the_shortest_transit_expires() -> None:
    shortest = ShortestTransit()
    assert shortest.transit_s is None
    for arrived, transit in ((0.0, 0.1), (5.0, 0.3), (6.0, 0.2)):
        shortest.add(arrived, transit)
    assert shortest.transit_s == 0.1
    shortest.add(12.5, 0.4)
    assert shortest.transit_s == 0.2


def test_packets_of_other_lengths_are_decoded_in_place(tmp_path: Path) -> None:
    """20 ms packets of another sender, with a gap of an odd number of samples."""
    encoder, recorder = OpusEncoder(24_000, 20), Recorder(tmp_path / "call.iwc", StubRuntime.info)
    click = np.zeros(BLOCK, np.int16)
    click[:480] = (12_000 * np.sin(np.arange(480) / 8)).astype(np.int16)
    still = np.zeros(BLOCK, np.int16)
    recorder.source(SourcePacket(0, SourceEncoder(64, 55, 10).add(picture(DARK))))
    keypoints = StubRuntime().detect(picture(DARK))
    recorder.motion([TimedFrame(n, n / 25, keypoints) for n in range(75)], 3.04)
    starts = [*range(0, 25 * BLOCK, BLOCK), *range(60 * BLOCK + 333, 70 * BLOCK, BLOCK)]
    for n, at in enumerate(starts):
        payload = encoder.encode(click if n in (10, 27) else still)
        arrived = (at + BLOCK) / RATE + 0.08
        recorder.audio(AudioRtpPacket(1, at, BLOCK, payload, arrived))
    assert recorder.close()
    with IwcFile(tmp_path / "call.iwc", StubRuntime()) as file:
        assert file.header.audio.pre_skip == PRE_SKIP
        assert file.header.fps == Fraction(25)
        decoded = np.concatenate(list(file.samples())).astype(float)
        assert file.damage == []
    loud = np.flatnonzero(np.abs(decoded) > 2000)
    begins = loud[np.diff(loud, prepend=-RATE) > 4800]
    assert begins == pytest.approx([10 * BLOCK, 62 * BLOCK + 333], abs=240)
