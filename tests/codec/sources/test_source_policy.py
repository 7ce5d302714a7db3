"""Which frames of a live stream become sources, by what is judged of them; and in the streaming encoder."""

from collections.abc import Sequence

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.source_policy import (
    HELPED_DB,
    JUDGE_S,
    MAX_REST_S,
    NEAR_DB,
    REST_S,
    SHORT_DB,
    Shortfall,
    SourcePolicy,
)
from iwcodec.models.runtime.types import Keypoints, Source
from stub_runtime import StubRuntime, picture


class Copying(StubRuntime):
    """Shows the nearest source as it is: what has another brightness falls short."""

    def __init__(self) -> None:
        self.rebuilt = 0
        self.active = 0

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        self.rebuilt += 1
        self.active = max(self.active, len(sources))
        return sources[0].picture


def test_what_falls_short_is_wanted_until_it_is_near() -> None:
    shortfall = Shortfall()
    between = (SHORT_DB + NEAR_DB) / 2
    judged = [between, SHORT_DB + 0.1, between, NEAR_DB - 0.1, between]
    assert [shortfall.judge(n, db, False) for n, db in enumerate(judged)] == [False, True, True, False, False]


def test_sources_are_apart() -> None:
    shortfall = Shortfall()
    assert shortfall.judge(0.0, 10.0, False)
    shortfall.added(0.0)
    assert not shortfall.judge(REST_S - 0.1, 10.0, False)
    assert shortfall.judge(REST_S, 10.0, False)


def added_at(shortfall: Shortfall, seconds: float, short_db: float, newest: bool = True) -> list[float]:
    """When sources come where every frame falls short by so much."""
    times = []
    for at_s in np.arange(0.0, seconds, JUDGE_S):
        if shortfall.judge(float(at_s), short_db, newest):
            shortfall.added(float(at_s))
            times.append(float(at_s))
    return times


def test_where_sources_do_not_help_they_get_rare() -> None:
    times = added_at(Shortfall(), 100.0, 12.0)
    assert np.diff(times)[:4] == pytest.approx([2, 4, 8, 16])
    assert np.diff(times).max() == MAX_REST_S


def test_frames_near_other_sources_say_nothing_of_the_newest() -> None:
    assert np.diff(added_at(Shortfall(), 20.0, 12.0, newest=False)).max() == REST_S


def test_where_one_helps_again_the_next_need_not_wait() -> None:
    shortfall = Shortfall()
    added_at(shortfall, 20.0, 12.0)
    assert not shortfall.judge(20.0, 12.0, True)  # a long rest by now
    assert shortfall.judge(20.0 + MAX_REST_S, 12.0, True)
    shortfall.added(20.0 + MAX_REST_S)
    shortfall.judge(20.5 + MAX_REST_S, 12.0 - HELPED_DB, True)
    assert shortfall.judge(20.0 + MAX_REST_S + REST_S, 12.0, True)


def test_the_quality_of_sources_is_learnt() -> None:
    live = SourcePolicy(Copying())
    original = picture(100)
    coded = np.clip(original.astype(int) + 4, 0, 255).astype(np.uint8)
    live.add(0, live.prepare(original, coded), 0.0)
    assert live.source_db == pytest.approx(psnr(coded, original))


def test_a_frame_is_judged_now_and_then() -> None:
    live = SourcePolicy(StubRuntime())
    assert sum(live.due(n / 25) for n in range(100)) == 8


def sources_of(levels: Sequence[float], runtime: Copying, **settings: int) -> tuple[list[int], list[Picture]]:
    """Numbers of the frames before which a source is sent, and what a receiver shows."""
    encoder = Encoder(runtime, EncoderSettings(message_frames=1, fit=False, **settings))  # type: ignore[arg-type]
    decoder = Decoder(runtime, capacity=encoder.settings.capacity)
    sent, shown = [], []
    for number, level in enumerate(levels):
        for packet in encoder.push(picture(level)):
            if isinstance(packet, SourcePacket):
                sent.append(number)
            shown += [frame.picture for frame in decoder.push(packet)]
    return sent, shown


def test_a_still_scene_needs_one_source() -> None:
    runtime = Copying()
    assert sources_of([100] * 100, runtime)[0] == [0]
    assert runtime.rebuilt == 100 + 7


def test_another_scene_becomes_a_source_and_one_that_comes_back_does_not() -> None:
    sent, shown = sources_of([100] * 40 + [180] * 60 + [100] * 60 + [180] * 60, Copying())
    assert len(sent) == 2
    assert 40 <= sent[1] <= 40 + 25 * JUDGE_S + 1
    assert psnr(shown[-1], picture(180)) > 30


def test_the_library_is_bounded_and_few_sources_enter_a_frame() -> None:
    runtime = Copying()
    encoder = Encoder(runtime, EncoderSettings(capacity=4, fit=False))
    for n in range(400):
        encoder.push(picture(30 + n // 2))
    assert len(encoder.library) == 4
    assert runtime.active <= 3
