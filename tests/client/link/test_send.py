"""Motion messages and source chunks: grouping, repetition, pacing."""

from dataclasses import replace

import numpy as np
import pytest

from iwcodec.client.link.congestion_control import LADDER, SendParameters
from iwcodec.client.link.messages import MAX_MESSAGE_FRAMES, MotionMessage, SourceChunk
from iwcodec.client.link.send import (
    FIRST_PART,
    LAST_PART,
    MAX_BEHIND,
    NARROW_KBPS,
    NARROW_PART,
    PART,
    SAVED,
    MotionSender,
    SourceSender,
    quantiser,
)
from iwcodec.client.video.source_sequence import SourceSequence
from iwcodec.client.video.video_sender import OutgoingFrame
from iwcodec.codec.fit.alignment import as_keypoints, unknowns
from iwcodec.codec.motion.decoder import MotionDecoder
from iwcodec.codec.motion.types import Quadratic
from support.codec.stub_runtime import SIZE, picture

SENDING = SendParameters(3, 1, 0, 8.0)


def frame(number: int, interval_ms: int = 40) -> OutgoingFrame:
    keypoints = np.full((20, 3), 0.3 + 0.01 * np.sin(number / 5), np.float32)
    return OutgoingFrame(1000 + number * interval_ms, keypoints)


def send(sender: MotionSender, frames: range) -> list[MotionMessage]:
    return [MotionMessage.from_bytes(sender.message(None)) for number in frames if sender.take(frame(number)) or False]


def test_frames_are_grouped_into_messages() -> None:
    messages = send(MotionSender(SENDING), range(9))
    assert [m.packet.first for m in messages] == [0, 3, 6]
    assert [m.sequence for m in messages] == [0, 1, 2]
    assert messages[1].stamps == (1120, 1160, 1200)


@pytest.mark.parametrize(("interval_ms", "frames"), [(20, 8), (33, 5), (40, 4), (50, 3), (80, 2), (133, 2), (170, 1)])
def test_a_message_takes_the_same_time_from_any_camera(interval_ms: int, frames: int) -> None:
    sender = MotionSender(LADDER[0])
    full = [sender.take(frame(number, interval_ms)) and bool(sender.message(None)) for number in range(3 * frames + 1)]
    ends = [number for number, is_full in enumerate(full) if is_full]
    assert np.diff(ends).tolist() == [frames] * (len(ends) - 1)
    assert len(ends) >= 2


def test_messages_say_what_regions_show() -> None:
    sender = MotionSender(SENDING)
    shown = [(None, None), (4, None), (4, 7)]
    full = [sender.take(replace(frame(n), reference_source=2, regions=regions)) for n, regions in enumerate(shown)]
    assert full == [False, False, True]
    packet = MotionMessage.from_bytes(sender.message(None)).packet
    assert [packet.regions_of(n) for n in range(3)] == shown
    for n in range(3, 6):
        sender.take(replace(frame(n), reference_source=2, regions=(None, None)))
    assert MotionMessage.from_bytes(sender.message(None)).packet.regions == ()  # costs nothing


def test_error_costs_improve_the_quantisation() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(60, 60))
    fits = [Quadratic(0.3 + 0.05 * rng.random(60), root @ root.T) for _ in range(6)]

    def error(with_costs: bool) -> float:
        sender, decoder, total = MotionSender(SENDING), MotionDecoder(20), 0.0
        for number, fit in enumerate(fits):
            costs = fit.gram if with_costs else None
            if sender.take(OutgoingFrame(1000 + 40 * number, as_keypoints(fit.target), reference_source=0, gram=costs)):
                packet = MotionMessage.from_bytes(sender.message(None)).packet
                for row, expected in zip(decoder.decode(packet, quantiser(0)), fits[packet.first :], strict=False):
                    total += expected.of(unknowns(row.keypoints))
        return total

    assert error(True) < 0.75 * error(False)


def test_stride_of_two_sends_every_second_frame() -> None:
    sender = MotionSender(SendParameters(3, 2, 0, 8.0))
    messages = send(sender, range(12))
    assert [m.packet.first for m in messages] == [0, 3]
    assert messages[1].stamps == (1240, 1320, 1400)


