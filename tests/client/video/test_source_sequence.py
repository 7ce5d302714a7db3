"""Source sequences: decodable units, the numbers of their sources, and smaller pictures for narrow links."""

import cv2
import numpy as np

from iwcodec.client.video.source_sequence import KEPT_UNITS, SourceSequence
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.space import motion_space
from iwcodec.codec.sources.av1 import SourceDecoder
from support.codec.stub_runtime import SIZE, StubRuntime, picture


def textured(size: int) -> Picture:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    return cv2.resize(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX), (size, size))


def test_units_decode_to_the_pictures_that_add_returns() -> None:
    sequence, decoder = SourceSequence(SIZE), SourceDecoder(SIZE)
    for number, level in ((5, 60), (None, 90), (6, 120)):
        coded = sequence.add(picture(level), number)
        packet = SourcePacket.from_bytes(sequence.units[sequence.next - 1].packet)
        assert np.array_equal(decoder.add(packet.payload), coded)
        assert packet.slot == sequence.next - 1
    assert sequence.numbers == {5: 0, 6: 2}
    assert [unit.is_snapshot for unit in sequence.units.values()] == [False, True, False]


def test_only_the_newest_units_are_kept() -> None:
    sequence = SourceSequence(SIZE)
    for number in range(KEPT_UNITS + 2):
        sequence.add(picture(number), number)
    assert list(sequence.units) == list(range(2, KEPT_UNITS + 2))


def test_small_sequences_are_smaller() -> None:
    usual, small = SourceSequence(256), SourceSequence(256, small=True)
    coded = [sequence.add(textured(256)) for sequence in (usual, small)]
    assert len(small.units[0].packet) < 0.7 * len(usual.units[0].packet)
    decoded = SourceDecoder(256).add(SourcePacket.from_bytes(small.units[0].packet).payload)
    assert np.array_equal(decoded, coded[1])


def test_variants_name_the_slot_of_their_base() -> None:
    sequence, decoder = SourceSequence(SIZE), SourceDecoder(SIZE)
    for number, base in ((5, None), (6, None), (9, 6)):
        coded = sequence.add(picture(10 * number), number, base)
        packet = SourcePacket.from_bytes(sequence.units[sequence.next - 1].packet)
        assert np.array_equal(decoder.add(packet.payload), coded)
    assert packet.base == sequence.numbers[6] == 1
    assert not sequence.units[2].is_snapshot


def test_coordinates_of_sources_that_have_left_the_library_are_forgotten() -> None:
    sequence = SourceSequence(SIZE)
    for number, base in ((3, None), (4, None), (5, 4), (8, None)):
        sequence.add(picture(10 * number), number, base)
    assert list(sequence.pending) == [3, 4, 8]  # a variant moves as its base
    sequence.spaces = {3: motion_space(StubRuntime().prepare(picture(3)), np.eye(60))}
    sequence.keep_spaces({4, 5})
    assert (list(sequence.spaces), list(sequence.pending)) == ([], [4, 8])  # 8 is about to enter it
