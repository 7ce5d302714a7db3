"""Decoder: source frames, skip mode, reconstruction, missing sources."""

from typing import NoReturn

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import Box, MotionPacket, PartsPacket, Run, SourcePacket
from iwcodec.codec.decoder import MAX_SOURCE_FRAMES, Decoder
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.motion.transform_coder import TransformCoder, inverse_transform
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceDecoder, SourceEncoder
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.codec.sources.parts import EYES, MOUTH, PART_SIDE
from stub_runtime import StubRuntime, picture

LEVELS = (60, 90, 120, 150)


def test_a_source_frame_is_shown_unmodified() -> None:
    runtime = StubRuntime()
    encoder = Encoder(runtime, EncoderSettings(live_sources=False, message_frames=4))
    pictures = [picture(level) for level in LEVELS]
    source = encoder.add_source(pictures[2], frame=2)
    packets = [source, *(p for shown in pictures for p in encoder.push(shown))]
    decoder = Decoder(runtime)
    frames = [frame for packet in packets for frame in decoder.push(packet)]
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    coded = SourceDecoder(runtime.info.size).add(source.payload)
    assert np.array_equal(frames[2].picture, coded)
    assert all(np.ptp(frame.picture) == 0 for frame in frames if frame.number != 2)  # reconstructed flat by the stub


def test_the_predictive_coder_keeps_used_sources() -> None:
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False, fit=False, message_frames=1))
    decoder = Decoder(StubRuntime(), capacity=4)
    packets = [encoder.add_source(picture(level)) for level in (200, 60, 90, 120)]
    packets += [*encoder.push(picture(90)), encoder.add_source(picture(150)), *encoder.push(picture(90))]
    shown = [frame.number for packet in packets for frame in decoder.push(packet)]
    assert shown == [0, 1]
    assert set(decoder.library.slots()) == {1, 2, 3, 4}
    for packet in (encoder.add_source(picture(20)), encoder.add_source(picture(30)), *encoder.push(picture(90))):
        list(decoder.push(packet))
    assert {1, 2, 3} - set(decoder.library.slots()) == {1}  # in the order of arrival 1 and 2 would have been dropped


def test_kept_pictures_are_bounded() -> None:
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False))
    payload = encoder.add_source(picture(100)).payload
    later = encoder.add_source(picture(101)).payload
    decoder = Decoder(StubRuntime())
    decoder.add_source(SourcePacket(0, payload, 0))
    for n in range(1, MAX_SOURCE_FRAMES + 60):
        decoder.add_source(SourcePacket(n, later, n))
    assert len(decoder._source_frames) == MAX_SOURCE_FRAMES
    assert len(decoder._unprepared) == CAPACITY
    assert decoder.picture(Motion(0, StubRuntime().detect(picture(50)))) is not None
    assert len(decoder.library) == CAPACITY


def test_the_reference_source_is_first() -> None:
    encoder, decoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False)), Decoder(StubRuntime())
    for level in LEVELS:
        decoder.add_source(encoder.add_source(picture(level)))
    keypoints = StubRuntime().detect(picture(LEVELS[0]))
    by_pose, runs = decoder.nearest(keypoints), decoder.nearest(keypoints, 3)
    assert decoder.library.slot(by_pose[0]) == 0
    assert [decoder.library.slot(source) for source in runs] == [3, 0, 1]
    assert decoder.nearest(keypoints, 9) == by_pose  # empty slot


SCALE = 70


def transformed(runs: tuple[Run, ...], seed: int = 0) -> tuple[MotionPacket, list[np.ndarray]]:
    """A packet of the transform coder, and the levels of its runs."""
    rng = np.random.default_rng(seed)
    levels = [rng.integers(-2, 3, (run.frames, 60)).astype(np.int32) for run in runs]
    payload = TransformCoder(load_transform_tables()).encode(levels)
    return MotionPacket(10, sum(run.frames for run in runs), None, payload, runs, scale=SCALE), levels


