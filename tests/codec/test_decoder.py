"""Decoder: source frames, skip mode, reconstruction, missing sources."""

from dataclasses import replace
from typing import NoReturn

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MotionPacket, Run, SourcePacket
from iwcodec.codec.decoder import MAX_SOURCE_FRAMES, Decoder
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.motion.transform_coder import TransformCoder, inverse_transform
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceDecoder, SourceEncoder
from iwcodec.codec.sources.library import CAPACITY
from support.codec.stub_runtime import SIZE, StubRuntime, picture

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
        expected = space.keypoints(inverse_transform(rows, SCALE))
        np.testing.assert_array_equal([motion.keypoints for motion in found[first : first + run.frames]], expected)


def test_skip_mode_shows_the_unmodified_reference_source() -> None:
    decoder, zeros = with_sources(2), np.zeros((4, 60), np.int32)
    payload = TransformCoder(load_transform_tables()).encode([zeros, np.ones((3, 60), np.int32)])
    packet = MotionPacket(10, 7, None, payload, (Run(1, 4), Run(0, 3)), scale=SCALE)
    decoder.prepare()
    source = decoder.library.at(1)
    shown = [(motion.skip, decoder.picture(motion)) for motion in decoder.motion(packet)]
    assert [skip for skip, _ in shown] == [True] * 4 + [False] * 3
    assert all((made is source.picture) == skip for skip, made in shown)


def test_frames_of_a_missing_source_are_left_out() -> None:
    packet, _ = transformed((Run(1, 4), Run(0, 3)))
    found = with_sources(1).motion(packet)
    assert [motion.number for motion in found] == [14, 15, 16]
    assert with_sources(0).motion(packet) == []


def test_transformed_motion_of_files_has_no_reference_frame() -> None:
    packet, _ = transformed((Run(0, 4),))
    for refused in (replace(packet, reference=9), replace(packet, reference=9, runs=(), alike=True)):
        with pytest.raises(FormatError, match="reference frame"):
            with_sources(1).motion(refused)


def test_a_replaced_source_has_new_coordinates() -> None:
    decoder = with_sources(1)
    first = decoder.space(0)
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False))
    decoder.add_source(encoder.add_source(picture(LEVELS[3])))
    second = decoder.space(0)
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


EYES_BOX = slice(18, 30), slice(12, 52)
"""Rows and columns of the eyes in a picture of the stub network, in the decoder of `with_variants`."""


def variants(count: int = 2) -> list[SourcePacket]:
    """A source, and variants of it with stripes over the eyes, which no shift of colours hides, in slots 1 and on."""
    encoder, packets = SourceEncoder(SIZE, 30, 8), []
    for n in range(count + 1):
        shown = picture(LEVELS[0])
        if n:
            rows, columns = EYES_BOX
            shown[rows, columns] = 255 if n % 2 else 0
            shown[rows, columns.start : columns.stop : 8] = shown[rows, columns.start + 1 : columns.stop : 8] = 50 * n
        packets.append(SourcePacket(n, encoder.add(shown), base=0 if n else None))
    return packets


class LocatedRuntime(StubRuntime):
    """Places the eyes in the upper half of every picture."""

    def detect(self, picture: np.ndarray) -> np.ndarray:
        keypoints = super().detect(picture)
        keypoints[:2, :2] = (-0.3, -0.25), (0.3, -0.25)
        keypoints[7:11, 1] = 0.6
        return keypoints


def with_variants(count: int = 2) -> Decoder:
    decoder = Decoder(LocatedRuntime())
    for packet in variants(count):
        decoder.add_source(packet)
    return decoder


def still(regions: tuple[tuple[Run, ...], ...], first: int = 10) -> MotionPacket:
    """Four frames of source 0 in skip mode."""
    payload = TransformCoder(load_transform_tables()).encode([np.zeros((4, 60), np.int32)])
    return MotionPacket(first, 4, None, payload, (Run(0, 4),), SCALE, regions)


EYES_SHOWN = ((Run(0, 1), Run(2, 1), Run(3, 2)),)
"""Those of the reference source in one frame, of source 1 in one, of source 2 in two."""


def test_frames_show_the_eyes_of_the_sources_that_they_name() -> None:
    decoder = with_variants()
    source, *_ = (frame.picture for frame in decoder.push(still(())))
    own, first, second, third = (frame.picture for frame in decoder.push(still(EYES_SHOWN)))
    assert own is source
    assert second is third
    assert not np.array_equal(first, source)
    assert not np.array_equal(first, second)
    assert np.array_equal(first[50:], source[50:])  # below the eyes
    base = decoder.library.at(0)
    assert base.picture is source


def test_reconstructed_frames_show_other_eyes_too() -> None:
    decoder = with_variants()
    levels = np.zeros((4, 60), np.int32)
    levels[:, -1] = 1  # hardly moves, but is no skip mode
    payload = TransformCoder(load_transform_tables()).encode([levels])
    packet = MotionPacket(10, 4, None, payload, (Run(0, 4),), SCALE)
    assert not any(motion.skip for motion in decoder.motion(packet))
    plain = [frame.picture for frame in decoder.push(packet)]
    shown = [frame.picture for frame in decoder.push(replace(packet, regions=EYES_SHOWN))]
    assert [np.array_equal(a, b) for a, b in zip(plain, shown, strict=True)] == [True, False, False, False]


def test_any_source_lends_its_eyes() -> None:
    """Not variants alone."""
    decoder = Decoder(LocatedRuntime())
    for packet in variants(1):
        decoder.add_source(replace(packet, base=None))
    own, other, *_ = (frame.picture for frame in decoder.push(still(EYES_SHOWN)))
    assert not np.array_equal(own, other)
    assert len(decoder.library.sources()) == 2


