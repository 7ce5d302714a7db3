"""What the Python side makes of packets, files, motion, pictures and calls, as JSON for the tests of the browser's
modules.

`python tests/support/web_vectors.py FILE` writes it for `npm test`, which reads the file that IWCODEC_VECTORS names.
"""

import base64
import dataclasses
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np
from numpy.typing import NDArray

import container_file
from fuzzing import mutated
from iwcodec.client.link.congestion_control import LADDER, CongestionControl
from iwcodec.client.link.link_state import LinkStats
from iwcodec.client.link.messages import (
    PROTOCOL,
    Commitment,
    Hello,
    MotionMessage,
    Nonce,
    Report,
    SourceAck,
    SourceChunk,
    Status,
    control_from_bytes,
    control_to_bytes,
)
from iwcodec.client.link.receive import MotionReceiver, SourceAssembler
from iwcodec.client.link.send import MotionSender, SourceSender
from iwcodec.client.link.verification import Verification, words_of
from iwcodec.client.quality import quality_words
from iwcodec.client.transport.sdp_compression import compress_sdp
from iwcodec.client.video.jitter_buffer import TimedFrame, VideoJitterBuffer
from iwcodec.client.video.source_sequence import SourceSequence, SourceUnit
from iwcodec.client.video.video_sender import OutgoingFrame
from iwcodec.codec.bitstream.packets import (
    AudioPacket,
    MotionPacket,
    Packet,
    Run,
    SourcePacket,
    pack_sources,
    unpack_sources,
)
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import CodecError
from iwcodec.codec.fit.alignment import backward, reference
from iwcodec.codec.fit.keypoint_fit import LIVE_SHEAR, KeypointFit, _estimate
from iwcodec.codec.media.crop_tracking import CropTracker
from iwcodec.codec.media.face_detector import Face, FaceDetector
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.space import motion_space
from iwcodec.codec.motion.transform_coder import TransformCoder, inverse_transform
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceDecoder, SourceEncoder
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.regions import Compositor, region_box
from iwcodec.codec.sources.source_policy import Judgement, SourcePolicy
from iwcodec.codec.sources.variant_policy import VariantPolicy
from iwcodec.codec.sources.yuv import rgb_to_yuv420, yuv420_to_rgb
from iwcodec.models.fit_settings import BLURS
from iwcodec.models.runtime.pictures import resize_area
from iwcodec.models.runtime.types import Source
from iwcodec.server.http.player import tables_json
from iwcodec.server.messages import PROTOCOL as SIGNALLING_PROTOCOL
from textured_source import TEXTURE, K, textured_source

TRANSFORM, PREDICTIVE = TransformCoder(load_transform_tables()), PredictiveCoder(load_tables())
SEEDS: list[tuple[str, bytes]] = [
    ("source", SourcePacket(3, b"abc", 70_000).to_bytes()),
    ("source", SourcePacket(3, b"abc", base=2).to_bytes()),
    ("motion", MotionPacket(300, 20, 298, b"abcdef").to_bytes()),
    ("motion", MotionPacket(300, 20, None, b"abcdef", (Run(2, 15), Run(0, 5)), scale=78).to_bytes()),
    (
        "motion",
        MotionPacket(300, 20, None, b"ab", (Run(2, 20),), 78, ((Run(0, 20),), (Run(3, 9), Run(0, 11)))).to_bytes(),
    ),
    ("motion", MotionPacket(300, 4, 295, b"abcdef", (Run(2, 3), Run(0, 1)), scale=78).to_bytes()),
    ("motion", MotionPacket(300, 4, 295, b"abcdef", scale=78, alike=True).to_bytes()),
    ("audio", AudioPacket(960, (b"ab", b"cde")).to_bytes()),
    ("sources", pack_sources([SourcePacket(n, b"abc", 40 * (n % 4)) for n in range(3, 9)])),
    ("sources", pack_sources([SourcePacket(n, b"abc", base=1) for n in range(3, 9)])),
]
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "source": SourcePacket.from_bytes,
    "sources": unpack_sources,
    "motion": MotionPacket.from_bytes,
    "audio": AudioPacket.from_bytes,
}


