"""The video sender with recording links, on a simulated clock."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.call.simulation import ImmediateExecutor
from iwcodec.client.video.source_sequence import SourceSequence
from iwcodec.client.video.video_sender import (
    CHECKS_LOST,
    FACE_CHECK_S,
    JUDGED_SHARE,
    LATE_S,
    MAX_BACKLOG,
    MAX_SHARED_UNITS,
    OutgoingFrame,
    VideoSender,
)
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.fit.keypoint_fit import CORRECTION_DECAY
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.av1 import SourceDecoder
from iwcodec.models.runtime.types import Keypoints, Source
from support.codec.expressions import FaceFit, FaceRuntime, expression, home_source
from support.codec.stub_runtime import SIZE, NearestSourceFit, StubRuntime, picture

pytestmark = pytest.mark.simulated


class RecordingLink:
    """A subscriber that keeps the frames it gets."""

    def __init__(self, sequence: SourceSequence | None = None) -> None:
        self.sequence = sequence
        self.frames: list[OutgoingFrame] = []
        self.status_changes = 0
        self.behind = 0
        self.has_picture = False
        self.is_reached = True
        self.received = 1000
        """Number of units that the peer has."""

    def take(self, frame: OutgoingFrame) -> None:
        self.frames.append(frame)

    def status_changed(self) -> None:
        self.status_changes += 1

    def backlog(self) -> int:
        return self.behind

    def slot(self, number: int) -> int | None:
        index = None if self.sequence is None else self.sequence.numbers.get(number)
        return None if index is None or index >= self.received else index


def make_sender(has_face: Callable[[Any], bool] = lambda p: True) -> VideoSender:
    return VideoSender(StubRuntime(), ImmediateExecutor(), has_face, NearestSourceFit())


async def film(sender: VideoSender, seconds: float, level: Callable[[float], float] = lambda at: 128) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(round(25 * seconds)):
        await sender.push(picture(level(loop.time())), loop.time())
        await asyncio.sleep(0.04)


def swinging(at: float) -> float:
    return 128 + 100 * float(np.sin(at))


def decoded(sequence: SourceSequence) -> int:
    """Decode a sequence from its start; returns the number of units."""
    decoder = SourceDecoder(SIZE)
    for index in range(sequence.next):
        decoder.add(SourcePacket.from_bytes(sequence.units[index].packet).payload)
    return sequence.next


async def test_every_link_gets_every_frame() -> None:
    sender = make_sender()
    links = [RecordingLink(), RecordingLink()]
    for link in links:
        sender.join(link)
    await film(sender, 1)
    assert [len(link.frames) for link in links] == [25, 25]
    stamps = [frame.stamp_ms for frame in links[0].frames]
    assert np.diff(stamps) == pytest.approx(40, abs=1)
    sender.leave(links[0])
    await film(sender, 1)
    assert [len(link.frames) for link in links] == [25, 50]


async def test_newest_frame_replaces_waiting_ones() -> None:
    """Frames that arrive during keypoint detection replace each other."""
    sender = make_sender()
    link = RecordingLink()
    sender.join(link)
    now = asyncio.get_running_loop().time()
    for n in range(10):
        await sender.push(picture(10 * n), now + n)
    await asyncio.sleep(0.1)
    assert sender.dropped == 9
    assert [frame.keypoints[0, 0] for frame in link.frames] == pytest.approx([90 / 127.5 - 1], abs=0.02)


class Textured(StubRuntime):
    """Detects all keypoints in the middle; every cell moves with the first one."""

    def detect(self, picture: Any) -> Keypoints:
        return np.full((20, 3), (0, 0, 0.5), np.float32)

    def prepare(self, picture: Any) -> Source:
        basis = np.zeros((256, 60), np.float32)
        basis[:, 0] = 1
        return Source(picture, self.detect(picture), None, np.full((256, 21), 1 / 21, np.float32), basis)


TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8), (0, 0), 3)


def shifted(pixels: int) -> Any:
    return np.roll(cv2.normalize(TEXTURE, None, 0, 255, cv2.NORM_MINMAX), pixels, axis=1)


async def test_keypoints_are_fitted_unless_frames_are_late() -> None:
    sender, link, loop = (
        VideoSender(Textured(), ImmediateExecutor(), lambda p: True),
        RecordingLink(),
        asyncio.get_running_loop(),
    )
    sender.join(link)
    for pixels, late_s in ((0, 0.0), (4, 0.0), (4, LATE_S + 0.01)):
        await sender.push(shifted(pixels), loop.time() - late_s)
        await asyncio.sleep(1)
    unmoved, fitted, late = (float(frame.keypoints[0, 0]) for frame in link.frames)
    assert unmoved == 0
    assert fitted == pytest.approx(4 * 2 / SIZE, abs=0.01)
    assert late == pytest.approx(CORRECTION_DECAY * fitted, abs=1e-4)
    assert sender.unfitted == 1


class SlowExecutor(Executor):
    """Takes 0.1 s of the simulated clock for any work."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        asyncio.get_running_loop().call_later(0.1, lambda: future.set_result(fn(*args, **kwargs)))
        return future