def with_sources(count: int) -> Decoder:
    encoder, decoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False)), Decoder(StubRuntime())
    for level in LEVELS[:count]:
        decoder.add_source(encoder.add_source(picture(level)))
    return decoder


def test_transformed_motion_is_relative_to_the_reference_sources() -> None:
    decoder = with_sources(2)
    packet, levels = transformed((Run(1, 4), Run(0, 3)))
    found = decoder.motion(packet)
    assert [motion.number for motion in found] == list(range(10, 17))
    assert [motion.reference_source for motion in found] == [1] * 4 + [0] * 3
    for run, rows, first in zip(packet.runs, levels, (0, 4), strict=True):
        space = decoder.space(run.slot)
        assert space is not None
        expected = space.keypoints(inverse_transform(rows, SCALE))
        np.testing.assert_array_equal([motion.keypoints for motion in found[first : first + run.frames]], expected)


def test_skip_mode_shows_the_unmodified_reference_source() -> None:
    decoder, zeros = with_sources(2), np.zeros((4, 60), np.int32)
    payload = TransformCoder(load_transform_tables()).encode([zeros, np.ones((3, 60), np.int32)])
    packet = MotionPacket(10, 7, None, payload, (Run(1, 4), Run(0, 3)), scale=SCALE)
    decoder.prepare()
    source = decoder.library.at(1)
    assert source is not None
    shown = [(motion.skip, decoder.picture(motion)) for motion in decoder.motion(packet)]
    assert [skip for skip, _ in shown] == [True] * 4 + [False] * 3
    assert all((made is source.picture) == skip for skip, made in shown)


def test_frames_of_a_missing_source_are_left_out() -> None:
    packet, _ = transformed((Run(1, 4), Run(0, 3)))
    found = with_sources(1).motion(packet)
    assert [motion.number for motion in found] == [14, 15, 16]
    assert with_sources(0).motion(packet) == []


def test_a_replaced_source_has_new_coordinates() -> None:
    decoder = with_sources(1)
    first = decoder.space(0)
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False))
    decoder.add_source(encoder.add_source(picture(LEVELS[3])))
    second = decoder.space(0)
    assert first is not None
    assert second is not None
    assert not np.array_equal(first.own, second.own)
    assert decoder.space(0) is second


def test_sources_only_shown_as_frames_are_not_prepared() -> None:
    class Unprepared(StubRuntime):
        def prepare(self, picture: np.ndarray) -> NoReturn:
            raise AssertionError("this takes 40 ms")

    encoder, decoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False)), Decoder(Unprepared())
    for n in range(3):
        decoder.add_source(encoder.add_source(picture(LEVELS[n]), frame=10 + n))
    packet, _ = transformed((Run(0, 1), Run(1, 2)))
    assert [frame.number for frame in decoder.push(packet)] == [10, 11, 12]


def striped(level: int) -> np.ndarray:
    """A part with stripes, which no shift of colours hides."""
    part = np.full((PART_SIDE, PART_SIDE, 3), level, np.uint8)
    part[:, ::8] = part[:, 1::8] = 255 - level
    return part


def parts_packets() -> tuple[PartsPacket, PartsPacket]:
    """Two parts of the eyes, in a packet each, registered to source 0."""
    encoder, box = SourceEncoder(PART_SIDE, 30, 8), Box(8 * 32, 8 * 20, 8 * 40, 8 * 20, 0)
    first, second = (PartsPacket(EYES, n, 0, box, (encoder.add(striped(40 + 60 * n)),)) for n in range(2))
    return first, second


def still(parts: tuple[tuple[Run, ...], ...], first: int = 10) -> MotionPacket:
    """Four frames of source 0 in skip mode."""
    payload = TransformCoder(load_transform_tables()).encode([np.zeros((4, 60), np.int32)])
    return MotionPacket(first, 4, None, payload, (Run(0, 4),), SCALE, parts)


EYES_SHOWN = ((Run(0, 1), Run(1, 1), Run(2, 2)),)
"""The source's own in one frame, part 0 in one, part 1 in two."""