def test_a_frame_that_names_a_missing_source_shows_the_reference_source() -> None:
    decoder = with_variants(1)
    source = next(decoder.push(still(()))).picture
    shown = [frame.picture is source for frame in decoder.push(still(EYES_SHOWN))]
    assert shown == [True, False, True, True]  # slot 2 is empty
    beyond = still(((Run(2, 4),), (Run(9, 4),), (Run(2, 4),), (Run(2, 4),)))  # more regions than there are
    assert not any(frame.picture is source for frame in decoder.push(beyond))


def test_a_region_that_names_the_reference_source_is_left_as_it_is() -> None:
    decoder = with_variants()
    source = next(decoder.push(still(()))).picture
    assert all(frame.picture is source for frame in decoder.push(still(((Run(1, 4),), (Run(1, 4),)))))


def test_eyes_and_mouth_are_kept_apart() -> None:
    decoder = with_variants()
    eyes, mouth, both = (
        next(decoder.push(still(regions))).picture
        for regions in (((Run(2, 4),),), ((Run(0, 4),), (Run(2, 4),)), ((Run(2, 4),), (Run(2, 4),)))
    )
    assert np.array_equal(both[:32], eyes[:32])
    assert not np.array_equal(eyes[EYES_BOX], mouth[EYES_BOX])


def test_a_variant_of_a_missing_source_is_refused() -> None:
    """The sources after it are decoded all the same: it is known to the AV1 decoder."""
    source, first, second = variants()
    decoder = Decoder(LocatedRuntime())
    decoder.add_source(source)
    with pytest.raises(FormatError, match=r"^A source is a variant of source 7, which is not available\.$"):
        list(decoder.push(replace(first, base=7)))
    assert set(decoder.library.slots()) == {0}
    decoder.add_source(second)
    assert np.array_equal(decoder.library.at(2).picture, with_variants().library.at(2).picture)
    with pytest.raises(FormatError):
        Decoder(LocatedRuntime()).add_source(first)  # nor without any source


def test_a_variant_has_the_keypoints_of_its_base() -> None:
    """And costs no run of the network: the base's features serve it."""
    decoder = with_variants()
    base, variant = decoder.library.at(0), decoder.library.at(1)
    assert variant.keypoints is base.keypoints
    assert variant.picture is not base.picture


def test_a_variant_of_a_variant_has_their_keypoints() -> None:
    decoder, packets = Decoder(LocatedRuntime()), variants()
    for packet, base in zip(packets, (None, 0, 1), strict=True):
        decoder.add_source(replace(packet, base=base))
    assert decoder.library.at(2).keypoints is decoder.library.at(0).keypoints


def test_variants_are_never_attended_and_no_reference() -> None:
    decoder = with_variants()
    keypoints = LocatedRuntime().detect(picture(LEVELS[0]))
    assert decoder.nearest(keypoints) == decoder.nearest(keypoints, 1) == [decoder.library.at(0)]
    packet, _ = transformed((Run(1, 3),))
    assert [frame.number for frame in decoder.push(packet)] == [10, 11, 12]  # shown from source 0


def test_a_variant_in_the_place_of_the_only_source_leaves_no_pictures() -> None:
    source, variant, _ = variants()
    decoder = Decoder(LocatedRuntime())
    decoder.add_source(source)
    decoder.add_source(replace(variant, slot=0))
    assert list(decoder.push(still(EYES_SHOWN))) == []


def test_variants_are_evicted_like_other_sources() -> None:
    """And so is their base, of which there are no further variants then."""
    decoder, (*packets, last) = Decoder(LocatedRuntime(), capacity=3), variants(4)
    for packet in packets:
        decoder.add_source(packet)
    assert set(decoder.library.slots()) == {1, 2, 3}
    assert list(decoder.push(still(()))) == []
    with pytest.raises(FormatError, match="source 0"):
        decoder.add_source(last)
    assert set(decoder.library.slots()) == {1, 2, 3}


def test_a_source_frame_shows_its_own_eyes() -> None:
    source, *others = variants()
    decoder = Decoder(LocatedRuntime())
    for packet in (replace(source, frame=11), *others):
        decoder.add_source(packet)
    own, as_source, *_ = (frame.picture for frame in decoder.push(still(EYES_SHOWN)))
    assert as_source is own


def test_frames_of_the_predictive_coder_show_other_eyes() -> None:
    """As far as the format allows it; no encoder does that yet."""
    encoder = Encoder(LocatedRuntime(), EncoderSettings(live_sources=False, fit=False, message_frames=4))
    encoder.add_source(picture(LEVELS[0]))
    (packet,) = (packet for _ in range(4) for packet in encoder.push(picture(LEVELS[0])))
    assert isinstance(packet, MotionPacket)
    plain, named = (with_variants() for _ in range(2))
    pairs = zip(plain.push(packet), named.push(replace(packet, regions=EYES_SHOWN)), strict=True)
    assert [np.array_equal(a.picture, b.picture) for a, b in pairs] == [True, False, False, False]


@pytest.mark.parametrize("wrong", [b"abc", None, "x", 3])
def test_what_is_no_packet_is_refused_at_once(wrong: object):
    with pytest.raises(FormatError, match="A packet is a SourcePacket"):
        Decoder(StubRuntime()).push(wrong)


def test_a_source_is_taken_without_asking_for_frames():
    decoder, encoder = Decoder(StubRuntime()), Encoder(StubRuntime())
    decoder.push(encoder.add_source(picture(90)))
    decoder.prepare()
    assert len(decoder.library) == 1
