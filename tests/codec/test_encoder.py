"""Motion packets against acknowledged frames; the encoder as a whole."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_FRAMES, MotionPacket, SourcePacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.video import read_video
from iwcodec.codec.motion.decoder import MotionDecoder
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.types import Quantiser
from iwcodec.models.runtime.load import load_runtime
from stub_runtime import StubRuntime, picture

USUAL = Quantiser()
COARSE = Quantiser(2 * USUAL.step_xy, 2 * USUAL.step_strength)


def track(frames: int) -> NDArray[np.float32]:
    """Keypoints far from where any mean would expect them, moving slowly."""
    rng = np.random.default_rng(1)
    start = rng.uniform(-0.9, 0.9, (1, 20, 3))
    return np.clip(start + np.cumsum(rng.normal(0, 0.01, (frames, 20, 3)), 0), -1, 1).astype(np.float32)


def test_a_packet_stands_alone_until_a_frame_is_acknowledged():
    encoder, keypoints = MotionEncoder(), track(9)
    for row in keypoints:
        encoder.push(row)
    alone = encoder.pack(6, 3)
    assert alone.reference is None
    encoder.acknowledge(4)
    predicted = encoder.pack(6, 3)
    assert predicted.reference == 4
    assert len(predicted.payload) < 0.7 * len(alone.payload)
    decoder = MotionDecoder(20)
    decoder.decode(encoder.pack(0, 6), USUAL)
    assert decoder.newest == 5
    decoded = decoder.decode(predicted, USUAL)
    assert [frame.number for frame in decoded] == [6, 7, 8]
    for frame, other in zip(decoded, MotionDecoder(20).decode(alone, USUAL), strict=True):
        assert np.array_equal(frame.keypoints, other.keypoints)
        expected = np.clip(keypoints[frame.number], [-1, -1, 0], 1)
        assert np.abs(frame.keypoints - expected).max(0) == pytest.approx(0, abs=0.05)


def test_the_reference_lies_before_the_packet():
    encoder = MotionEncoder()
    for row in track(6):
        encoder.push(row)
    encoder.acknowledge(4)
    assert encoder.pack(3, 3).reference is None
    encoder.acknowledge(2)  # an older one changes nothing
    encoder.acknowledge(99)  # nor one that was never pushed
    assert encoder.pack(5, 1).reference == 4


def test_an_unknown_reference():
    encoder = MotionEncoder()
    for row in track(6):
        encoder.push(row)
    encoder.acknowledge(1)
    packet = encoder.pack(2, 3)
    with pytest.raises(FormatError, match="frame 1"):
        MotionDecoder(20).decode(packet, USUAL)


def test_other_steps():
    """With coarser steps packets are smaller; a reference with other steps is none."""
    encoder, decoder, keypoints = MotionEncoder(), MotionDecoder(20), track(20)
    for row in keypoints[:10]:
        encoder.push(row)
    decoder.decode(encoder.pack(0, 10), USUAL)
    encoder.acknowledge(9)
    encoder.requantise(COARSE)
    for row in keypoints[10:]:
        encoder.push(row)
    coarse = encoder.pack(10, 5)
    assert coarse.reference is None
    encoder.acknowledge(9)
    assert encoder.pack(10, 5).reference is None
    decoder.decode(coarse, COARSE)
    encoder.acknowledge(14)
    predicted = encoder.pack(15, 5)
    assert predicted.reference == 14
    with pytest.raises(FormatError):
        decoder.decode(predicted, USUAL)
    frames = decoder.decode(predicted, COARSE)
    expected = np.clip(keypoints[15:], [-1, -1, 0], 1)
    assert np.abs(np.stack([f.keypoints for f in frames]) - expected).max() < 0.1


def test_frames_are_kept_for_a_while_only():
    encoder, decoder = MotionEncoder(), MotionDecoder(20)
    for number, row in enumerate(track(3 * MAX_FRAMES)):
        encoder.push(row)
        decoder.decode(encoder.pack(number, 1), USUAL)
    with pytest.raises(KeyError):
        encoder.pack(0, 1)
    assert len(encoder._levels) == len(decoder._levels) == MAX_FRAMES
    assert decoder.newest == 3 * MAX_FRAMES - 1


def test_what_errors_cost_decides_what_is_sent():
    """Of a move that shakes, only what is worth its bits; where another source leads, all of it."""
    rng = np.random.default_rng(3)
    start = np.full((20, 3), 0.4, np.float32)
    calm, touchy = np.eye(60) * 1e-3, np.eye(60) * 1e6

    def sent(gram: np.ndarray | None, reference_sources: tuple[int, int] = (0, 0)) -> np.ndarray:
        encoder = MotionEncoder()
        encoder.push(start, reference_sources[0], gram)
        number = encoder.push(start + rng.uniform(0.02, 0.04, (20, 3)).astype(np.float32), reference_sources[1], gram)
        return encoder._levels[number] - encoder._levels[number - 1]

    assert not sent(calm).any()
    assert np.count_nonzero(sent(touchy)) > 30
    assert np.count_nonzero(sent(calm, (0, 1))) > 20


@pytest.mark.parametrize("message", [1, 5, 50])
def test_sender_and_receiver_keep_the_same_sources(message: int):
    """A full library forgets one with every source that comes: the same here and there, and none that is awaited."""
    rng = np.random.default_rng(0)
    levels = 128 + 100 * np.sin(np.arange(400) / 40) * rng.uniform(0.5, 1.0, 400)
    encoder = Encoder(StubRuntime(), EncoderSettings(message_frames=message, capacity=6))
    decoder, sources, frames = Decoder(StubRuntime(), capacity=6), 0, 0
    for level in levels:
        for packet in encoder.push(picture(level)):
            if isinstance(packet, MotionPacket):
                runs = {run.slot for run in packet.runs}
                frames += len(list(decoder.push(packet)))
                assert runs <= set(decoder.library.slots())
            else:
                sources += 1
                decoder.add_source(packet)
    assert sources > 12
    for packet in encoder.flush():
        frames += len(list(decoder.push(packet)))
    assert frames == len(levels)
    assert set(decoder.library.slots()) == set(encoder.library.slots())


def test_live_encoder_makes_its_own_sources(face_clip: Path):
    runtime = load_runtime()
    encoder = Encoder(runtime, EncoderSettings(message_frames=4))
    decoder = Decoder(runtime)
    pictures = [np.ascontiguousarray(f.picture[:256, 180:436]) for f in read_video(face_clip)][:10]
    packets = [p for picture in pictures for p in encoder.push(picture)] + encoder.flush()
    assert isinstance(packets[0], SourcePacket)
    assert [p.count for p in packets if isinstance(p, MotionPacket)] == [4, 4, 2]
    frames = [frame for packet in packets for frame in decoder.push(packet)]
    assert [frame.number for frame in frames] == list(range(10))
    assert psnr(frames[0].picture, pictures[0]) > 20
