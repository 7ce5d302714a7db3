"""The feed by itself, on a simulated clock; its links are stood in for by lists."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("aiortc")

from iwcodec.benchmarks.call.simulation import AtOnce, simulate
from iwcodec.client.video.video_sender import (
    LATE_S,
    LOOK_S,
    LOOKS_LOST,
    MAX_BACKLOG,
    SHORT,
    OutgoingFrame,
    SourceSequence,
    VideoSender,
)
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.fit.keypoint_fit import MEMORY
from iwcodec.codec.sources.av1 import SourceDecoder
from iwcodec.models.runtime.types import Keypoints, Source
from stub_runtime import SIZE, StubRuntime, picture


class Listener:
    def __init__(self, sequence: SourceSequence | None = None) -> None:
        self.sequence = sequence
        self.frames: list[OutgoingFrame] = []
        self.told = 0
        self.behind = 0
        self.has_picture = False
        self.is_reached = True
        self.known = 1000
        """How many sources it has."""

    def take(self, frame: OutgoingFrame) -> None:
        self.frames.append(frame)

    def status_changed(self) -> None:
        self.told += 1

    def backlog(self) -> int:
        return self.behind

    def slot(self, number: int) -> int | None:
        found = None if self.sequence is None else self.sequence.numbers.get(number)
        return None if found is None or found >= self.known else found


def run(
    case: Callable[[VideoSender], Coroutine[Any, Any, None]], has_face: Callable[[Any], bool] = lambda p: True
) -> None:
    async def work() -> None:
        await case(VideoSender(StubRuntime(), AtOnce(), has_face))

    simulate(work())


async def film(feed: VideoSender, seconds: float, level: Callable[[float], float] = lambda at: 128) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(round(25 * seconds)):
        await feed.push(picture(level(loop.time())), loop.time())
        await asyncio.sleep(0.04)


def swinging(at: float) -> float:
    return 128 + 100 * float(np.sin(at))


def decoded(sequence: SourceSequence) -> int:
    """How many of its units a receiver can decode from the start."""
    decoder = SourceDecoder(SIZE)
    for index in range(sequence.next):
        decoder.add(SourcePacket.from_bytes(sequence.units[index].packet).payload)
    return sequence.next


def test_every_link_gets_every_frame():
    async def case(feed: VideoSender) -> None:
        links = [Listener(), Listener()]
        for link in links:
            feed.join(link)
        await film(feed, 1)
        assert [len(link.frames) for link in links] == [25, 25]
        stamps = [frame.stamp_ms for frame in links[0].frames]
        assert np.diff(stamps) == pytest.approx(40, abs=1)
        feed.leave(links[0])
        await film(feed, 1)
        assert [len(link.frames) for link in links] == [25, 50]

    run(case)


def test_the_newest_frame_wins():
    """Frames that come while another one is with the detector replace each other."""

    async def case(feed: VideoSender) -> None:
        link = Listener()
        feed.join(link)
        now = asyncio.get_running_loop().time()
        for n in range(10):
            await feed.push(picture(10 * n), now + n)
        await asyncio.sleep(0.1)
        assert feed.dropped == 9
        assert [frame.keypoints[0, 0] for frame in link.frames] == pytest.approx([90 / 127.5 - 1], abs=0.02)

    run(case)


class Textured(StubRuntime):
    """Finds nothing but the middle; every cell moves with the first keypoint."""

    def detect(self, picture: Any) -> Keypoints:
        return np.full((20, 3), (0, 0, 0.5), np.float32)

    def prepare(self, picture: Any) -> Source:
        basis = np.zeros((256, 60), np.float32)
        basis[:, 0] = 1
        return Source(picture, self.detect(picture), None, np.full((256, 21), 1 / 21, np.float32), basis)


TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8), (0, 0), 3)


def shifted(pixels: int) -> Any:
    return np.roll(cv2.normalize(TEXTURE, None, 0, 255, cv2.NORM_MINMAX), pixels, axis=1)


def test_keypoints_are_fitted_unless_frames_come_late():
    async def case() -> None:
        feed, link, loop = VideoSender(Textured(), AtOnce(), lambda p: True), Listener(), asyncio.get_running_loop()
        feed.join(link)
        for pixels, late_s in ((0, 0.0), (4, 0.0), (4, LATE_S + 0.01)):
            await feed.push(shifted(pixels), loop.time() - late_s)
            await asyncio.sleep(1)
        still, fitted, late = (float(frame.keypoints[0, 0]) for frame in link.frames)
        assert still == 0
        assert fitted == pytest.approx(4 * 2 / SIZE, abs=0.01)
        assert late == pytest.approx(MEMORY * fitted, abs=1e-4)
        assert feed.unfitted == 1

    simulate(case())


@pytest.mark.parametrize("bad", [np.zeros((64, 48, 3), np.uint8), np.zeros((64, 64, 3), np.float32)])
def test_frames_of_another_shape(bad: Any):
    async def case(feed: VideoSender) -> None:
        with pytest.raises(ValueError, match="must be uint8"):
            await feed.push(bad, 1.0)

    run(case)


def test_one_slow_link_does_not_stop_new_sources():
    """It goes without them; only where all are behind nothing new is coded."""

    async def case(feed: VideoSender) -> None:
        quick, slow = Listener(), Listener()
        for link in (quick, slow):
            feed.join(link)
        await film(feed, 1)
        quick.sequence, slow.sequence = feed._sequence, await feed.sequence_for_newcomer(small=True)
        if slow.sequence is quick.sequence:
            for _ in range(SHORT):
                await feed._add_source(picture(20), 0.0)
            slow.sequence = await feed.sequence_for_newcomer(small=True)
        assert slow.sequence is not None
        assert slow.sequence.small
        assert slow.sequence.next == 1
        quick.has_picture = slow.has_picture = True
        slow.behind = MAX_BACKLOG + 1
        before = quick.sequence.next
        await film(feed, 8, swinging)
        assert quick.sequence.next > before + 1
        assert slow.sequence.next == 1
        assert len(feed._known_to_all()) == quick.sequence.next
        slow.behind, before = 0, slow.sequence.next
        await film(feed, 4, lambda at: 128 + 100 * float(np.cos(3 * at)))
        assert slow.sequence.next >= before
        quick.behind = slow.behind = MAX_BACKLOG + 1
        before = quick.sequence.next
        await film(feed, 8, lambda at: 128 + 120 * float(np.sin(2 * at)))
        assert quick.sequence.next == before

    run(case)


def test_small_sequences_are_smaller():
    usual, small = SourceSequence(256), SourceSequence(256, small=True)
    large = cv2.resize(shifted(0), (256, 256))
    coded = [sequence.add(large) for sequence in (usual, small)]
    assert len(small.units[0].packet) < 0.7 * len(usual.units[0].packet)
    decoded = SourceDecoder(256).add(SourcePacket.from_bytes(small.units[0].packet).payload)
    assert np.array_equal(decoded, coded[1])


def test_new_poses_become_sources_and_the_preview_is_what_others_see():
    async def case(feed: VideoSender) -> None:
        await film(feed, 1)
        sequence = await feed.sequence_for_newcomer()
        assert sequence is not None
        assert sequence.next == 1
        await film(feed, 7, swinging)
        assert sequence.next >= 5
        assert decoded(sequence) == sequence.next
        assert feed.preview is not None
        assert feed.preview.shape == (SIZE, SIZE, 3)

    run(case)


def test_newcomers():
    """To begin with all share one sequence; later ones get a short fresh one, which goes on."""

    async def case(feed: VideoSender) -> None:
        assert await feed.sequence_for_newcomer() is None
        await film(feed, 0.5)
        early = await feed.sequence_for_newcomer()
        assert early is not None
        assert await feed.sequence_for_newcomer() is early
        feed.join(Listener(early))
        await film(feed, 12, swinging)
        assert early.next > SHORT
        late = await feed.sequence_for_newcomer()
        assert late is not None
        assert late is not early
        assert late.next == SHORT
        feed.join(Listener(late))
        before = early.next
        await feed._add_source(picture(250), 0.0)
        assert (early.next, late.next) == (before + 1, SHORT + 1)
        assert decoded(early) == before + 1
        assert decoded(late) == SHORT + 1

    run(case)


def test_links_that_are_behind_get_no_more_sources():
    async def case(feed: VideoSender) -> None:
        link = Listener()
        feed.join(link)
        await film(feed, 0.5)
        link.sequence = await feed.sequence_for_newcomer()
        assert link.sequence is not None
        link.behind = MAX_BACKLOG + 1
        await film(feed, 6, swinging)
        assert link.sequence.next == 1
        link.behind = 0
        await film(feed, 6, swinging)
        assert link.sequence.next > 1

    run(case)


def test_pause():
    async def case(feed: VideoSender) -> None:
        link = Listener()
        feed.join(link)
        feed.pause(True)
        feed.pause(True)
        assert link.told == 1
        await film(feed, 1)
        assert link.frames == []
        feed.pause(False)
        await film(feed, 1)
        assert link.told == 2
        assert len(link.frames) == 25

    run(case)


def test_without_a_face_stills_of_the_scene():
    faces = True

    async def case(feed: VideoSender) -> None:
        nonlocal faces
        link = Listener()
        feed.join(link)
        await film(feed, 1)
        link.sequence = await feed.sequence_for_newcomer()
        assert link.sequence is not None
        faces = False
        await film(feed, LOOK_S * (LOOKS_LOST + 2))
        assert feed.face_lost
        assert link.told == 1
        frames = len(link.frames)
        await film(feed, 20)
        assert len(link.frames) == frames
        assert [unit.still for unit in link.sequence.units.values()] == [False, True]  # one: the scene does not change
        await film(feed, 10, swinging)
        stills = sum(unit.still for unit in link.sequence.units.values())
        assert 3 < stills < 8
        fresh = await feed.sequence_for_newcomer()
        assert fresh is not None
        assert fresh.units[fresh.next - 1].still
        faces = True
        await film(feed, 2 * LOOK_S)
        assert not feed.face_lost
        assert len(link.frames) > frames

    run(case, lambda picture: faces)


def test_a_peer_out_of_reach_takes_no_source_from_the_others():
    async def case(feed: VideoSender) -> None:
        near, far = Listener(), Listener()
        for link in (near, far):
            feed.join(link)
        await film(feed, 0.4)
        near.sequence = far.sequence = await feed.sequence_for_newcomer()
        near.has_picture = far.has_picture = True
        far.known = 1
        await film(feed, 10, swinging)
        assert {frame.reference_source for frame in near.frames[-100:]} == {0}  # what both have
        far.is_reached = False
        await film(feed, 4, swinging)
        assert len({frame.reference_source for frame in near.frames[-100:]}) > 2

    run(case)