async def test_a_slow_machine_sends_fewer_frames_but_fits_them_and_judges_seldom() -> None:
    sender, link = VideoSender(Textured(), SlowExecutor(), lambda p: True), RecordingLink()
    sender.join(link)
    judged, rebuild = [], sender._policy.rebuild

    def counted(*args: Any) -> Any:
        judged.append(asyncio.get_running_loop().time())
        return rebuild(*args)

    sender._policy.rebuild = counted
    await film(sender, 6, swinging)
    assert sender.unfitted == 0
    assert sender.dropped > 60
    assert len(link.frames) > 30
    assert np.diff(judged).min() > 0.1 / JUDGED_SHARE
    assert len(judged) > 4


@pytest.mark.parametrize("bad", [np.zeros((64, 48, 3), np.uint8), np.zeros((64, 64, 3), np.float32)])
async def test_frame_of_another_shape_is_refused(bad: Any) -> None:
    sender = make_sender()
    with pytest.raises(ValueError, match="must be uint8"):
        await sender.push(bad, 1.0)


async def test_one_slow_link_does_not_stop_new_sources() -> None:
    """The slow link omits them; no source is coded only if all links are behind."""
    sender = make_sender()
    quick, slow = RecordingLink(), RecordingLink()
    for link in (quick, slow):
        sender.join(link)
    await film(sender, 1)
    quick.sequence, slow.sequence = sender._sequence, await sender.sequence_for_newcomer(small=True)
    if slow.sequence is quick.sequence:
        for _ in range(MAX_SHARED_UNITS):
            await sender._add_source(picture(20), 0.0)
        slow.sequence = await sender.sequence_for_newcomer(small=True)
    assert slow.sequence.small
    assert slow.sequence.next == 1
    quick.has_picture = slow.has_picture = True
    slow.behind = MAX_BACKLOG + 1
    before = quick.sequence.next
    await film(sender, 8, swinging)
    assert quick.sequence.next > before + 1
    assert slow.sequence.next == 1
    assert len(sender._known_to_all()) == quick.sequence.next
    slow.behind, before = 0, slow.sequence.next
    await film(sender, 4, lambda at: 128 + 100 * float(np.cos(3 * at)))
    assert slow.sequence.next >= before
    quick.behind = slow.behind = MAX_BACKLOG + 1
    before = quick.sequence.next
    await film(sender, 8, lambda at: 128 + 120 * float(np.sin(2 * at)))
    assert quick.sequence.next == before