def vectors() -> dict[str, Any]:
    """Everything, as plain values; bytes are in base64."""
    rng, intact = np.random.default_rng(11), intact_file()
    return {
        "tables": tables_json(),
        "packets": [packet_vector(*SEEDS[n % len(SEEDS)], n, rng) for n in range(800)],
        "files": [file_vector(intact, n, rng) for n in range(200)],
        "transform": [transform_vector(n, rng) for n in range(160)],
        "predictive": [predictive_vector(n, rng) for n in range(160)],
        "inverse": inverse_vector(rng),
        "protocols": [PROTOCOL, SIGNALLING_PROTOCOL],
        "messages": [message_vector(n, rng) for n in range(400)],
        "received": received_vectors(rng),
        "assembled": assembled_vectors(),
        "jitter": jitter_vectors(rng),
        "library": library_vectors(rng),
        "spaces": [{"own": text(space.own), "rows": text(space.columns.T.copy())} for space in SPACES] + [None],
        "sent": sent_vectors(np.random.default_rng(12)),
        "congestion": congestion_vectors(rng),
        "chunks": chunk_vectors(rng),
        "quality": quality_vectors(np.random.default_rng(13)),
        "fit": fit_vector(),
        "variants": variant_vectors(),
        "sources": source_vectors(np.random.default_rng(15)),
        "crops": crop_vectors(rng),
        "faces": face_vector(),
        "sdp": sdp_vector(),
        "verification": verification_vectors(np.random.default_rng(14)),
        "space": space_vector(),
        "pictures": picture_vectors(rng),
        "composites": composite_vectors(),
        "av1": [av1_vector(256, None), av1_vector(256, 192), av1_vector(64, None)],
    }


def text(data: bytes | NDArray[Any]) -> str:
    """Bytes in base64."""
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode()


def plain(packet: Packet) -> dict[str, Any]:
    """A packet with the names and values of the browser's."""
    match packet:
        case SourcePacket():
            numbers = {"slot": packet.slot, "frame": packet.frame, "base": packet.base}
            return {"kind": "source", **numbers, "payload": text(packet.payload)}
        case MotionPacket():
            runs = [vars(run) for run in packet.runs]
            regions = [[vars(run) for run in of_region] for of_region in packet.regions]
            numbers = {"first": packet.first, "count": packet.count, "reference": packet.reference}
            coded = {"payload": text(packet.payload), "scale": packet.scale, "alike": packet.alike}
            return {"kind": "motion", **numbers, **coded, "runs": runs, "regions": regions}
        case AudioPacket():
            return {"kind": "audio", "first": packet.first, "packets": [text(data) for data in packet.packets]}


