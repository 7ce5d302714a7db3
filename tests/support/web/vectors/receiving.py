"""What a link makes of what arrives, when frames are shown, and what that is called."""

from dataclasses import replace
from typing import Any

import numpy as np

from iwcodec.client.link.link_state import LinkStats
from iwcodec.client.link.messages import MotionMessage, SourceChunk
from iwcodec.client.link.receive import MotionReceiver, SourceAssembler
from iwcodec.client.quality import quality_words
from iwcodec.client.video.jitter_buffer import TimedFrame, VideoJitterBuffer
from iwcodec.codec.bitstream.packets import MotionPacket, Run, SourcePacket
from iwcodec.codec.motion.space import motion_space
from iwcodec.codec.motion.transform_tables import load_transform_tables
from support.codec.fuzzing import mutated
from support.codec.textured_source import TEXTURE, K, textured_source
from support.web.vectors.motion import PREDICTIVE, TRANSFORM
from support.web.vectors.values import moving_source, plain, text


def vectors(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "received": received_vectors(rng),
        "assembled": assembled_vectors(),
        "jitter": jitter_vectors(rng),
        "quality": quality_vectors(rng),
    }


def received_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Motion messages in the order of arrival, some lost, repeated or damaged, and the receiver's state after each. The
    sources in slots 0 and 1 are those of `space_vector`; there is none in slot 2."""
    space = motion_space(moving_source(TEXTURE, textured_source().keypoints), load_transform_tables().directions)
    receiver, out = MotionReceiver(K, spaces=lambda slot: space if slot < 2 else None), []
    levels, sent = np.zeros((2, K, 3), np.int32), []
    for n in range(60):
        levels = levels + rng.integers(-2, 3, (2, K, 3)).astype(np.int32)
        shown = ((Run(n % 3, 1), Run(n % 5, 1)), (Run(n // 2, 2),)) if n % 7 else ()
        packet = MotionPacket(2 * n, 2, None, PREDICTIVE.encode(levels, None), (Run(n // 20, 2),), regions=shown)
        if n % 2:  # as differences from the last such message but one, which may be lost
            payload = TRANSFORM.encode([rng.integers(-2, 3, (2, 3 * K)).astype(np.int32)])
            reference = 2 * n - 7 if n > 4 else None
            packet = replace(packet, reference=reference, payload=payload, scale=78)
            if n % 8 == 7:
                packet = replace(packet, runs=(), regions=(), alike=True)
        data = MotionMessage(n % 256, (40 * n, 40 * n + 20), 0, None, packet).to_bytes()
        sent += [data] * int(rng.choice([0, 1, 1, 1, 1, 2]))
    sent[10], sent[11] = sent[11], sent[10]
    sent[30] = mutated(sent[30], rng)
    known = MotionMessage.from_bytes(sent[-1])  # the same frames under another number: not decoded again
    sent.append(replace(known, sequence=known.sequence + 1).to_bytes())
    for n, data in enumerate(sent):
        before = receiver.newest_frames
        receiver.take(data, 100 + 0.04 * n)
        counts = receiver.reception
        frames = [] if receiver.newest_frames is before else receiver.newest_frames
        out.append(
            {
                "data": text(data),
                "acknowledged": receiver.acknowledged,
                "messages": counts.messages,
                "lost": counts.lost,
                "frames": [
                    {"number": frame.number, "reference": frame.reference_source, "regions": frame.regions}
                    for frame in frames
                ],
                "places": [frame.keypoints.ravel().tolist() for frame in frames],
            }
        )
    return out


def assembled_vectors() -> list[dict[str, Any]]:
    """Source chunks in the order of arrival, and what each completes."""
    assembler, out = SourceAssembler(), []
    unit = SourcePacket(3, b"a picture").to_bytes()
    half = len(unit) // 2
    chunks = [
        SourceChunk(5, 0, False, len(unit), 0, unit[:half]),
        SourceChunk(5, 0, False, len(unit), half, unit[half:]),
        SourceChunk(5, 0, False, len(unit), half, unit[half:]),  # repeated
        SourceChunk(5, 2, False, len(unit), 0, unit),  # one is missing
        SourceChunk(5, 1, True, len(unit), 0, unit),
        SourceChunk(6, 1, False, len(unit), 0, unit),  # another sequence, not from its start
        SourceChunk(6, 0, False, len(unit), 0, unit),
        SourceChunk(5, 0, False, len(unit), 0, unit),  # of the sequence before
    ]
    for chunk in chunks:
        data = chunk.to_bytes()
        unit_of = assembler.take(data)
        completed = None if unit_of is None else {"packet": plain(unit_of[0]), "isSnapshot": unit_of[1]}
        out.append({"data": text(data), "unit": completed, "sequence": assembler.sequence, "index": assembler.index})
    return out


def jitter_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """What a jitter buffer is given and asked, in order, and the frames that it hands out."""
    buffer, events = VideoJitterBuffer(), []
    buffer.render_s = 0.02
    arrivals = [(n / 25 + 3 + 0.05 + rng.exponential(0.03), n) for n in range(150) if rng.random() > 0.1]
    times = sorted([*arrivals, *((3 + n / 60, -1) for n in range(400))])
    for at_s, n in times:
        if n >= 0:
            keypoints = np.full((K, 3), n / 100, np.float32)
            regions = (n, None)
            buffer.push([TimedFrame(n, n / 25, keypoints, n // 40, regions)], at_s)
            pushed = {"number": n, "stampS": n / 25, "reference": n // 40, "regions": regions}
            events.append({"at": at_s, "push": pushed})
        else:
            due = buffer.pop(at_s)
            shown = None
            if due is not None:
                value = float(due.frame.keypoints[0, 0])
                frame = {"number": due.frame.number, "regions": due.frame.regions}
                shown = {**frame, "dueS": due.due_s, "value": value}
            events.append({"at": at_s, "shown": shown, "queuedS": buffer.queued_s(at_s, 0.5)})
    return events


def quality_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Statistics of links, and what they are called."""
    out = []
    for n in range(60):
        sent, shown, arrived, render, loss, delay = (rng.uniform(0, (40, 30, 30, 120, 0.2, 900)) * (n % 7 > 1)).tolist()
        congested = bool(n % 5 == 0)
        own = {"congested": congested, "received_per_s": arrived, "render_ms": render}
        stats = LinkStats({"total": sent}, {}, shown, delay, loss, 3, {}, **own)
        told = {"framesPerS": shown, "receivedPerS": arrived, "renderMs": render, "sentKbps": sent, "loss": loss}
        told |= {"congested": congested, "delayMs": delay, "words": quality_words(stats)}
        out.append(told)
    return out
