"""Decoder: sources that are frames are shown as they came, the others are rebuilt."""

import numpy as np
from iwcodec.decoder import MOST_SHOWN, Decoder
from iwcodec.encoder import Encoder, EncoderSettings
from iwcodec.library import CAPACITY
from iwcodec.packets import SourcePacket
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
    assert decoder.picture(0, StubRuntime().detect(picture(50))) is not None
    assert len(decoder.library) == CAPACITY
