"""Motion packets: prediction from acknowledged frames, and rate-distortion optimised quantisation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES
from iwcodec.codec.errors import FormatError
from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.motion.decoder import MotionDecoder
from iwcodec.codec.motion.encoder import LIVE_SCALE, MotionEncoder
from iwcodec.codec.motion.space import MotionSpace, motion_space
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from support.codec.textured_source import textured_source

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


SPACE = motion_space(textured_source(), load_transform_tables().directions)
GRAM = np.linalg.inv(SPACE.columns @ SPACE.columns.T)


def walk(frames: int) -> NDArray[np.float64]:
    """Coordinates (frames, 60) of a face that moves slowly, mostly as a whole."""
    rng = np.random.default_rng(5)
    return 4 + np.cumsum(rng.normal(0, 0.3, (frames, 60)) * np.geomspace(1, 0.01, 60), 0)


def push_walk(encoder: MotionEncoder, frames: int, space: MotionSpace | None) -> list[NDArray[np.float32]]:
    keypoints = SPACE.keypoints(walk(frames))
    for row in keypoints:
        encoder.push(row, 0, GRAM, (None, None), space)
    return keypoints


def test_coordinates_of_the_source_take_fewer_bytes() -> None:
    """With less error, in messages of four frames that refer to the message before the last one."""

    def cost(space: MotionSpace | None) -> tuple[int, float]:
        encoder, decoder, size, error = MotionEncoder(), MotionDecoder(20, spaces={0: SPACE}.get), 0, 0.0
        rows = push_walk(encoder, 40, space)
        for first in range(0, 40, 4):
            encoder.acknowledge(first - 5)
            packet = encoder.pack(first, 4)
            size += len(packet.to_bytes())
            for frame in decoder.decode(packet, USUAL):
                off = SPACE.coordinates(unknowns(frame.keypoints)) - SPACE.coordinates(unknowns(rows[frame.number]))
                error += float(off @ off)
        return size, error

    (size, error), (predictive_size, predictive_error) = cost(SPACE), cost(None)
    assert size < 0.85 * predictive_size
    assert error < predictive_error


def test_repeated_frames_refer_to_what_was_acknowledged() -> None:
    """A frame that is packed again has other coordinates; those of the packet that ended with it count."""
    encoder = MotionEncoder()
    push_walk(encoder, 12, SPACE)
    packets = [encoder.pack(0, 4), encoder.pack(2, 6)]
    encoder.acknowledge(2)  # within a packet: it cannot be the newest frame of a receiver
    assert encoder.pack(8, 4).reference is None
    encoder.acknowledge(3)
    packets.append(encoder.pack(4, 8))
    assert packets[2].reference == 3
    whole, lossy = MotionDecoder(20, spaces={0: SPACE}.get), MotionDecoder(20, spaces={0: SPACE}.get)
    expected = [whole.decode(packet, USUAL) for packet in packets][2]
    lossy.decode(packets[0], USUAL)
    for frame, other in zip(lossy.decode(packets[2], USUAL), expected, strict=True):
        assert np.array_equal(frame.keypoints, other.keypoints)


def test_a_frame_without_coordinates_makes_its_packet_predictive() -> None:
    encoder, decoder = MotionEncoder(), MotionDecoder(20)
    rows = push_walk(encoder, 2, SPACE)
    encoder.push(rows[1], 0)
    packet = encoder.pack(0, 3)
    assert packet.scale is None
    decoded = decoder.decode(packet, USUAL)
    assert np.abs(decoded[0].keypoints - rows[0]).max() <= 0.05
    encoder.acknowledge(2)
    push_walk(encoder, 1, SPACE)
    assert (encoder.pack(3, 1).reference, encoder.pack(3, 1).scale) == (None, LIVE_SCALE)


def test_frames_that_were_not_fitted_are_transform_coded_only_beside_fitted_ones() -> None:
    encoder = MotionEncoder()
    (row,) = SPACE.keypoints(walk(1))
    for gram in (None, GRAM, None, None):
        encoder.push(row, 0, gram, (), SPACE)
    assert [encoder.pack(first, 2).scale for first in (0, 2)] == [LIVE_SCALE, None]
    assert encoder.pack(3, 1).scale is None


def test_a_far_reference_frame_is_not_used() -> None:
    encoder = MotionEncoder()
    encoder.push(SPACE.keypoints(np.full((1, 60), 9.0))[0], 0, GRAM, (), SPACE)
    encoder.pack(0, 1)
    encoder.acknowledge(0)
    encoder.push(SPACE.keypoints(np.full((1, 60), 0.5))[0], 0, GRAM, (), SPACE)
    packet = encoder.pack(1, 1)
    assert (packet.reference, packet.scale) == (None, LIVE_SCALE)


def test_nothing_refers_to_what_is_forgotten() -> None:
    encoder = MotionEncoder()
    push_walk(encoder, 4, SPACE)
    encoder.pack(0, 4)
    encoder.acknowledge(3)
    encoder.forget()
    encoder.acknowledge(3)
    push_walk(encoder, 4, SPACE)
    assert encoder.pack(4, 4).reference is None


def test_frames_that_wait_name_no_source_after_what_they_named_is_forgotten() -> None:
    encoder = MotionEncoder()
    push_walk(encoder, 4, SPACE)
    encoder.forget()
    packet = encoder.pack(0, 4)
    assert (packet.scale, packet.reference, packet.runs, packet.regions) == (None, None, (), ())


def test_coarser_steps_make_the_scale_coarser() -> None:
    encoder = MotionEncoder(COARSE)
    push_walk(encoder, 4, SPACE)
    assert encoder.pack(0, 4).scale == LIVE_SCALE + 16
