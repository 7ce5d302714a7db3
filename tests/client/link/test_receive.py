"""Motion messages into frames, source chunks into units; loss, replay, and forged messages."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from iwcodec.client.link.congestion_control import SendParameters
from iwcodec.client.link.messages import MAX_UNIT, MotionMessage, SourceChunk
from iwcodec.client.link.receive import (
    EXPECTED_S,
    FRAME_BURST,
    FRAMES_PER_S,
    MAX_ENDED,
    MAX_REORDERING,
    MotionReceiver,
    SourceAssembler,
)
from iwcodec.client.link.send import MotionSender, quantiser
from iwcodec.client.video.video_sender import OutgoingFrame
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.motion.encoder import MotionEncoder
from support.codec.fuzzing import mutated


@cache
def many_messages(repeat: bool) -> list[bytes]:
    """300 messages, one every 120 ms."""
    sender = MotionSender(SendParameters(3, 1, 0, 8.0, repeat))
    out = []
    for number in range(900):
        if sender.take(OutgoingFrame(1000 + 40 * number, np.full((20, 3), 0.3, np.float32))):
            out.append(sender.message(number & 0xFF))
    return out


def messages(count: int, repeat: bool = False) -> list[bytes]:
    """One every 120 ms."""
    return many_messages(repeat)[:count]


def deliver(receiver: MotionReceiver, order: list[int], data: list[bytes]) -> None:
    for number in order:
        receiver.take(data[number], 10.0 + 0.12 * number)


def test_frames_go_to_the_jitter_buffer() -> None:
    receiver = MotionReceiver(20)
    assert receiver.take(messages(1)[0], 10.0) == 2
    assert receiver.acknowledged == 2
    assert receiver.arrived_s == 10.0
    due = receiver.jitter_buffer.pop(10.01)
    assert due.frame.stamp_s == 1.0


def test_loss_is_counted() -> None:
    receiver, data = MotionReceiver(20), messages(20)
    deliver(receiver, [n for n in range(20) if n not in (5, 6, 11)], data)
    assert (receiver.reception.messages, receiver.reception.lost) == (17, 3)
    assert sum(receiver.dropped.values()) == 0


def test_late_message_does_not_count_as_lost() -> None:
    receiver, data = MotionReceiver(20), messages(8)
    deliver(receiver, [0, 1, 3, 2, 4, 5, 7, 6], data)
    assert (receiver.reception.messages, receiver.reception.lost) == (8, 0)


def test_sequence_numbers_are_unwrapped_beyond_256() -> None:
    receiver, data = MotionReceiver(20), messages(300)
    deliver(receiver, [n for n in range(300) if n % 100 != 50], data)
    assert (receiver.reception.messages, receiver.reception.lost) == (297, 3)
    assert len(receiver._recent) <= MAX_REORDERING + 1


def test_replayed_messages_are_dropped() -> None:
    receiver, data = MotionReceiver(20), messages(300)
    deliver(receiver, list(range(100)), data)
    for number in (99, 98, 60):
        receiver.take(data[number], 22.0)
    assert receiver.dropped["replayed"] == 3
    deliver(receiver, list(range(100, 300)), data)
    receiver.take(data[100], 46.0)  # 199 messages old: its number seems 57 ahead, but not its times
    assert receiver.dropped["implausible"] == 1
    assert receiver.reception.lost == 0


@pytest.mark.parametrize(("number", "stamp"), [(10**9, 1240), (9, 10**9), (9, 0)])
def test_implausible_number_or_time_is_dropped(number: int, stamp: int) -> None:
    receiver, data = MotionReceiver(20), messages(120)
    deliver(receiver, list(range(90)), data)
    payload = MotionMessage.from_bytes(data[0]).packet.payload
    forged = MotionMessage(140, (stamp, stamp, stamp), 0, None, MotionPacket(number, 3, None, payload)).to_bytes()
    assert receiver.take(forged, 20.8) is None
    assert receiver.dropped["implausible"] == 1
    deliver(receiver, list(range(90, 120)), data)
    assert receiver.acknowledged == 359
    assert sum(receiver.dropped.values()) == 1


def test_any_time_is_accepted_after_a_long_silence() -> None:
    receiver, data = MotionReceiver(20), messages(2)
    receiver.take(data[0], 10.0)
    receiver.take(data[1], 10.0 + EXPECTED_S + 1)
    assert sum(receiver.dropped.values()) == 0


def test_unknown_reference_is_dropped() -> None:
    payload = MotionMessage.from_bytes(messages(1)[0]).packet.payload
    receiver = MotionReceiver(20)
    receiver.take(MotionMessage(0, (0,), 0, None, MotionPacket(50, 1, 40, payload)).to_bytes(), 1.0)
    assert receiver.dropped["malformed"] == 1
    assert receiver.acknowledged is None


def test_damaged_messages_do_no_harm() -> None:
    """They raise nothing, and the valid messages among them are decoded."""
    rng, data = np.random.default_rng(7), messages(150, repeat=True)
    receiver = MotionReceiver(20)
    for number, message in enumerate(data):
        now = 10.0 + 0.12 * number
        receiver.take(message, now)
        for _ in range(4):
            receiver.take(mutated(message, rng), now)
    assert receiver.dropped["malformed"] > 60
    assert receiver.acknowledged is not None
    assert len(receiver._decoder._levels) <= 256


def chunks(packet: bytes, sequence: int, index: int, size: int = 10) -> list[bytes]:
    return [
        SourceChunk(sequence, index, False, len(packet), at, packet[at : at + size]).to_bytes()
        for at in range(0, len(packet), size)
    ]


def test_chunks_are_joined_to_units() -> None:
    assembler = SourceAssembler()
    packets = [SourcePacket(n, bytes([n + 1]) * 35) for n in range(3)]
    units = [
        unit
        for n, packet in enumerate(packets)
        for unit in map(assembler.take, chunks(packet.to_bytes(), 7, n))
        if unit is not None
    ]
    assert units == [(packet, False) for packet in packets]
    assert (assembler.sequence, assembler.index) == (7, 3)


def test_chunks_out_of_sequence_are_dropped() -> None:
    assembler, packet = SourceAssembler(), SourcePacket(0, bytes(35)).to_bytes()
    first, second, third, _ = chunks(packet, 7, 0)
    assembler.take(second)  # no sequence has begun
    assembler.take(first)
    assembler.take(third)  # a gap
    assembler.take(chunks(packet, 8, 1)[0])  # the middle of another sequence
    assert assembler.dropped["out of sequence"] == 3
    assert (assembler.sequence, assembler.index) == (7, 0)


def test_new_sequence_replaces_the_former() -> None:
    assembler, packet = SourceAssembler(), SourcePacket(0, bytes(35)).to_bytes()
    for data in chunks(packet, 7, 0)[:2]:
        assembler.take(data)
    assert [assembler.take(data) for data in chunks(packet, 8, 0)][-1] is not None
    assembler.restart_unit()
    assert [assembler.take(data) for data in chunks(packet, 8, 1)][-1] is not None
    assembler.forget()
    assert assembler.take(chunks(packet, 8, 2)[0]) is None
    assert assembler.dropped["out of sequence"] == 1


def test_replayed_start_does_not_restart_the_sequence() -> None:
    """It is dropped and counted, between two units and within one; the next chunks are accepted."""
    assembler = SourceAssembler()
    first, second = (chunks(SourcePacket(n, bytes([n + 1]) * 35).to_bytes(), 7, n) for n in range(2))
    for data in (*first, second[0]):
        assembler.take(data)
    for data in (*first, second[0]):
        assert assembler.take(data) is None
    assert assembler.dropped == {"replayed": len(first) + 1}
    assert [assembler.take(data) for data in second[1:]][-1] == (SourcePacket(1, bytes([2]) * 35), False)
    assembler.forget()  # the sender may begin the same sequence again
    assert [assembler.take(data) for data in first][-1] is not None


def test_replaced_sequence_does_not_come_back() -> None:
    assembler, packet = SourceAssembler(), SourcePacket(0, bytes(35)).to_bytes()
    for sequence in (7, 8):
        for data in chunks(packet, sequence, 0):
            assembler.take(data)
    assert assembler.take(chunks(packet, 7, 0)[0]) is None
    assert assembler.dropped == {"replayed": 1}
    assert (assembler.sequence, assembler.index) == (8, 1)


def test_damaged_chunks_do_no_harm() -> None:
    """Damaged and random chunks are counted, and memory stays below one unit."""
    rng, assembler, whole = np.random.default_rng(8), SourceAssembler(), 0
    for n in range(2000):
        packet = SourcePacket(n % 32, rng.bytes(300)).to_bytes()
        assembler.forget()
        for data in chunks(packet, n, 0, 100):
            assembler.take(rng.bytes(int(rng.integers(0, 200))))
            if rng.random() < 0.3:
                assembler.take(mutated(data, rng))
            whole += assembler.take(data) is not None
            assert len(assembler._part) <= MAX_UNIT
            assert len(assembler._ended) <= MAX_ENDED
    assert assembler.dropped["malformed"] > 1000
    assert assembler.dropped["out of sequence"] > 1000
    assert whole > 500


@pytest.mark.parametrize("lost", [60, 90, 130, 200, 400])
def test_next_message_is_decoded_after_any_number_of_losses(lost: int) -> None:
    """Acknowledgements modulo 256 arrive all the time, reports with the whole number now and then."""
    rng = np.random.default_rng(1)
    sender, receiver, sent, received_after = MotionSender(SendParameters(3, 1, 0, 8.0)), MotionReceiver(20), 0, 0
    keypoints = np.full((20, 3), 0.3, np.float32)
    while received_after < 4:
        keypoints = (keypoints + rng.normal(0, 0.01, keypoints.shape)).clip(0, 1).astype(np.float32)
        if not sender.take(OutgoingFrame(1000 + 40 * (3 * sent + sender.waiting), keypoints)):
            continue
        message, sent = sender.message(None), sent + 1
        if not 20 <= sent < 20 + lost:
            receiver.take(message, 10.0 + 0.12 * sent)
            received_after += sent >= 20 + lost
        sender.acknowledge_low(receiver.acknowledged & 0xFF)
        if sent % 6 == 0:
            sender.acknowledge(receiver.acknowledged)
    assert receiver.acknowledged > 3 * (sent - 3)
    assert sum(receiver.dropped.values()) <= 1


def windows(count: int) -> list[bytes]:
    """Valid messages of 16 frames at 25 frames/s, each one frame further than the one before."""
    encoder = MotionEncoder(quantiser(0))
    for _ in range(16):
        encoder.push(np.full((20, 3), 0.3, np.float32))
    packet = encoder.pack(0, 16)
    stamps = [1000 + 40 * n for n in range(count + 15)]
    return [
        MotionMessage(n & 0xFF, tuple(stamps[n : n + 16]), 0, None, replace(packet, first=n)).to_bytes()
        for n in range(count)
    ]


def taken(receiver: MotionReceiver, data: bytes, now_s: float) -> int:
    """Take a message without the cost of decoding it; returns how many frames would be decoded."""
    message = receiver.check(data, now_s)
    if message is None:
        return 0
    first, count = message.packet.first, message.packet.count
    receiver.add(message, [Motion(n, np.zeros((20, 3), np.float32)) for n in range(first, first + count)], now_s)
    return count


def test_frames_that_are_decoded_already_are_not_decoded_again():
    receiver, message = MotionReceiver(20), MotionMessage.from_bytes(windows(1)[0])
    repeated = [replace(message, sequence=number).to_bytes() for number in range(80)]
    assert sum(taken(receiver, data, 10.0 + n / 80) for n, data in enumerate(repeated)) == 16
    assert receiver.dropped["repeated"] == 79


def test_frames_per_second_are_budgeted_before_decoding():
    receiver = MotionReceiver(20)
    decoded = sum(taken(receiver, data, 10.0 + n / 80) for n, data in enumerate(windows(160)))  # two seconds
    assert FRAME_BURST < decoded <= FRAME_BURST + 2 * FRAMES_PER_S
    assert receiver.dropped["flood"] == 160 - decoded / 16


def test_honest_repetition_fits_into_the_budget():
    """30 frames/s, each sent three times, for ten seconds more than the burst lasts."""
    sender, receiver = MotionSender(SendParameters(2, 1, 0, 8.0, repeats=2)), MotionReceiver(20)
    for number in range(600):
        if sender.take(OutgoingFrame(1000 + 33 * number, np.full((20, 3), 0.3, np.float32))):
            assert taken(receiver, sender.message(None), 10.0 + 0.033 * number)
    assert not sum(receiver.dropped.values())
