"""Decoding of motion packets: only from available reference frames of the same quantiser."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MotionPacket, Run
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.decoder import MotionDecoder
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.space import motion_space
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from support.codec.fuzzing import mutated
from support.codec.textured_source import moved, textured_source

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


SPACES = {n: motion_space(textured_source(moved(9 * n, 0)), load_transform_tables().directions) for n in (0, 1)}


PLACE = np.random.default_rng(2).normal(0, 3, (1, 60))
"""Coordinates of a frame."""


def gram(slot: int) -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(SPACES[slot].columns @ SPACES[slot].columns.T))


def transformed_packets() -> tuple[MotionEncoder, list[MotionPacket]]:
    """Packets of frames 0 and 1, and of frames 2 and 3, predicted from frame 1 and like it."""
    encoder = MotionEncoder()
    keypoints = SPACES[0].keypoints(PLACE)[0]
    for _ in range(2):
        encoder.push(keypoints, 0, gram(0), (None, 7), SPACES[0])
    packets = [encoder.pack(0, 2)]
    encoder.acknowledge(1)
    for _ in range(2):
        encoder.push(keypoints, 0, gram(0), (None, 7), SPACES[0])
    return encoder, [*packets, encoder.pack(2, 2)]


def test_transformed_frames_are_differences_from_the_reference_frame() -> None:
    _, (first, second) = transformed_packets()
    assert (second.reference, second.alike, second.runs, second.regions) == (1, True, (), ())
    assert len(second.payload) < len(first.payload) / 3
    decoder = MotionDecoder(20, spaces=SPACES.get)
    frames = [*decoder.decode(first, USUAL), *decoder.decode(second, COARSE)]  # steps do not matter: they have a scale
    assert [(frame.number, frame.reference_source) for frame in frames] == [(n, 0) for n in range(4)]
    assert {frame.regions for frame in frames} == {(None, 7)}
    assert decoder.newest == 3
    np.testing.assert_allclose(frames[3].keypoints, frames[0].keypoints, atol=0.02)


def test_frames_of_another_source_stand_alone() -> None:
    encoder, (first, _) = transformed_packets()
    for slot in (0, 1):
        encoder.push(SPACES[slot].keypoints(PLACE + 0.5)[0], slot, gram(slot), (), SPACES[slot])
    mixed = encoder.pack(4, 2)
    assert (mixed.reference, mixed.runs) == (1, (Run(0, 1), Run(1, 1)))
    decoder = MotionDecoder(20, spaces=SPACES.get)
    decoder.decode(first, USUAL)
    for frame, slot in zip(decoder.decode(mixed, USUAL), (0, 1), strict=True):
        expected = SPACES[slot].keypoints(PLACE + 0.5)[0]
        np.testing.assert_allclose(frame.keypoints[:, :2], expected[:, :2], atol=0.02)  # strengths move nothing there
        assert frame.regions == ()


def test_transformed_frames_need_their_reference_frame_and_source() -> None:
    _, (first, second) = transformed_packets()
    with pytest.raises(FormatError, match="frame 1"):
        MotionDecoder(20, spaces=SPACES.get).decode(second, USUAL)
    decoder = MotionDecoder(20)
    with pytest.raises(FormatError, match="source 0"):
        decoder.decode(first, USUAL)
    assert decoder.newest is None  # what was not decoded is not acknowledged
    single = MotionDecoder(20, spaces=SPACES.get)
    single.decode(replace(first, count=1, runs=(Run(0, 1),), payload=b"\0"), USUAL)
    with pytest.raises(FormatError, match="frame 1"):
        single.decode(second, USUAL)


def test_a_coordinate_beyond_all_keypoints_is_refused() -> None:
    """Message by message, a peer could add up differences until they are no numbers any more."""
    payload = TransformCoder(load_transform_tables()).encode([np.full((1, 60), 30_000, np.int32)])
    decoder = MotionDecoder(20, spaces=SPACES.get)
    with pytest.raises(FormatError, match="out of range"):
        decoder.decode(MotionPacket(0, 1, None, payload, (Run(0, 1),), scale=255), USUAL)
    decoder.decode(MotionPacket(0, 1, None, payload, (Run(0, 1),), scale=150), USUAL)
    chain = [MotionPacket(number + 1, 1, number, payload, scale=150, alike=True) for number in range(300)]
    with pytest.raises(FormatError, match="out of range"):
        [decoder.decode(packet, USUAL) for packet in chain]


def test_damaged_transformed_packets_are_decoded_or_refused() -> None:
    _, packets = transformed_packets()
    rng, decoder = np.random.default_rng(3), MotionDecoder(20, spaces=SPACES.get)
    outcomes = set()
    for n in range(200):
        try:
            frames = decoder.decode(MotionPacket.from_bytes(mutated(packets[n % 2].to_bytes(), rng)), USUAL)
        except FormatError:
            outcomes.add("refused")
        else:
            outcomes.add("decoded")
            assert all(np.isfinite(frame.keypoints).all() for frame in frames)
    assert outcomes == {"refused", "decoded"}
