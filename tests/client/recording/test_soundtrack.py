"""Recordings with sound: flashes of the picture and clicks of the sound that happened together are together in the
file, whatever the way did to them."""

import asyncio
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiortc")

from iwcodec.benchmarks.call import simulation
from iwcodec.benchmarks.call.simulation import AtOnce, connection_pair, simulate
from iwcodec.client.audio.jitter_buffer import Playout, Received
from iwcodec.client.audio.opus import OpusEncoder
from iwcodec.client.audio.track import Microphone
from iwcodec.client.recording.recorder import CallRecorder, Recorder
from iwcodec.client.recording.soundtrack import HOLD_S, PRE_SKIP, SLACK, Quickest, Soundtrack
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.client.video.link import Link
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.bitstream.packets import AudioPacket, SourcePacket
from iwcodec.codec.file.decode import decode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.audio import read_samples
from iwcodec.codec.media.video import probe, read_video
from iwcodec.codec.sources.av1 import SourceEncoder
from sounds import RATE
from stub_runtime import NearestSourceFit, StubRuntime, picture
from told_links import Told

BLOCK = 960
COUNT = 2880
FPS, EVERY, LONG = 24.7, 27, 5
"""A flash of 5 frames in every 27: at any place of a packet and of the recording's grid."""
FLASH_S, PERIOD_S = (EVERY - LONG - 0.5) / FPS, EVERY / FPS
"""When the first one begins, halfway between a dark frame and a bright one; and how often."""
CLICK_S = 0.06
DARK, BRIGHT = 60, 190
START_S = 1000.0
"""Of the simulated clock."""
LASTS_S = 13.3
"""A call: its end is not between a click that has come and its flash, which comes later."""


class Speaking:
    """A microphone that clicks when the picture begins to flash, and its packets' way to a playout, in RTP."""

    def __init__(self, out: Playout, way: simulation.Path) -> None:
        self.microphone = Microphone()
        self.silent: Callable[[float], bool] = lambda at_s: False
        self._out, self._way = out, way
        self._sequence = 65_000
        self.microphone._tracks.append(self)  # type: ignore[arg-type]

    def put(self, payload: bytes, stamp: int) -> None:
        self._sequence += 1
        sequence, timestamp = self._sequence % 2**16, (stamp + 2**32 - 1003 * RATE) % 2**32
        self._way.send(len(payload) + 50, lambda: self._out.push(7, sequence, timestamp, payload, now()))

    async def speak(self) -> None:
        rng = np.random.default_rng(1)
        for n in range(1 << 30):
            taken = START_S + n * BLOCK / RATE
            await asyncio.sleep(max(0.0, taken + BLOCK / RATE - now()))
            times = taken + np.arange(BLOCK) / RATE
            since = (times - START_S - FLASH_S) % PERIOD_S
            loud = np.where(since < CLICK_S, 9000 * np.sin(2 * np.pi * 700 * since), 0)
            self.microphone.mute(self.silent(taken))
            self.microphone.push((loud + rng.normal(0, 15, BLOCK)).astype(np.int16), taken)


def now() -> float:
    return asyncio.get_running_loop().time()


def recorded(
    path: Path,
    seconds: float,
    way: dict[str, float],
    prepare: Callable[[VideoSender, Speaking], None] = lambda f, s: None,
) -> None:
    """A call, recorded by the second end, whose frames are those of a camera at 24.7 frames/s."""

    async def work() -> None:
        connections = connection_pair(simulation.Path(**way), simulation.Path(delay_s=0.02))  # type: ignore[arg-type]
        runtime = StubRuntime()
        feeds = [VideoSender(runtime, AtOnce(), lambda p: True, NearestSourceFit()) for _ in connections]
        links = [Link(c, f, runtime, AtOnce()) for c, f in zip(connections, feeds, strict=True)]
        call, playout = Told(), Playout()
        recorder = Recorder(path, runtime.info)
        CallRecorder(call, recorder)  # type: ignore[arg-type]
        call.linked[0](Someone(playout), links[1])
        speaking = Speaking(playout, simulation.Path(**way, seed=5))  # type: ignore[arg-type]
        prepare(feeds[0], speaking)
        tasks = [asyncio.create_task(speaking.speak()), asyncio.create_task(film(feeds[0]))]
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


class Someone:
    name = "Ada"

    def __init__(self, playout: Playout) -> None:
        self.playout = playout


