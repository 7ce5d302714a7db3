"""Motion packets: prediction from acknowledged frames, and rate-distortion optimised quantisation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.decoder import MotionDecoder
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.types import Quantiser

USUAL = Quantiser()
COARSE = Quantiser(2 * USUAL.step_xy, 2 * USUAL.step_strength)


def track(frames: int) -> NDArray[np.float32]:
    """Keypoints (frames, 20, 3) far from any mean, moving slowly."""
    rng = np.random.default_rng(1)
    start = rng.uniform(-0.9, 0.9, (1, 20, 3))
    return np.clip(start + np.cumsum(rng.normal(0, 0.01, (frames, 20, 3)), 0), -1, 1).astype(np.float32)


def test_packets_are_independent_until_a_frame_is_acknowledged() -> None:
    encoder, keypoints = MotionEncoder(), track(9)
    for row in keypoints:
        encoder.push(row)
    independent = encoder.pack(6, 3)
    assert independent.reference is None
    encoder.acknowledge(4)
    predicted = encoder.pack(6, 3)
    assert predicted.reference == 4
    assert len(predicted.payload) < 0.7 * len(independent.payload)
    decoder = MotionDecoder(20)
    decoder.decode(encoder.pack(0, 6), USUAL)
    assert decoder.newest == 5
    decoded = decoder.decode(predicted, USUAL)
    assert [frame.number for frame in decoded] == [6, 7, 8]
    for frame, other in zip(decoded, MotionDecoder(20).decode(independent, USUAL), strict=True):
        assert np.array_equal(frame.keypoints, other.keypoints)
        expected = np.clip(keypoints[frame.number], [-1, -1, 0], 1)
        assert np.abs(frame.keypoints - expected).max(0) == pytest.approx(0, abs=0.05)


def test_the_reference_frame_precedes_the_packet() -> None:
    encoder = MotionEncoder()
    for row in track(6):
        encoder.push(row)
    encoder.acknowledge(4)
    assert encoder.pack(3, 3).reference is None
    encoder.acknowledge(2)  # older: no effect
    encoder.acknowledge(99)  # never pushed: no effect
    assert encoder.pack(5, 1).reference == 4


def test_a_new_quantiser_ends_prediction_from_earlier_frames() -> None:
    """Frames can only be predicted from frames of the same quantiser."""
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


def test_only_the_newest_frames_are_kept() -> None:
    encoder, decoder = MotionEncoder(), MotionDecoder(20)
    for number, row in enumerate(track(3 * MAX_PACKET_FRAMES)):
        encoder.push(row)
        decoder.decode(encoder.pack(number, 1), USUAL)
    with pytest.raises(KeyError):
        encoder.pack(0, 1)
    assert len(encoder._levels) == len(decoder._levels) == MAX_PACKET_FRAMES
    assert decoder.newest == 3 * MAX_PACKET_FRAMES - 1


def test_the_gram_matrix_decides_which_changes_are_sent() -> None:
    """Small changes are sent if their error is worth the bits; after a change of reference source all are sent."""
    rng = np.random.default_rng(3)
    start = np.full((20, 3), 0.4, np.float32)
    insensitive, sensitive = np.eye(60) * 1e-3, np.eye(60) * 1e6

    def delta(gram: np.ndarray | None, reference_sources: tuple[int, int] = (0, 0)) -> np.ndarray:
        encoder = MotionEncoder()
        encoder.push(start, reference_sources[0], gram)
        number = encoder.push(start + rng.uniform(0.02, 0.04, (20, 3)).astype(np.float32), reference_sources[1], gram)
        return encoder._levels[number] - encoder._levels[number - 1]

    assert not delta(insensitive).any()
    assert np.count_nonzero(delta(sensitive)) > 30
    assert np.count_nonzero(delta(insensitive, (0, 1))) > 20