def test_frames_show_the_parts_that_they_name() -> None:
    decoder = with_sources(2)
    source, *_ = (frame.picture for frame in decoder.push(still(())))
    for packet in parts_packets():
        assert list(decoder.push(packet)) == []
    own, first, second, third = (frame.picture for frame in decoder.push(still(EYES_SHOWN)))
    assert own is source
    assert second is third
    assert not np.array_equal(first, source)
    assert not np.array_equal(first, second)
    assert np.array_equal(first[40:], source[40:])  # below the eyes
    assert decoder.library.at(0).picture is source


def test_reconstructed_frames_show_parts_too() -> None:
    decoder = with_sources(1)
    levels = np.zeros((4, 60), np.int32)
    levels[:, -1] = 1  # hardly moves, but is no skip mode
    payload = TransformCoder(load_transform_tables()).encode([levels])
    packet = MotionPacket(10, 4, None, payload, (Run(0, 4),), SCALE)
    assert not any(motion.skip for motion in decoder.motion(packet))
    plain = [frame.picture for frame in decoder.push(packet)]
    for parts in parts_packets():
        decoder.add_parts(parts)
    named = MotionPacket(10, 4, None, payload, packet.runs, SCALE, EYES_SHOWN)
    shown = [frame.picture for frame in decoder.push(named)]
    assert [np.array_equal(a, b) for a, b in zip(plain, shown, strict=True)] == [True, False, False, False]


def test_frames_that_name_a_lost_part_show_the_source() -> None:
    decoder, (first, second) = with_sources(1), parts_packets()
    source = next(decoder.push(still(()))).picture
    assert all(frame.picture is source for frame in decoder.push(still(EYES_SHOWN)))  # both are lost
    decoder.add_parts(first)
    shown = [frame.picture is source for frame in decoder.push(still(EYES_SHOWN))]
    assert shown == [True, False, True, True]
    with pytest.raises(FormatError, match="key picture"):  # its predecessor is lost
        with_sources(1).add_parts(second)
    beyond = still(((Run(1, 4),), (Run(5, 4),), (Run(1, 4),), (Run(1, 4),)))
    assert [np.array_equal(frame.picture, source) for frame in decoder.push(beyond)] == [False] * 4


def test_parts_of_a_lost_source_are_refused() -> None:
    first, _ = parts_packets()
    with pytest.raises(FormatError, match="source 0"):
        list(with_sources(0).push(first))


def test_a_source_frame_shows_no_parts() -> None:
    encoder, decoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False)), Decoder(StubRuntime())
    decoder.add_source(encoder.add_source(picture(LEVELS[0]), frame=11))
    for packet in parts_packets():
        decoder.add_parts(packet)
    own, as_source, *_ = (frame.picture for frame in decoder.push(still(EYES_SHOWN)))
    assert as_source is own


def test_frames_of_the_predictive_coder_show_parts() -> None:
    """As far as the format allows it; no encoder does that yet."""
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False, fit=False, message_frames=4))
    source = encoder.add_source(picture(90))
    (packet,) = (packet for _ in range(4) for packet in encoder.push(picture(90)))
    plain, named = Decoder(StubRuntime()), Decoder(StubRuntime())
    for decoder in (plain, named):
        decoder.add_source(source)
        for parts in parts_packets():
            decoder.add_parts(parts)
    with_parts = MotionPacket(packet.first, packet.count, None, packet.payload, packet.runs, None, EYES_SHOWN)
    pairs = zip(plain.push(packet), named.push(with_parts), strict=True)
    assert [np.array_equal(a.picture, b.picture) for a, b in pairs] == [True, False, False, False]


def test_parts_of_the_mouth_are_kept_apart() -> None:
    decoder, (first, _) = with_sources(1), parts_packets()
    decoder.add_parts(first)
    mouth = still(((Run(0, 4),), (Run(1, 4),)))
    source = next(decoder.push(still(()))).picture
    assert next(decoder.push(mouth)).picture is source
    decoder.add_parts(PartsPacket(MOUTH, 0, 0, first.box, first.payloads))
    assert next(decoder.push(mouth)).picture is not source