def test_no_message_spans_a_change_of_stride() -> None:
    sender = MotionSender(SendParameters(4, 2, 0, 8.0))
    assert [sender.take(frame(n)) for n in range(3)] == [False] * 3
    sender.sending = SendParameters(4, 1, 0, 8.0)
    assert sender.take(frame(3))
    assert MotionMessage.from_bytes(sender.message(None)).stamps == (1000, 1080, 1120)
    assert [sender.take(frame(n)) for n in range(4, 8)] == [False, False, False, True]


def test_acknowledged_frames_are_references_and_are_not_repeated() -> None:
    sender = MotionSender(SendParameters(3, 1, 0, 8.0, repeats=1))
    messages = send(sender, range(6))
    assert (messages[1].packet.first, messages[1].packet.count) == (0, 6)
    sender.acknowledge_low(4)
    (message,) = send(sender, range(6, 9))
    assert (message.packet.first, message.packet.count, message.packet.reference) == (5, 4, 4)
    sender.acknowledge_low(8)
    (message,) = send(sender, range(9, 12))
    assert (message.packet.first, message.packet.count, message.packet.reference) == (9, 3, 8)


def test_frames_are_repeated_twice_with_two_repeats() -> None:
    sender = MotionSender(SendParameters(3, 1, 0, 8.0, repeats=2))
    spans = [(m.packet.first, m.packet.count) for m in send(sender, range(12))]
    assert spans == [(0, 3), (0, 6), (0, 9), (3, 9)]


def test_acknowledgements_are_counted_modulo_256() -> None:
    sender = MotionSender(SENDING)
    send(sender, range(600))
    sender.acknowledge_low(597 & 0xFF)  # or 341, or 85: ambiguous
    (message,) = send(sender, range(600, 603))
    assert message.packet.reference is None
    sender.acknowledge(500)
    sender.acknowledge_low(599 & 0xFF)
    (message,) = send(sender, range(603, 606))
    assert message.packet.reference == 599


def test_skip_keeps_the_newest_frames() -> None:
    sender = MotionSender(SENDING)
    for number in range(10):
        sender.take(frame(number))
    assert sender.skip() == 7
    message = MotionMessage.from_bytes(sender.message(None))
    assert (message.packet.first, message.packet.count) == (7, 3)
    for number in range(10, 15):
        sender.take(frame(number))
    assert sender.skip(kept=1) == 4
    assert MotionMessage.from_bytes(sender.message(None)).packet.first == 14


def test_coarser_steps_begin_with_a_new_message() -> None:
    sender = MotionSender(SENDING)
    first = send(sender, range(4))
    sender.sending = SendParameters(3, 1, 2, 3.0, repeats=1)
    second = send(sender, range(4, 9))
    assert [m.coarseness for m in (*first, *second)] == [0, 0, 2]
    assert second[1].packet.first == 6  # frames with the former steps are not repeated
    decoder = MotionDecoder(20)
    for message in (*first, *second):
        decoded = decoder.decode(message.packet, quantiser(message.coarseness))
    assert decoded[-1].keypoints == pytest.approx(0.3, abs=0.12)


def test_no_message_spans_a_pause() -> None:
    sender = MotionSender(SendParameters(3, 1, 0, 8.0, repeats=1))
    send(sender, range(4))
    (message,) = send(sender, range(1000, 1003))
    assert message.stamps[0] == 1000 + 1000 * 40
    assert message.packet.count == 3


def test_message_size_is_bounded() -> None:
    sender = MotionSender(SendParameters(3, 1, 0, 8.0, repeats=1))
    for number in range(40):
        sender.take(frame(number))
    assert MotionMessage.from_bytes(sender.message(None)).packet.count == MAX_MESSAGE_FRAMES
    with pytest.raises(ValueError, match="no frame"):
        sender.message(None)


def sequence_of(count: int) -> SourceSequence:
    sequence = SourceSequence(SIZE)
    for n in range(count):
        sequence.add(picture(60 + 20 * n))
    return sequence


def drain(sender: SourceSender, kbps: float, from_s: float, seconds: float) -> list[SourceChunk]:
    chunks = []
    for n in range(round(seconds / 0.1)):
        sender.fill(from_s + n * 0.1, kbps)
        while (chunk := sender.chunk()) is not None:
            chunks.append(chunk)
    return chunks


def test_sources_are_paced_and_complete() -> None:
    sequence = sequence_of(4)
    sender = SourceSender()
    assert drain(sender, 4.0, 0, 1) == []
    sender.start(sequence)
    chunks = drain(sender, 4.0, 1, 20)
    for index, unit in sequence.units.items():
        assert b"".join(c.part for c in chunks if c.index == index) == unit.packet
    assert max(len(chunk.part) for chunk in chunks) <= LAST_PART * PART
    assert sender.backlog() == 0
    sent = [len(c.part) for c in drain_again(sequence, 1.0)]
    assert sum(sent) <= 2 * PART + 1.0 * 125 * 1.0 + PART


