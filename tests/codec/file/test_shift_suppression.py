"""How small shifts the sender leaves out."""

from collections.abc import Sequence

import numpy as np
import pytest

from circling import COUNT, PICTURES, SURVEY
from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.file.shift_suppression import (
    JUDGES,
    MIN_GAIN_DB,
    ZONES,
    choose_suppression,
    judged_frames,
    qualities,
)
from iwcodec.codec.file.source_plan import Coded, code, dense_plan, sparse_plan, wanted
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Keypoints, Source
from stub_runtime import SIZE, StubRuntime


class Blurring(StubRuntime):
    """What it rebuilds is further off for every tenth of a pixel that the dead zone is away from the best."""

    def __init__(self, best: int, for_each: float = 1.0) -> None:
        self._best, self._for_each = best, for_each

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        shown = super().reconstruct(keypoints, sources)
        off = self._for_each * abs(round(10 * suppression) - self._best)
        return np.clip(shown + np.where(np.indices(shown.shape).sum(0) % 2, off, -off), 0, 255).astype(np.uint8)


def stream(frames: int = 3) -> tuple[Coded, list[MotionPacket]]:
    """Of keypoints as they are found."""
    plan = sparse_plan(SURVEY, frames)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=True), SIZE)
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False, fit=False))
    packets = [packet for shown in PICTURES for packet in encoder.push(shown)] + encoder.flush()
    return coded, [packet for packet in packets if isinstance(packet, MotionPacket)]


def chosen(runtime: StubRuntime) -> int:
    return choose_suppression(*stream(), COUNT, lambda: PICTURES, runtime, Decoder(runtime))


@pytest.mark.parametrize("best", ZONES)
def test_the_zone_that_rebuilds_best(best: int):
    assert chosen(Blurring(best, 4.0)) == best


def test_nothing_is_left_out_for_next_to_nothing():
    assert chosen(StubRuntime()) == 0
    (coded, motion), judges = stream(), dict(enumerate(PICTURES))
    gains = {}
    for for_each in (0.1, 4.0):  # a fraction of a grey level, and many
        runtime = Blurring(ZONES[-1], for_each)
        found = np.mean(list(qualities(coded, motion, judges, runtime, Decoder(runtime))), axis=0)
        gains[chosen(runtime)] = found[-1] - found[0]
    assert 0 < gains[0] < MIN_GAIN_DB < gains[ZONES[-1]]


def test_frames_that_are_sources_are_not_judged():
    coded, _ = stream()
    frames = judged_frames(coded, COUNT)
    assert frames == sorted(set(frames))
    assert len(frames) == JUDGES
    assert not set(frames) & set(coded.plan.frames)
    assert max(frames) < COUNT


def test_a_stream_of_sources_alone_has_nothing_to_rebuild():
    plan = dense_plan(COUNT, 1)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=False), SIZE)
    runtime = Blurring(8)
    assert choose_suppression(coded, stream()[1], COUNT, lambda: PICTURES, runtime, Decoder(runtime)) == 0