async def test_new_poses_become_sources_and_there_is_a_preview() -> None:
    sender = make_sender()
    await film(sender, 1)
    sequence = await sender.sequence_for_newcomer()
    assert sequence.next == 1
    await film(sender, 7, swinging)
    assert sequence.next >= 5
    assert decoded(sequence) == sequence.next
    assert sender.preview.shape == (SIZE, SIZE, 3)


async def test_later_peers_get_short_sequences() -> None:
    """Early peers share one sequence; later ones get a short fresh one, which continues."""
    sender = make_sender()
    assert await sender.sequence_for_newcomer() is None
    await film(sender, 0.5)
    early = await sender.sequence_for_newcomer()
    assert await sender.sequence_for_newcomer() is early
    sender.join(RecordingLink(early))
    await film(sender, 12, swinging)
    assert early.next > MAX_SHARED_UNITS
    late = await sender.sequence_for_newcomer()
    assert late is not early
    assert late.next == MAX_SHARED_UNITS
    sender.join(RecordingLink(late))
    before = early.next
    await sender._add_source(picture(250), 0.0)
    assert (early.next, late.next) == (before + 1, MAX_SHARED_UNITS + 1)
    assert decoded(early) == before + 1
    assert decoded(late) == MAX_SHARED_UNITS + 1


async def test_coordinates_of_motion_are_those_of_the_pictures_that_peers_have() -> None:
    """A later sequence is coded anew, so its pictures differ from those in the library."""
    sender = make_sender()
    await film(sender, 0.5)
    early = await sender.sequence_for_newcomer()
    sender.join(RecordingLink(early))
    await film(sender, 8, swinging)
    late = await sender.sequence_for_newcomer()
    sender.join(RecordingLink(late))
    decoder = SourceDecoder(SIZE)
    shown = [decoder.add(SourcePacket.from_bytes(unit.packet).payload) for unit in late.units.values()]
    await film(sender, 1)
    for sequence in (early, late):
        assert set(sequence.spaces) == set(sequence.numbers)
        assert not sequence.pending
    for number, index in late.numbers.items():
        np.testing.assert_allclose(late.spaces[number].own[0], StubRuntime().detect(shown[index])[0, 0], atol=1e-6)
    for number in early.numbers:
        source = sender._library.at(number)
        np.testing.assert_allclose(early.spaces[number].own[0], source.keypoints[0, 0], atol=1e-6)


async def test_links_that_are_behind_get_no_more_sources() -> None:
    sender = make_sender()
    link = RecordingLink()
    sender.join(link)
    await film(sender, 0.5)
    link.sequence = await sender.sequence_for_newcomer()
    link.behind = MAX_BACKLOG + 1
    await film(sender, 6, swinging)
    assert link.sequence.next == 1
    link.behind = 0
    await film(sender, 6, swinging)
    assert link.sequence.next > 1


async def test_pause() -> None:
    sender = make_sender()
    link = RecordingLink()
    sender.join(link)
    sender.pause(True)
    sender.pause(True)
    assert link.status_changes == 1
    await film(sender, 1)
    assert link.frames == []
    sender.pause(False)
    await film(sender, 1)
    assert link.status_changes == 2
    assert len(link.frames) == 25


async def test_snapshots_are_sent_without_a_face() -> None:
    faces = True
    sender = make_sender(lambda picture: faces)
    link = RecordingLink()
    sender.join(link)
    await film(sender, 1)
    link.sequence = await sender.sequence_for_newcomer()
    faces = False
    await film(sender, FACE_CHECK_S * (CHECKS_LOST + 2))
    assert sender.face_lost
    assert link.status_changes == 1
    frames = len(link.frames)
    await film(sender, 20)
    assert len(link.frames) == frames
    assert [unit.is_snapshot for unit in link.sequence.units.values()] == [
        False,
        True,
    ]  # one: the scene does not change
    await film(sender, 10, swinging)
    snapshots = sum(unit.is_snapshot for unit in link.sequence.units.values())
    assert 3 < snapshots < 8
    fresh = await sender.sequence_for_newcomer()
    assert fresh.units[fresh.next - 1].is_snapshot
    faces = True
    await film(sender, 2 * FACE_CHECK_S)
    assert not sender.face_lost
    assert len(link.frames) > frames


