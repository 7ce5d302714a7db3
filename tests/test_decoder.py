"""Decoder: sources that are frames are shown as they came, the others are rebuilt."""

import numpy as np
import pytest
from iwcodec.decoder import MOST_SHOWN, Decoder, Motion, MotionDecoder
from iwcodec.encoder import Encoder, EncoderSettings
from iwcodec.errors import FormatError
from iwcodec.library import CAPACITY
from iwcodec.motion import MotionCoder, Quantiser
from iwcodec.motion_tables import load_tables
from iwcodec.packets import MotionPacket, SourcePacket, runs_of
from iwcodec.sources import SourceDecoder
from stub_runtime import StubRuntime, picture

LEVELS = (60, 90, 120, 150)


def test_a_frame_that_is_a_source_is_shown_as_it_came():
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
    assert all(np.ptp(frame.picture) == 0 for frame in frames if frame.number != 2)  # rebuilt ones are flat here


def test_pictures_that_wait_are_bounded():
    encoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False))
    payload = encoder.add_source(picture(100)).payload
    later = encoder.add_source(picture(101)).payload
    decoder = Decoder(StubRuntime())
    decoder.add_source(SourcePacket(0, payload, 0))
    for n in range(1, MOST_SHOWN + 60):
        decoder.add_source(SourcePacket(n, later, n))
    assert len(decoder._shown) == MOST_SHOWN
    assert len(decoder._waiting) == CAPACITY
    assert decoder.picture(Motion(0, StubRuntime().detect(picture(50)))) is not None
    assert len(decoder.library) == CAPACITY


def test_frames_that_are_not_coded_lie_between_those_that_are():
    coder, quantiser = MotionCoder(load_tables()), Quantiser()
    levels = np.zeros((3, 20, 3), np.int32)
    levels[:, :, 2], levels[1, 0, 0], levels[2, 0, 0] = 5, 12, 4
    packet = MotionPacket(10, 6, None, coder.encode(levels, None), runs_of([7, 7, 7, 7, 8, 8]), 3)
    found = MotionDecoder(20).decode(packet, quantiser)
    assert [motion.number for motion in found] == [10, 11, 12, 13, 14, 15]
    assert [motion.leader for motion in found] == [7, 7, 7, 7, 8, 8]
    places = np.array([motion.keypoints[0, 0] for motion in found]) / quantiser.step_xy
    np.testing.assert_allclose(places, [0, 4, 8, 12, 4, 4], atol=1e-4)  # the source that leads changes: no way between


def test_only_coded_frames_are_referred_to():
    coder = MotionCoder(load_tables())
    levels = np.zeros((2, 20, 3), np.int32)
    decoder = MotionDecoder(20)
    decoder.decode(MotionPacket(0, 3, None, coder.encode(levels, None), (), 2), Quantiser())
    payload = coder.encode(levels[:1], levels[0])
    decoder.decode(MotionPacket(3, 1, 2, payload), Quantiser())
    with pytest.raises(FormatError):
        decoder.decode(MotionPacket(4, 1, 1, payload), Quantiser())


def test_the_source_that_leads_comes_first():
    encoder, decoder = Encoder(StubRuntime(), EncoderSettings(live_sources=False)), Decoder(StubRuntime())
    for level in LEVELS:
        decoder.add_source(encoder.add_source(picture(level)))
    keypoints = StubRuntime().detect(picture(LEVELS[0]))
    by_pose, led = decoder.nearest(keypoints), decoder.nearest(keypoints, 3)
    assert decoder.library.slot(by_pose[0]) == 0
    assert [decoder.library.slot(source) for source in led] == [3, 0, 1]
    assert decoder.nearest(keypoints, 9) == by_pose  # not there
