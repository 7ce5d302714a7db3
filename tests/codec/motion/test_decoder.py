"""Decoding of motion packets: only from available reference frames of the same quantiser."""

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MotionPacket, Run
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.decoder import MotionDecoder
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser

USUAL = Quantiser()
COARSE = Quantiser(2 * USUAL.step_xy, 2 * USUAL.step_strength)


def predicted_packets() -> tuple[MotionPacket, MotionPacket]:
    """An independent packet of frames 0 and 1, and a packet of frames 2 to 4 predicted from frame 1."""
    encoder, keypoints = MotionEncoder(), np.random.default_rng(1).uniform(-0.9, 0.9, (20, 3)).astype(np.float32)
    for _ in range(5):
        encoder.push(keypoints)
    independent = encoder.pack(0, 2)
    encoder.acknowledge(1)
    return independent, encoder.pack(2, 3)


def test_the_newest_frame_is_to_be_acknowledged() -> None:
    decoder, (independent, predicted) = MotionDecoder(20), predicted_packets()
    assert decoder.newest is None
    decoder.decode(independent, USUAL)
    assert decoder.newest == 1
    assert [motion.number for motion in decoder.decode(predicted, USUAL)] == [2, 3, 4]
    assert decoder.newest == 4


def test_a_missing_reference_frame_is_refused() -> None:
    _, predicted = predicted_packets()
    with pytest.raises(FormatError, match="frame 1"):
        MotionDecoder(20).decode(predicted, USUAL)


def test_a_reference_frame_of_another_quantiser_is_refused() -> None:
    decoder, (independent, predicted) = MotionDecoder(20), predicted_packets()
    decoder.decode(independent, COARSE)
    with pytest.raises(FormatError, match="frame 1"):
        decoder.decode(predicted, USUAL)


def test_packets_of_the_transform_coder_are_refused() -> None:
    payload = TransformCoder(load_transform_tables()).encode([np.zeros((2, 60), np.int32)])
    with pytest.raises(FormatError, match="transform coder"):
        MotionDecoder(20).decode(MotionPacket(10, 2, None, payload, (Run(0, 2),), scale=70), USUAL)