async def test_unreachable_peer_does_not_limit_the_sources_of_others() -> None:
    sender = make_sender()
    near, far = RecordingLink(), RecordingLink()
    for link in (near, far):
        sender.join(link)
    await film(sender, 0.4)
    near.sequence = far.sequence = await sender.sequence_for_newcomer()
    near.has_picture = far.has_picture = True
    far.received = 1
    await film(sender, 10, swinging)
    assert {frame.reference_source for frame in near.frames[-100:]} == {0}  # both have it
    far.is_reached = False
    await film(sender, 4, swinging)
    assert len({frame.reference_source for frame in near.frames[-100:]}) > 2


async def test_expressions_become_variants_and_later_peers_get_them_by_need() -> None:
    sender = VideoSender(FaceRuntime(), ImmediateExecutor(), lambda picture: True, FaceFit())
    loop = asyncio.get_running_loop()

    async def show(picture: Picture, seconds: float) -> None:
        for _ in range(round(25 * seconds)):
            await sender.push(picture, loop.time())
            await asyncio.sleep(0.04)

    face = home_source()
    await show(face.picture, 0.5)
    early = RecordingLink(await sender.sequence_for_newcomer())
    sender.join(early)
    await show(expression(face, 1, None), 0.6)
    assert early.frames[-1].regions == (1, None)
    assert SourcePacket.from_bytes(early.sequence.units[1].packet).base == 0
    late = RecordingLink(SourceSequence(FaceRuntime.info.size))  # as if the other had grown too long to be shared
    late.sequence.add(face.picture, 0)
    assert late.slot(1) is None
    sender.join(late)
    await show(face.picture, 0.4)
    assert late.slot(1) is None  # not needed yet
    await show(expression(face, 1, None), 0.4)
    assert late.slot(1) == 1
    assert SourcePacket.from_bytes(late.sequence.units[1].packet).base == 0
    bases = [SourcePacket.from_bytes(unit.packet).base for unit in early.sequence.units.values()]
    assert bases.count(0) == 1  # nothing is sent twice


async def test_variants_are_shown_once_a_peer_has_them() -> None:
    sender = VideoSender(FaceRuntime(), ImmediateExecutor(), lambda picture: True, FaceFit())
    loop = asyncio.get_running_loop()
    face = home_source()
    await sender.push(face.picture, loop.time())
    await asyncio.sleep(0.04)
    link = RecordingLink(await sender.sequence_for_newcomer())
    sender.join(link)
    link.has_picture, link.received = True, 1
    for received, shown in ((1, None), (2, 1)):
        link.received = received
        for _ in range(15):
            await sender.push(expression(face, 1, None), loop.time())
            await asyncio.sleep(0.04)
        assert link.sequence.next == 2
        assert link.frames[-1].regions == (shown, None)


def test_nothing_is_run_after_close(caplog: pytest.LogCaptureFixture):
    """A call ends while a frame is judged: the executor is shut down at once, and nothing is logged."""
    judging, judged = threading.Event(), threading.Event()

    class Slow(StubRuntime):
        def prepare(self, picture: Any) -> Source:
            judging.set()
            judged.wait(10)
            return super().prepare(picture)

    async def work() -> None:
        executor = ThreadPoolExecutor(2)
        sender = VideoSender(Slow(), executor, lambda picture: True, NearestSourceFit())
        await sender.push(picture(100), asyncio.get_running_loop().time())
        await asyncio.to_thread(judging.wait, 10)
        await sender.push(picture(101), asyncio.get_running_loop().time())
        await sender.close()
        judged.set()
        executor.shutdown()
        await asyncio.sleep(0.05)

    asyncio.run(work())
    assert not caplog.records