def packet_vector(kind: str, seed: bytes, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Bytes of a packet, damaged in all but the first ones, and what they parse to: None if they are refused."""
    data = seed if number < len(SEEDS) else mutated(seed, rng)
    try:
        parsed = PARSERS[kind](data)
    except CodecError:
        return {"kind": kind, "data": text(data), "packets": None}
    return {
        "kind": kind,
        "data": text(data),
        "packets": [plain(one) for one in (parsed if isinstance(parsed, list) else [parsed])],
    }


def intact_file() -> bytes:
    """A small file with records of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        return container_file.write_container(Path(folder) / "small.iwc").read_bytes()


def file_vector(intact: bytes, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """A file, damaged in all but the first one, and its packets: None if it is refused."""
    data = mutated(intact, rng) if number else intact
    try:
        reader = ContainerReader(io.BytesIO(data))
        packets = [plain(packet) for packet in reader.records()]
    except CodecError:
        return {"data": text(data), "packets": None}
    header = reader.header
    return {
        "data": text(data),
        "packets": packets,
        "truncated": reader.truncated,
        "damaged": len(reader.damage),
        "sources": sum(packet["kind"] == "source" and packet["base"] is None for packet in packets),
        "variants": sum(packet.get("base") is not None for packet in packets),
        "header": {"modelId": header.model_id, "tables": header.tables, "fps": float(header.fps), "size": header.size},
    }


def random_levels(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int32]:
    """Levels of many magnitudes, a few of them escaped."""
    levels = rng.laplace(0, rng.choice([0.2, 1.5, 8, 3000]), shape)
    return np.clip(np.rint(levels), -30_000, 30_000).astype(np.int32)


def transform_vector(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Levels, a message of the transform coder, every other one damaged, and its levels: None if it is refused."""
    lengths = rng.integers(1, 30, int(rng.integers(1, 5))).tolist()
    coded = [random_levels((length, 3 * K), rng) * (rng.random((length, 1)) < 0.7) for length in lengths]
    intact = TRANSFORM.encode([rows.astype(np.int32) for rows in coded])
    payload = mutated(intact, rng) if number % 2 else intact
    try:
        levels = [rows.ravel().tolist() for rows in TRANSFORM.decode(payload, lengths, 3 * K)]
    except CodecError:
        levels = None
    own = {"coded": [rows.ravel().tolist() for rows in coded], "intact": text(intact)}
    return {"payload": text(payload), "lengths": lengths, "levels": levels, **own}


def predictive_vector(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """Levels, a message of the predictive coder, every other one damaged, and its levels: None if it is refused. Every
    fifth is of a number of keypoints that the tables are not for."""
    keypoints = K if number % 5 else 7
    frames = random_levels((int(rng.integers(1, 9)), keypoints, 3), rng)
    before = random_levels((keypoints, 3), rng) if number % 3 else None
    intact = PREDICTIVE.encode(frames, before)
    payload = mutated(intact, rng) if number % 2 else intact
    try:
        levels = PREDICTIVE.decode(payload, len(frames), keypoints, before).reshape(len(frames), -1).tolist()
    except CodecError:
        levels = None
    reference_levels = None if before is None else before.ravel().tolist()
    return {
        "payload": text(payload),
        "intact": text(intact),
        "frames": frames.ravel().tolist(),
        "count": len(frames),
        "keypoints": keypoints,
        "reference": reference_levels,
        "levels": levels,
    }


def inverse_vector(rng: np.random.Generator) -> dict[str, Any]:
    """Levels of a run and its coordinates."""
    levels = random_levels((9, 3 * K), rng)
    return {
        "levels": levels.ravel().tolist(),
        "length": 9,
        "scale": 90,
        "coordinates": inverse_transform(levels, 90).ravel().tolist(),
    }


def moving_source(picture: Picture, keypoints: NDArray[np.float32]) -> Source:
    """A source whose cells move with strengths, too."""
    axis = (np.arange(32) + 0.5) * (np.pi / 32)
    waves = np.stack([np.outer(np.cos(axis * (n // 5)), np.cos(axis * (n % 5))).ravel() for n in range(K)], axis=1)
    source = textured_source(picture)
    basis = source.basis.copy()
    basis[:, K : 2 * K], basis[:, 2 * K :] = waves * 0.1, waves[:, ::-1] * 0.1
    return replace(source, basis=basis, keypoints=keypoints)


def space_vector() -> dict[str, Any]:
    """A source, and the keypoints of one frame in its coordinates."""
    source = moving_source(TEXTURE, textured_source().keypoints)
    space = motion_space(source, load_transform_tables().directions)
    coordinates = np.random.default_rng(3).normal(0, 2, (1, 3 * K))
    return {
        "picture": text(source.picture),
        "basis": text(source.basis.astype("<f4")),
        "keypoints": source.keypoints.ravel().tolist(),
        "coordinates": coordinates.ravel().tolist(),
        "moved": space.keypoints(coordinates)[0].ravel().tolist(),
        "backward": backward(reference(source).moved(space.own + 0.05).reshape(32, 32, 2) * np.float32(16))
        .ravel()
        .tolist(),
    }


def picture_vectors(rng: np.random.Generator) -> dict[str, Any]:
    """Operations on a picture."""
    small = cv2.resize(TEXTURE, (48, 48), interpolation=cv2.INTER_AREA)
    places = (rng.uniform(-3, 51, (200, 1, 2))).astype(np.float32)
    values = rng.normal(0, 1, (8, 8, 3)).astype(np.float32)
    planes = rng.integers(0, 256, (96, 64)).astype(np.uint8)
    return {
        "picture": text(small),
        "halved": text(resize_area(small, 24)),
        "quartered": text(resize_area(small, 12)),
        "enlarged": text(cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC)),
        "places": places.ravel().tolist(),
        "sampled": text(cv2.remap(small, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)),
        "values": values.ravel().tolist(),
        "resized": cv2.resize(values, (32, 32), interpolation=cv2.INTER_LINEAR).ravel().tolist(),
        "yuv": text(planes),
        "rgb": text(yuv420_to_rgb(planes)),
        "smallYuv": text(rgb_to_yuv420(small)),
    }


MESSAGES: list[tuple[str, bytes]] = [
    ("motion", MotionMessage(7, (1000, 1040, 1080), 1, 9, MotionPacket(300, 3, 298, b"abcdef")).to_bytes()),
    (
        "motion",
        MotionMessage(255, (1000, 1013, 1080), 0, None, MotionPacket(9, 3, None, b"ab", (Run(2, 3),))).to_bytes(),
    ),
    ("chunk", SourceChunk(70_000, 3, False, 900, 300, b"part").to_bytes()),
    ("chunk", SourceChunk(1, 0, True, 4, 0, b"part").to_bytes()),
    ("control", control_to_bytes(Report(70_000, None, 0, 25, 1, 40, 300, 24))),
    ("control", control_to_bytes(Hello(1, b"8 bytes!", 2**32 - 5, 3_000_000_000, None, 0))),
    ("control", control_to_bytes(Status(camera_off=True, face_lost=False))),
    ("control", control_to_bytes(SourceAck(7, 4))),
    ("control", control_to_bytes(Commitment(bytes(range(32))))),
    ("control", control_to_bytes(Nonce(bytes(range(16))))),
]


def plain_message(kind: str, data: bytes) -> Any:
    """A message of a call with the names and values of the browser's. Raises CodecError."""
    if kind == "motion":
        message = MotionMessage.from_bytes(data)
        numbers = {"sequence": message.sequence, "stamps": message.stamps, "coarseness": message.coarseness}
        return {**numbers, "acknowledged": message.acknowledged, "packet": plain(message.packet)}
    if kind == "chunk":
        chunk = SourceChunk.from_bytes(data)
        numbers = {"sequence": chunk.sequence, "index": chunk.index, "length": chunk.length, "offset": chunk.offset}
        return {**numbers, "isSnapshot": chunk.is_snapshot, "part": text(chunk.part)}
    fields = [text(value) if isinstance(value, bytes) else value for value in vars(control_from_bytes(data)).values()]
    kinds = ("report", "hello", "status", "ack", "commitment", "nonce")
    return {"kind": kinds[data[0] - 0x80], "fields": fields}


def message_vector(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """A message of a call, damaged in all but the first ones, and what it parses to: None if it is refused."""
    kind, seed = MESSAGES[number % len(MESSAGES)]
    data = seed if number < len(MESSAGES) else mutated(seed, rng)
    try:
        return {"kind": kind, "data": text(data), "message": plain_message(kind, data)}
    except CodecError:
        return {"kind": kind, "data": text(data), "message": None}


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


def quality_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Statistics of links, and what they are called."""
    out = []
    for n in range(60):
        sent, shown, arrived, render, loss, delay = (rng.uniform(0, (40, 30, 30, 120, 0.2, 900)) * (n % 7 > 1)).tolist()
        congested = bool(n % 5 == 0)
        own = {"congested": congested, "received_per_s": arrived, "render_ms": render}
        stats = LinkStats({"total": sent}, {}, shown, delay, loss, 3, {}, **own)  # type: ignore[arg-type]
        told = {"framesPerS": shown, "receivedPerS": arrived, "renderMs": render, "sentKbps": sent, "loss": loss}
        told |= {"congested": congested, "delayMs": delay, "words": quality_words(stats)}
        out.append(told)
    return out


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


def fit_vector() -> dict[str, Any]:
    """A source, pictures of it moved a little and one sheared a lot, and their keypoints as fitted by alignment alone."""
    source = moving_source(cv2.GaussianBlur(TEXTURE, (0, 0), 2), face_keypoints())
    fit = KeypointFit(steps=BLURS[-2:], candidates=2, max_shear=LIVE_SHEAR)
    fit._start = lambda target, ref, start, source: replace(_estimate(target, ref, start, start), by_flow=False)  # type: ignore[method-assign]
    frames = []
    turns = [cv2.getRotationMatrix2D((128, 128), 1.0 * n, 1 + 0.01 * n) for n in range(3)]
    sheared = [np.array([[1, shear, -128 * shear], [0, 1, 0]]) for shear in (0.15, 0.3, 0.5)]
    for turn in (*turns, *sheared):
        picture = cv2.warpAffine(source.picture, turn, (256, 256), borderMode=cv2.BORDER_REFLECT)
        fitted = fit.frame(picture, source.keypoints, [source])
        assert fitted.gram is not None
        gram = fitted.gram()
        frames.append(
            {
                "picture": text(picture),
                "fitted": fitted.keypoints.ravel().tolist(),
                "diagonal": gram.diagonal().tolist(),
            }
        )
    basis = text(source.basis.astype("<f4"))
    keypoints = source.keypoints.ravel().tolist()
    return {"picture": text(source.picture), "basis": basis, "keypoints": keypoints, "frames": frames}


def variant_vectors() -> dict[str, Any]:
    """Frames of a face whose eyes and mouth change for a while, what their regions show, and the variants sent. Later
    variants would be no more than what coordinates of another precision leave."""
    source = moving_source(cv2.GaussianBlur(TEXTURE, (0, 0), 2), face_keypoints())
    library = Library(8)
    library.add(0, source)
    policy, added = VariantPolicy(Compositor(Pasting()), library), 1  # type: ignore[arg-type]
    faces = [source.picture.copy() for _ in range(3)]
    for face, region, grey in ((faces[1], 0, 40), (faces[2], 1, 210)):
        box = region_box(source.keypoints, region, 256)
        axes = (int(box.width / 4), int(box.height / 5))
        cv2.ellipse(face, (int(box.centre[0]), int(box.centre[1])), axes, 0, 0, 360, (grey,) * 3, -1)
    frames = []
    for n in range(39):
        face = (n // 10) % 3
        keypoints = source.keypoints + np.array([0.01 * (n % 4), 0, 0], np.float32)
        slots = policy.choose(faces[face], keypoints, source)
        variant = policy.wanted(n / 25)
        frames.append({"face": face, "keypoints": keypoints.ravel().tolist(), "slots": slots, "variant": None})
        if variant is not None:
            frames[-1]["variant"] = text(variant)
            library.add(added, replace(source, picture=variant), variant=True)
            added += 1
    basis, keypoints = text(source.basis.astype("<f4")), source.keypoints.ravel().tolist()
    return {"faces": [text(face) for face in faces], "basis": basis, "keypoints": keypoints, "frames": frames}


SOURCE_SIDE = 64
"""Side of the pictures of `source_vectors`, in pixels."""


def source_vectors(rng: np.random.Generator) -> dict[str, Any]:
    """Judged frames of a stream in which poses last and recur, and which of them become sources. After 80 s sources
    help less than they should; the clock is set back once."""
    poses = [np.ascontiguousarray(np.roll(TEXTURE, 9 * n, axis=n % 2)[:SOURCE_SIDE, :SOURCE_SIDE]) for n in range(12)]
    coded = [cv2.GaussianBlur(pose, (0, 0), 1) for pose in poses]
    pictures = [*poses, *coded]
    policy, shown = SourcePolicy(Pasting()), [12]  # type: ignore[arg-type]
    source = replace(textured_source(), picture=coded[0])
    policy.add(0, (source, 33.0), 0.0, 1800)
    first = {"coded": 12, "qualityDb": 33.0, "size": 1800}
    events: list[dict[str, Any]] = [{"atS": 0.0, "due": policy.due(0.0), "added": first}]
    pose = 0
    for n in range(1, 1500):
        at_s = n / 10 - (3 if n > 1000 else 0)
        if rng.random() < 0.03:
            pose = int(rng.integers(12))
        event: dict[str, Any] = {"atS": at_s, "due": policy.due(at_s)}
        events.append(event)
        if not event["due"]:
            continue
        nearest = 12 + pose if 12 + pose in shown else shown[-1]
        helps = 1.0 if n < 800 else float(rng.uniform(0.5, 1))
        quality_db = (34 if nearest == 12 + pose else 22) * helps + float(rng.normal(0, 1))
        policy.judge(poses[pose], Judgement(poses[pose], quality_db, replace(source, picture=pictures[nearest])), at_s)
        found = policy.wanted(at_s)
        event["judged"] = {"picture": pose, "qualityDb": quality_db, "nearest": nearest}
        event["wanted"] = next((k for k, one in enumerate(poses) if one is found), None)
        if found is not None:
            number, size, coded_db = event["wanted"], int(rng.integers(120, 700)), float(rng.uniform(30, 36))
            policy.add(n, (replace(source, picture=coded[number]), coded_db), at_s, size)
            event["added"] = {"coded": 12 + number, "qualityDb": coded_db, "size": size}
            shown.append(12 + number)
    return {"pictures": [text(picture) for picture in pictures], "side": SOURCE_SIDE, "events": events}


def crop_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Faces in frames of 640 x 480 pixels, and the crop of each frame."""
    tracker, events = CropTracker(640, 480, 25.0), []
    x, y, h = 300.0, 220.0, 150.0
    for n in range(300):
        x, y, h = x + rng.normal(0.5, 3), y + rng.normal(0, 2), float(np.clip(h * rng.normal(1, 0.02), 60, 300))
        faces = None
        if n % 5 == 0:
            faces = [Face(x % 500, y % 300, 0.8 * h, h, 0.9), Face(20, 20, 60, 80, 0.8)][: int(rng.integers(0, 3))]
        crop = tracker.update(faces)
        told = None if faces is None else [box_of(face) for face in faces]
        events.append({"faces": told, "crop": vars(crop)})
    return events


def box_of(face: Face) -> dict[str, float]:
    """What the browser reads of a face: it has no use for landmarks."""
    return {name: getattr(face, name) for name in ("x", "y", "w", "h", "score")}


def face_vector() -> dict[str, Any]:
    """What the face detector's network returns for the bundled clip's first picture, and the faces in it."""
    picture = next(iter(read_video(sample_clip()))).picture
    detector = FaceDetector()
    kept: list[Any] = []
    session, height, width = detector._session, *picture.shape[:2]
    detector._session = SimpleNamespace(run=lambda names, feeds: kept.append(session.run(names, feeds)) or kept[-1])  # type: ignore[assignment]
    faces = detector.detect(picture)
    heat, size, offset, _ = (out[0] for out in kept[-1])
    return {
        "width": width,
        "height": height,
        "maps": {"width": heat.shape[2], "height": heat.shape[1]},
        "heat": heat.ravel().tolist(),
        "size": size.ravel().tolist(),
        "offset": offset.ravel().tolist(),
        "faces": [box_of(face) for face in faces],
    }


def library_vectors(rng: np.random.Generator) -> list[dict[str, Any]]:
    """What a library is given and asked, in order: slots in the attention of each frame, and the slots in use."""
    library, events = Library(8), []
    for n in range(200):
        pose = rng.uniform(-1, 1, (K, 3)).astype(np.float32)
        event: dict[str, Any] = {"pose": pose.ravel().tolist()}
        if n % 3:
            regions = [None if slot < 0 else int(slot) for slot in rng.integers(-1, 14, 2)]
            asked = int(rng.integers(0, 14)) if n % 2 else None
            attended = library.attended(pose, asked, regions)
            event |= {"reference": asked, "regions": regions, "attended": [library.slot(one) for one in attended]}
        else:
            slot, variant = int(rng.integers(0, 14)), bool(rng.random() < 0.4)
            library.add(slot, replace(textured_source(), keypoints=pose), variant)
            event |= {"add": slot, "variant": variant}
        events.append(event | {"slots": sorted(library.slots())})
    return events


def sdp_vector() -> dict[str, Any]:
    """A session description, and its compressed form."""
    fingerprint = bytes(range(32)).hex(":").upper()
    lines = ["v=0", "o=- 3 4 IN IP4 0.0.0.0", f"a=fingerprint:sha-256 {fingerprint}", "a=mid:0", "a=setup:active"]
    sdp = "".join(f"{line}\r\n" for line in [*lines, f"a=fingerprint:sha-256 {fingerprint}", "a=ice-ufrag:abcd"])
    return {"sdp": sdp, "deflated": compress_sdp(sdp)}


def verification_vectors(rng: np.random.Generator) -> dict[str, Any]:
    """The words of ends, and what one end of an exchange is told and answers: numbers out of turn, another exchange,
    more than are answered, another certificate."""
    ends = [[rng.bytes(32), rng.bytes(16), rng.bytes(32), rng.bytes(16)] for _ in range(20)]
    told: list[Commitment | Nonce | bytes] = [bytes(32)]
    for n in range(8):
        nonce = rng.bytes(16)
        told += [Nonce(nonce), Commitment(hashlib.sha256(nonce).digest()), Nonce(rng.bytes(16)), Nonce(nonce)]
        told += [bytes([n // 4] * 32)] if n % 2 else []
    events: list[dict[str, Any]] = []
    numbers = [rng.bytes(16) for _ in told]
    with mock.patch("secrets.token_bytes", side_effect=numbers):
        end = Verification()
        for n, one in enumerate(told):
            sent = end.connected((bytes(32), one)) if isinstance(one, bytes) else end.receive(one, 3.0 * n)
            event = {"atS": 3.0 * n, "answers": [text(control_to_bytes(answer)) for answer in sent], "words": end.words}
            asked = {"certificate": text(one)} if isinstance(one, bytes) else {"told": text(control_to_bytes(one))}
            events.append(event | asked)
    return {
        "numbers": [text(number) for number in numbers],
        "ends": [
            {"parts": [text(part) for part in parts], "words": words_of((parts[0], parts[1]), (parts[2], parts[3]))}
            for parts in ends
        ],
        "events": events,
    }


def composite_vectors() -> dict[str, Any]:
    """Two sources, and the first one with regions of the other, and of a variant that shows the other's picture."""
    keypoints = face_keypoints()
    first = moving_source(TEXTURE, keypoints)
    turn = np.array([0.06, -0.03, 0], np.float32)
    other = moving_source(np.ascontiguousarray(TEXTURE[:, ::-1]), keypoints + turn)
    variant = replace(first, picture=other.picture)
    compositor = Compositor(Pasting())  # type: ignore[arg-type]
    shown = [(other, None), (None, variant), (variant, other)]
    return {
        "sources": [
            {
                "picture": text(source.picture),
                "keypoints": source.keypoints.ravel().tolist(),
                "basis": text(source.basis.astype("<f4")),
            }
            for source in (first, other)
        ],
        "pictures": [text(compositor.composite(first, others).picture) for others in shown],
    }


class Pasting:
    """The part of a runtime that composites need."""

    def with_picture(self, source: Source, picture: Picture) -> Source:
        return replace(source, picture=picture)


def face_keypoints() -> NDArray[np.float32]:
    """Keypoints on a grid, but those of irises and mouth where a face has them."""
    keypoints = textured_source().keypoints.copy()
    keypoints[0, :2], keypoints[1, :2] = (-0.2, -0.2), (0.2, -0.15)
    keypoints[7:11, :2] = (-0.15, 0.3), (0.15, 0.32), (0, 0.25), (0, 0.4)
    return keypoints


def av1_vector(size: int, side: int | None) -> dict[str, Any]:
    """Units of two pictures of `size`, coded at `side`, and what they decode to."""
    encoder, decoder = SourceEncoder(size, crf=50, preset=10, side=side), SourceDecoder(size)
    pictures = [np.ascontiguousarray(TEXTURE[:size, :size]), np.ascontiguousarray(TEXTURE[::-1][:size, :size])]
    units = [encoder.add(picture) for picture in pictures]
    return {
        "size": size,
        "units": [text(unit) for unit in units],
        "pictures": [text(decoder.add(unit)) for unit in units],
    }


def write(path: Path) -> None:
    """Write the vectors."""
    path.write_text(json.dumps(vectors()), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
