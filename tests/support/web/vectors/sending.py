"""What a link sends of motion and sources, and at which rates."""

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np

from iwcodec.client.link.congestion_control import LADDER, CongestionControl
from iwcodec.client.link.send import MotionSender, SourceSender
from iwcodec.client.video.source_sequence import SourceSequence, SourceUnit
from iwcodec.client.video.video_sender import OutgoingFrame
from iwcodec.codec.motion.space import motion_space
from iwcodec.codec.motion.transform_tables import load_transform_tables
from support.codec.textured_source import TEXTURE, K, textured_source
from support.web.vectors.values import text

SPACES = [
    motion_space(textured_source(picture), load_transform_tables().directions) for picture in (TEXTURE, TEXTURE[::-1])
]
"""Coordinates of two sources."""


def sent_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """What a motion sender is given, in order, and its messages: with losses, other rates, and a receiver that begins
    anew. Frames are transform-coded as far as they have coordinates and a fit."""
    rungs = (LADDER[0], LADDER[1], replace(LADDER[0], message_frames=2, repeats=1), LADDER[2], LADDER[3], LADDER[5])
    sender, events = MotionSender(LADDER[0]), []
    keypoints, sent = textured_source().keypoints.copy(), -1
    for n in range(400):
        if n % 25 == 24:
            sender.sending = rungs[n // 25 % 6]
            events.append({"sending": dataclasses.asdict(sender.sending)})
        if n in (90, 230):
            sender.forget_acknowledged()
            events.append({"forget": True})
        keypoints = (keypoints + rng.normal(0, 0.01, keypoints.shape)).clip(-0.95, 0.95).astype(np.float32)
        gram = None
        if n % 7:
            root = rng.normal(0, 3, (3 * K, 3 * K))
            gram = (root @ root.T).astype(np.float32).astype(np.float64)
        slot = None if n % 40 > 30 else n // 20
        regions = (None, n // 35 % 3) if n // 70 % 2 else ()
        frame = OutgoingFrame(40 * n + 1000 * (n > 60), keypoints, slot, gram, regions)
        space = len(SPACES) if slot is None or n < 130 or n // 50 == 5 else slot % 2  # the last one is none
        full = sender.take(frame, None if space == len(SPACES) else SPACES[space])
        event: dict[str, Any] = {"stamp": frame.stamp_ms, "reference": slot, "full": full}
        event |= {"regions": regions, "space": space}
        event |= {"keypoints": keypoints.ravel().tolist(), "gram": None if gram is None else text(gram.astype("<f4"))}
        if full:
            event["acknowledged"] = None if n % 3 else n
            event["message"] = text(sender.message(event["acknowledged"]))
            sent = max(sender.captured)
            if n % 4:
                event["acknowledge"] = sent & 0xFF
                sender.acknowledge_low(sent & 0xFF)
        events.append(event)
    return events


def congestion_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Reports, and what is sent after each."""
    control, events = CongestionControl(), []
    for n in range(300):
        bad = n // 40 % 3
        lost = float(rng.choice([0, 0.05, 0.4])) if bad == 1 else 0.0
        queued_s = float(rng.uniform(0, 0.7)) if bad == 2 else 0.02
        at_s = 0.5 * n + (5 if n > 200 else 0)
        control.max_kbps = (None, 17.0, 12.0, 1.0, 40.0, None)[n // 50]
        control.silence(at_s)
        if n % 50 != 49:
            control.report(at_s, lost, queued_s, n % 60 == 30)
        sending = {"sending": dataclasses.asdict(control.sending), "small": control.small}
        reported = {"lost": lost, "queuedS": queued_s, "blocked": n % 60 == 30} if n % 50 != 49 else {}
        events.append({"at": at_s, "maxKbps": control.max_kbps, **reported, **sending, "congested": control.congested})
    return events


def chunk_vectors(rng: np.random.Generator) -> dict[str, Any]:
    """Units of a sequence, and the chunks that carry them."""
    packets = [rng.integers(0, 256, int(size)).astype(np.uint8).tobytes() for size in (1700, 300, 40, 513)]
    sequence = SourceSequence(64)
    sequence.number, sequence.next = 70_000, len(packets)
    sequence.units = {n: SourceUnit(packet, n == 2) for n, packet in enumerate(packets)}
    sender, chunks = SourceSender(), []
    sender.start(sequence, first=True)
    for n in range(120):
        sender.fill(0.04 * n, 8.0 if n < 60 else 4.0)
        while (chunk := sender.chunk()) is not None:
            chunks.append({"n": n, "data": text(chunk.to_bytes())})
    return {"packets": [text(packet) for packet in packets], "chunks": chunks}


def vectors(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "spaces": [{"own": text(space.own), "rows": text(space.columns.T.copy())} for space in SPACES] + [None],
        "sent": sent_vectors(rng),
        "congestion": congestion_vectors(rng),
        "chunks": chunk_vectors(rng),
    }