def test_chunks_have_full_size_and_are_smaller_on_narrow_links() -> None:
    """All but the last chunk of a unit have the maximum size, and there is no burst."""
    sequence, rng = SourceSequence(SIZE), np.random.default_rng(4)
    for _ in range(4):
        sequence.add(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    for kbps, part in ((8.0, PART), (NARROW_KBPS, NARROW_PART)):
        sender = SourceSender()
        sender.start(sequence)
        chunks = drain(sender, kbps, 0, 30)
        ends = {(c.index, c.offset + len(c.part)) for c in chunks if c.offset + len(c.part) == c.length}
        whole = [len(c.part) for c in chunks if (c.index, c.offset + len(c.part)) not in ends]
        assert set(whole) == {part}
        assert len(ends) == 4
        sender.start(sequence)
        assert sum(len(c.part) for c in drain(sender, kbps, 0, 0.1)) <= (SAVED if part == PART else PART)


@pytest.mark.parametrize("index", [0, 2])
def test_first_picture_is_sent_in_larger_chunks(index) -> None:
    """It is also sent in a larger burst; the next units use the usual chunks."""
    sequence, rng = SourceSequence(2 * SIZE), np.random.default_rng(4)
    for _ in range(4):
        sequence.add(rng.integers(0, 256, (2 * SIZE, 2 * SIZE, 3), dtype=np.uint8))
    sender = SourceSender()
    sender.start(sequence, index, first=True)
    chunks = drain(sender, 24.0, 0, 30)
    assert {c.index for c in chunks} == set(range(index, 4))
    for unit in range(index, 4):
        parts = [len(c.part) for c in chunks if c.index == unit]
        assert sum(parts) == len(sequence.units[unit].packet)
        assert set(parts[:-1]) == {FIRST_PART if unit == index else PART}
    sender.start(sequence, index, first=True)
    assert sum(len(c.part) for c in drain(sender, 24.0, 0, 0.1)) <= FIRST_PART + 0.1 * 24.0 * 125


def test_an_idle_link_saves_up_for_the_next_source_unless_it_is_narrow() -> None:
    sequence, rng = SourceSequence(2 * SIZE), np.random.default_rng(4)
    sequence.add(rng.integers(0, 256, (2 * SIZE, 2 * SIZE, 3), dtype=np.uint8))
    for kbps, least in ((8.0, PART), (NARROW_KBPS, 0)):
        sender = SourceSender()
        sender.start(sequence)
        drain(sender, kbps, 0, 60)
        assert not sender.backlog()
        sequence.add(rng.integers(0, 256, (2 * SIZE, 2 * SIZE, 3), dtype=np.uint8))
        sent = sum(len(c.part) for c in drain(sender, kbps, 60, 0.1))
        assert least <= sent <= (SAVED if least else PART)


def test_a_short_rest_has_no_chunk_of_its_own() -> None:
    sequence, sender = sequence_of(1), SourceSender()
    unit = sequence.units[0]
    for rest, parts in ((0.1, [1.1]), (0.3, [1, 0.3])):
        length = round((1 + rest) * PART)
        sequence.units[0] = replace(unit, packet=bytes(length))
        sender.start(sequence)
        chunks = drain(sender, 8.0, 0, 10)
        assert [len(c.part) for c in chunks] == [round(part * PART) for part in parts]


def drain_again(sequence: SourceSequence, kbps: float) -> list[SourceChunk]:
    """Chunks of the first second at this rate."""
    sender = SourceSender()
    sender.start(sequence)
    return drain(sender, kbps, 0, 1)


def test_resuming() -> None:
    sequence = sequence_of(3)
    sender = SourceSender()
    assert not sender.can_resume(None, 0)
    sender.start(sequence)
    assert sender.can_resume(sequence.number, 0)
    assert sender.can_resume(sequence.number, 3)
    assert not sender.can_resume(sequence.number, 4)
    assert not sender.can_resume(sequence.number + 1, 0)
    for n in range(MAX_BEHIND):
        sequence.add(picture(30 + n))
    assert not sender.can_resume(sequence.number, 0)
    assert sender.is_lost()
