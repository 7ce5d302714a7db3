"""Choosing parts: a face whose eyes are covered by a dark bar in some frames."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from iwcodec.codec.bitstream.info import inspect
from iwcodec.codec.bitstream.packets import MAX_PARTS_GROUP, Box, MotionPacket, PartsPacket, Run, SourcePacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.file.rate_control.closed_loop import Stream
from iwcodec.codec.file.rate_control.part_selection import RegionView, _ranked, choose_parts
from iwcodec.codec.file.rate_control.source_plan import RECORD_BYTES, CodedSources, Plan
from iwcodec.codec.media.crop import Crop, crop_resize
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.parts import EYES, MOUTH, PART_SIDE, REGIONS, PartLibrary, box_places, region_box
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime
from media_fixtures import write_clip
from stub_runtime import StubRuntime
from textured_source import textured_source

COUNT, SIZE = 40, 256
COVERED = (*range(8, 12), *range(26, 31))
"""Frames in which a bar covers the eyes."""
SKIPPED = 24
"""The first frames are in skip mode, the others are reconstructed."""


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return load_runtime(kind="onnx", threads=1)


@pytest.fixture(scope="module")
def face() -> Picture:
    return crop_resize(next(iter(read_video(sample_clip()))).picture, Crop(140, 0, 360), SIZE)


def with_bar(picture: Picture, box: Box) -> Picture:
    """The picture with a dark bar over the eyes in this box."""
    centre, reach = np.array([box.x, box.y]) / 8, np.array([box.width, box.height]) * 0.3 / 8
    corners = [tuple(map(int, np.rint(centre + sign * reach))) for sign in (-1, 1)]
    return cv2.rectangle(picture.copy(), *corners, (60, 40, 40), -1)


@pytest.fixture(scope="module")
def originals(runtime: Runtime, face: Picture) -> list[Picture]:
    covered = with_bar(face, region_box(runtime.detect(face), EYES, SIZE))
    return [covered if number in COVERED else face for number in range(COUNT)]


@pytest.fixture(scope="module")
def stream(face: Picture) -> Stream:
    """The still face as the only source, sent as frame 0, in two motion packets."""
    coder = TransformCoder(load_transform_tables())
    packets, first = [], 0
    for frames, level in ((SKIPPED, 0), (COUNT - SKIPPED, 1)):
        levels = np.zeros((frames, 60), np.int32)
        levels[:, 20] = level
        packets.append(MotionPacket(first, frames, None, coder.encode([levels]), (Run(0, frames),), scale=46))
        first += frames
    source = SourcePacket(0, SourceEncoder(SIZE, 30, 8).add(face), 0)
    return Stream(CodedSources(Plan((0,), 30, True), (source,)), packets, 1)


def decoded(stream: Stream, motion: Sequence[MotionPacket], parts: Sequence[PartsPacket], runtime: Runtime):
    decoder = Decoder(runtime, active=stream.active)
    return [frame.picture for packet in (*stream.coded.packets, *parts, *motion) for frame in decoder.push(packet)]


def shown_parts(motion: Sequence[MotionPacket], region: int) -> dict[int, int]:
    """The part that a region shows, by frame number."""
    numbers = {packet.first + n: packet.parts_of(n) for packet in motion for n in range(packet.count)}
    return {number: parts[region] for number, parts in numbers.items() if parts and parts[region] is not None}


def eye_errors(pictures: Sequence[Picture], originals: Sequence[Picture], box: Box) -> np.ndarray:
    """Mean squared error of the eyes in each frame."""
    places = box_places(box)
    pairs = zip(pictures, originals, strict=True)
    return np.array([np.square(RegionView.patch(a, places) - RegionView.patch(b, places)).mean() for a, b in pairs])


def test_only_frames_whose_region_differs_show_a_part(
    stream: Stream, originals: list[Picture], runtime: Runtime
) -> None:
    budget, reported = 800.0, []
    chosen = choose_parts(stream, COUNT, lambda: originals, runtime, budget, progress=reported.append)
    assert sum(len(packet.to_bytes()) + RECORD_BYTES for packet in chosen.packets) <= budget
    (packet,) = chosen.packets
    assert (packet.region, packet.first, packet.slot, len(packet.payloads)) == (EYES, 0, 0, 1)  # all bars are equal
    assert shown_parts(chosen.motion, EYES) == dict.fromkeys(COVERED, 0)
    assert shown_parts(chosen.motion, MOUTH) == {}
    assert tuple(replace(packet, parts=()) for packet in chosen.motion) == tuple(stream.motion)
    assert reported == sorted(reported)
    assert reported[-1] == pytest.approx(1.0)

    before, after = decoded(stream, stream.motion, (), runtime), decoded(stream, chosen.motion, chosen.packets, runtime)
    errors = [eye_errors(pictures, originals, packet.box) for pictures in (before, after)]
    covered = np.isin(np.arange(COUNT), COVERED)
    assert np.all(errors[1][covered] < 0.2 * errors[0][covered])
    for number in np.flatnonzero(~covered):
        assert np.array_equal(before[number], after[number])


def test_with_a_tiny_budget_there_are_no_parts(stream: Stream, originals: list[Picture], runtime: Runtime) -> None:
    chosen = choose_parts(stream, COUNT, lambda: originals, runtime, 100.0)
    assert chosen.packets == ()
    assert chosen.motion == tuple(stream.motion)


def test_without_a_difference_there_are_no_parts(stream: Stream, face: Picture, runtime: Runtime) -> None:
    chosen = choose_parts(stream, COUNT, lambda: [face] * COUNT, runtime, 3000.0)
    assert chosen.packets == ()
    assert chosen.motion == tuple(stream.motion)


@pytest.mark.parametrize("budget", [500.0, 700.0, 1200.0])
def test_parts_keep_within_the_budget(
    budget: float, stream: Stream, originals: list[Picture], runtime: Runtime
) -> None:
    """Eyes and mouth of every frame differ: more is wanted than the budget allows."""
    rng, source = np.random.default_rng(2), runtime.prepare(originals[0])
    noisy = []
    for picture in originals[:12]:
        picture = picture.copy()
        for region in REGIONS:
            box = region_box(source.keypoints, region, SIZE)
            for _ in range(6):
                centre = (np.array([box.x, box.y]) + rng.uniform(-0.3, 0.3, 2) * (box.width, box.height)) / 8
                cv2.circle(picture, tuple(map(int, centre)), 7, rng.integers(0, 256, 3).tolist(), -1)
        noisy.append(picture)
    skipped = replace(stream, motion=still_packets(12))
    chosen = choose_parts(skipped, 12, lambda: noisy, runtime, budget)
    assert 0 < sum(len(packet.to_bytes()) + RECORD_BYTES for packet in chosen.packets) <= budget
    assert all(set(shown_parts(chosen.motion, packet.region).values()) for packet in chosen.packets)
    assert max(len(packet.payloads) for packet in chosen.packets) < 12


def still_packets(count: int) -> list[MotionPacket]:
    """Motion in skip mode."""
    payload = TransformCoder(load_transform_tables()).encode([np.zeros((count, 60), np.int32)])
    return [MotionPacket(0, count, None, payload, (Run(0, count),), scale=46)]


def test_frames_that_are_sources_show_no_parts(stream: Stream, originals: list[Picture], runtime: Runtime) -> None:
    """They are shown unmodified."""
    coder = SourceEncoder(SIZE, 30, 8)
    sources = [SourcePacket(n, coder.add(originals[frame]), frame) for n, frame in enumerate((0, 9))]
    coded = CodedSources(Plan((0, 9), 30, True), tuple(sources))
    two = replace(stream, coded=coded, motion=still_packets(SKIPPED))
    chosen = choose_parts(two, SKIPPED, lambda: originals[:SKIPPED], runtime, 800.0)
    assert set(shown_parts(chosen.motion, EYES)) == {8, 10, 11}


@pytest.mark.parametrize(("parts", "regions"), [((None, 0), [MOUTH]), ((0, None), [EYES]), ((0, 0), [EYES, MOUTH])])
def test_parts_that_no_frame_shows_are_not_sent(
    parts: tuple[int | None, ...],
    regions: list[int],
    stream: Stream,
    originals: list[Picture],
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("iwcodec.codec.file.rate_control.part_selection._assign", lambda *_: {9: parts})
    pictures = [picture[::-1] if number in COVERED else picture for number, picture in enumerate(originals)]
    chosen = choose_parts(stream, COUNT, lambda: pictures, runtime, 2000.0)
    assert [packet.region for packet in chosen.packets] == regions
    assert all(shown_parts(chosen.motion, region) == {9: 0} for region in regions)


def test_both_regions_may_have_as_many_parts_as_a_packet_holds() -> None:
    """One region with many parts does not stop the other."""
    rng = np.random.default_rng(4)
    flat = np.zeros((PART_SIDE, PART_SIDE, 3), np.float32)
    frames = [
        [(flat + rng.uniform(0, 255, 3).astype(np.float32) * scale, flat - 300 * scale) for scale in (1.0, 0.6)]
        for _ in range(2 * MAX_PARTS_GROUP)
    ]
    boxes = [Box(800, 800, 400, 400, 0)] * 2
    picks = _ranked(frames, boxes, 4 * MAX_PARTS_GROUP)
    assert len(set(picks)) == len(picks)
    counts = [sum(region == of_region for of_region, _ in picks) for region in REGIONS]
    assert counts[0] == MAX_PARTS_GROUP
    assert 20 < counts[1] <= MAX_PARTS_GROUP
    assert len(_ranked(frames, boxes, 5)) == 5


def test_the_box_is_found_in_frames_of_any_reference_source() -> None:
    home, library = textured_source(), PartLibrary(StubRuntime())
    view = RegionView(home, library)
    step, further = (np.array([dx, dy, 0], np.float32) * (2 / SIZE) for dx, dy in ((8, -4), (5, 6)))
    other = replace(textured_source(), keypoints=home.keypoints + step)
    for region in REGIONS:
        places = box_places(view.boxes[region])
        still = view.places(Motion(0, home.keypoints), home)[region]
        np.testing.assert_allclose(still, places, atol=1e-3)
        from_home = view.places(Motion(0, home.keypoints + step), home)[region]
        np.testing.assert_allclose(from_home - places, np.broadcast_to((8, -4), places.shape), atol=0.7)
        from_other = view.places(Motion(0, other.keypoints + further), other)[region]
        np.testing.assert_allclose(from_other - places, np.broadcast_to((13, 2), places.shape), atol=1.2)


def test_closed_eyes_are_closed_at_the_same_rate(runtime: Runtime, tmp_path: Path) -> None:
    """16 frames of the bundled clip, at 2 frames/s, with a bar over the eyes of every fourth."""
    frames = itertools.islice(read_video(sample_clip()), 0, 48, 3)
    pictures = [crop_resize(frame.picture, Crop(140, 0, 360), SIZE) for frame in frames]
    boxes = [region_box(runtime.detect(picture), EYES, SIZE) for picture in pictures]
    closed = [n for n in range(len(pictures)) if n % 4 == 2]
    shown = [with_bar(picture, boxes[n]) if n in closed else picture for n, picture in enumerate(pictures)]
    clip, errors, kbps = write_clip(tmp_path / "blinks.mp4", shown, fps=2), {}, 4.2
    for tune in ("psnr", "face"):
        target = tmp_path / f"{tune}.iwc"
        options = EncodeOptions(sources=2, kbps=kbps, tune=tune, crop="none", audio=False, effort=0)
        report = encode(clip, target, options, runtime)
        assert report.kbps["video"] < 1.02 * kbps
        assert (report.bytes["parts"] > 0) == (inspect(target).parts > 0) == (tune == "face")
        with IwcFile(target, runtime) as file:
            decoded_frames = [frame.picture for frame in file.frames()]
            late = [frame.picture for frame in file.frames(start=9)]
            assert not file.damage
        assert all(np.array_equal(a, b) for a, b in zip(decoded_frames[9:], late, strict=True))
        patches = [
            [RegionView.patch(picture, box_places(boxes[n])) for picture in (decoded_frames[n], shown[n])]
            for n in closed
        ]
        errors[tune] = np.mean([np.square(a - b).mean() for a, b in patches])
    assert errors["face"] < 0.5 * errors["psnr"]  # 421 and 2905 when written