async def film(feed: VideoSender) -> None:
    for n in range(1 << 30):
        taken = START_S + n / FPS
        await asyncio.sleep(max(0.0, taken - now()))
        await feed.push(picture(BRIGHT if n % EVERY >= EVERY - LONG else DARK), taken)


def flashes_and_clicks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """When each begins, in seconds, in a video file; linear between its frames."""
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


def apart_ms(path: Path) -> np.ndarray:
    """Of every click in a decoded recording, by how much it comes after the nearest flash."""
    flashes, clicks = flashes_and_clicks(path)
    return np.array([1000 * (click - flashes[np.abs(flashes - click).argmin()]) for click in clicks])


@pytest.mark.parametrize(
    "way",
    [
        {"delay_s": 0.03},
        {"delay_s": 0.15, "jitter_s": 0.06},
        {"kbps": 40.0, "delay_s": 0.05},
    ],
    ids=["quick", "jitter", "narrow"],
)
def test_clicks_are_where_the_flashes_are(tmp_path: Path, way: dict[str, float]) -> None:
    recorded(tmp_path / "call.iwc", LASTS_S, way)
    decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    apart = apart_ms(tmp_path / "call.mkv")
    assert len(apart) >= 8
    assert np.abs(apart).max() < 40


def test_what_is_lost_moves_nothing(tmp_path: Path) -> None:
    """Single clicks are cut by losses, and flashes blurred where frames are lost: most are as they were."""
    recorded(tmp_path / "call.iwc", 13.0, {"delay_s": 0.05, "loss": 0.1})
    decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    apart = apart_ms(tmp_path / "call.mkv")
    assert len(apart) >= 8
    assert np.percentile(np.abs(apart), 75) < 40


def test_while_muted_there_is_silence_and_what_follows_is_in_its_place(tmp_path: Path) -> None:
    def prepare(feed: VideoSender, speaking: Speaking) -> None:
        speaking.silent = lambda at_s: 5 < at_s - START_S < 9

    recorded(tmp_path / "call.iwc", LASTS_S, {"delay_s": 0.03}, prepare)
    with IwcFile(tmp_path / "call.iwc", StubRuntime()) as file:
        held = sum(len(p.packets) for p in file.reader.records() if isinstance(p, AudioPacket))
    assert held < 12.0 / 0.06 - 40
    decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    flashes, clicks = flashes_and_clicks(tmp_path / "call.mkv")
    assert len(flashes) - len(clicks) in (3, 4)
    assert np.abs(apart_ms(tmp_path / "call.mkv")).max() < 40


def test_sound_goes_on_where_the_camera_is_off(tmp_path: Path) -> None:
    """While it is, the last picture stays, to the end of the sound."""

    def prepare(feed: VideoSender, speaking: Speaking) -> None:
        asyncio.get_running_loop().call_later(8.0, feed.pause, True)

    recorded(tmp_path / "call.iwc", 14.0, {"delay_s": 0.03}, prepare)
    report = decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    flashes, clicks = flashes_and_clicks(tmp_path / "call.mkv")
    assert report.duration_s == pytest.approx(13.7, abs=0.3)
    assert len(clicks) >= len(flashes) + 5
    assert np.diff(clicks) == pytest.approx(PERIOD_S, abs=0.01)


def test_a_recording_that_was_cut_plays_with_its_sound(tmp_path: Path) -> None:
    recorded(tmp_path / "call.iwc", 13.0, {"delay_s": 0.03})
    data = (tmp_path / "call.iwc").read_bytes()
    (tmp_path / "cut.iwc").write_bytes(data[: len(data) * 2 // 3])
    report = decode(tmp_path / "cut.iwc", tmp_path / "cut.mkv", runtime=StubRuntime())
    assert report.truncated
    assert report.damage == []
    apart = apart_ms(tmp_path / "cut.mkv")
    assert len(apart) >= 5
    assert np.abs(apart).max() < 40


def test_a_recording_without_sound_is_silent(tmp_path: Path) -> None:
    def prepare(feed: VideoSender, speaking: Speaking) -> None:
        speaking.microphone._tracks.clear()

    recorded(tmp_path / "call.iwc", 5.0, {"delay_s": 0.03}, prepare)
    decode(tmp_path / "call.iwc", tmp_path / "call.mkv", runtime=StubRuntime())
    info = probe(tmp_path / "call.mkv")
    assert info.audio is not None
    assert not np.concatenate(list(read_samples(tmp_path / "call.mkv"))).any()


# ------------------------------------------------------------------------------- the soundtrack by itself


def packets(starts: list[int], stream: int = 1, samples: int = COUNT, late_s: float = 0.04) -> list[Received]:
    """With timestamps, each arriving `late_s` after its end."""
    return [
        Received(stream, at, samples, bytes([n + 1]), (at + samples) / RATE + late_s) for n, at in enumerate(starts)
    ]


def placed(track: Soundtrack, sound: list[Received], start_s: float | None = 0.0) -> list[tuple[int, int]]:
    """(first sample, packets) of the records."""
    records = [record for packet in sound for record in track.push(packet, start_s)]
    return [(record.first, len(record.packets)) for record in records + track.rest(start_s)]


def pictured(delay_s: float = 0.04) -> Soundtrack:
    track = Soundtrack()
    track.motion([TimedFrame(0, 0.0, np.zeros((2, 3), np.float32))], delay_s)
    return track


def test_records_of_a_second() -> None:
    assert placed(pictured(), packets([n * COUNT for n in range(40)])) == [(0, 17), (17 * COUNT, 17), (34 * COUNT, 6)]


def test_gaps_stay_to_the_sample() -> None:
    starts = [0, COUNT, 5 * COUNT + 777, 6 * COUNT + 777]
    assert placed(pictured(), packets(starts)) == [(0, 2), (5 * COUNT + 777, 2)]


def test_packets_in_another_order_and_twice() -> None:
    sound = packets([n * COUNT for n in range(6)])
    assert placed(pictured(), [sound[n] for n in (0, 2, 1, 1, 3, 5, 4)]) == [(0, 6)]


def test_a_little_off_goes_on_and_more_is_moved() -> None:
    track = pictured()
    assert placed(track, packets([0, COUNT - SLACK + 1, 2 * COUNT])) == [(0, 3)]
    assert placed(pictured(), packets([0, COUNT + SLACK + 1])) == [(0, 1), (COUNT + SLACK + 1, 1)]
    assert placed(pictured(), packets([0, COUNT // 2, 2 * COUNT])) == [(0, 1), (2 * COUNT, 1)]  # one overlaps


def test_the_quickest_packet_tells_the_place_of_those_that_are_held() -> None:
    """The first ones queued for 0.3 s; one that came soon after did not."""
    sound = packets([n * COUNT for n in range(10)], late_s=0.34)
    quick = packets([10 * COUNT], late_s=0.04)
    assert quick[0].arrived_s < sound[0].arrived_s + HOLD_S
    assert placed(pictured(), sound + quick) == [(0, 11)]


def test_before_the_first_frame_nothing_is_kept() -> None:
    assert placed(pictured(), packets([0, COUNT, 2 * COUNT]), start_s=COUNT / RATE) == [(0, 2)]
    assert placed(pictured(), packets([0, COUNT]), start_s=None) == []


def test_another_connection_has_other_timestamps() -> None:
    anew = [Received(2, 10**9 + n * COUNT, COUNT, b"x", (5 * COUNT + (n + 1) * COUNT) / RATE + 0.04) for n in range(3)]
    assert placed(pictured(), packets([0, COUNT]) + anew) == [(0, 2), (5 * COUNT, 3)]


def test_the_quickest_is_forgotten() -> None:
    quickest = Quickest()
    assert quickest.transit_s is None
    for arrived, transit in ((0.0, 0.1), (5.0, 0.3), (6.0, 0.2)):
        quickest.learn(arrived, transit)
    assert quickest.transit_s == 0.1
    quickest.learn(12.5, 0.4)
    assert quickest.transit_s == 0.2


def test_packets_of_any_length_are_decoded_in_their_places(tmp_path: Path) -> None:
    """20 ms packets of another sender, with a gap that is no multiple of anything."""
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
        recorder.sound(Received(1, at, BLOCK, payload, arrived))
    assert recorder.close()
    with IwcFile(tmp_path / "call.iwc", StubRuntime()) as file:
        assert file.header.audio is not None
        assert file.header.audio.pre_skip == PRE_SKIP
        assert file.header.fps == Fraction(25)
        heard = np.concatenate(list(file.samples())).astype(float)
        assert file.damage == []
    loud = np.flatnonzero(np.abs(heard) > 2000)
    begins = loud[np.diff(loud, prepend=-RATE) > 4800]
    assert begins == pytest.approx([10 * BLOCK, 62 * BLOCK + 333], abs=240)
