"""Variants and regions: a face whose eyes are covered by a dark bar in some frames."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from iwcodec.codec.bitstream.info import inspect
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, Run, SourcePacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.file.rate_control.closed_loop import Stream
from iwcodec.codec.file.rate_control.source_plan import CodedSources, Plan
from iwcodec.codec.file.rate_control.variant_selection import CHANGE_ERROR, add_variants, cheapest_path, variant_base
from iwcodec.codec.media.crop.square import Crop, crop_resize
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.regions import EYES, MASK, MOUTH, REGIONS, Box, box_places, region_box
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime
from support.media.clips import write_clip

COUNT, SIZE = 20, 256
COVERED = (5, 6, 7, 16, 17)
"""Frames in which a bar covers the eyes."""
SKIPPED = 12
"""The first frames are in skip mode, the others are reconstructed."""
PRESET = 8
"""SVT-AV1 presets."""


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return load_runtime(kind="onnx", threads=1)


@pytest.fixture(scope="module")
def face() -> Picture:
    return crop_resize(next(iter(read_video(sample_clip()))).picture, Crop(140, 0, 360), SIZE)


@pytest.fixture(scope="module")
def boxes(face: Picture, runtime: Runtime) -> list[Box]:
    keypoints = runtime.detect(face)
    return [region_box(keypoints, region, SIZE) for region in REGIONS]


def with_bar(picture: Picture, box: Box, grey: int = 40) -> Picture:
    """The picture with a dark bar over the region in this box."""
    reach = np.array([box.width, box.height]) * 0.3
    corners = [tuple(map(int, np.rint(np.array(box.centre) + sign * reach))) for sign in (-1, 1)]
    return cv2.rectangle(picture.copy(), *corners, (grey + 20, grey, grey), -1)


@pytest.fixture(scope="module")
def originals(face: Picture, boxes: list[Box]) -> list[Picture]:
    covered = with_bar(face, boxes[EYES])
    return [covered if number in COVERED else face for number in range(COUNT)]


def still_packets(count: int) -> list[MotionPacket]:
    """Motion in skip mode."""
    payload = TransformCoder(load_transform_tables()).encode([np.zeros((count, 60), np.int32)])
    return [MotionPacket(0, count, None, payload, (Run(0, count),), scale=46)]


def sources_of(originals: Sequence[Picture], frames: tuple[int, ...], upfront: bool = True) -> CodedSources:
    coder = SourceEncoder(SIZE, 30, PRESET)
    packets = tuple(SourcePacket(n, coder.add(originals[frame]), frame) for n, frame in enumerate(frames))
    return CodedSources(Plan(frames, 30, upfront), packets, encoder=coder)


@pytest.fixture
def stream(originals: list[Picture]) -> Stream:
    """The face as the only source, sent as frame 0, in two motion packets."""
    levels = np.zeros((COUNT - SKIPPED, 60), np.int32)
    levels[:, 20] = 1
    payload = TransformCoder(load_transform_tables()).encode([levels])
    moving = MotionPacket(SKIPPED, len(levels), None, payload, (Run(0, len(levels)),), scale=46)
    return Stream(sources_of(originals, (0,)), [*still_packets(SKIPPED), moving], 1)


def variants_of(stream: Stream) -> list[SourcePacket]:
    return [packet for packet in stream.coded.packets if packet.base is not None]


def shown(motion: Sequence[MotionPacket], region: int) -> dict[int, int]:
    """The slot of the source that a region names, by frame number."""
    slots = {packet.first + n: packet.regions_of(n) for packet in motion for n in range(packet.count)}
    return {number: slot for number, of in slots.items() if of and (slot := of[region]) is not None}


def decoded(stream: Stream, runtime: Runtime) -> list[Picture]:
    decoder = Decoder(runtime, active=stream.active)
    packets = (*stream.coded.packets, *stream.motion)
    return [frame.picture for packet in packets for frame in decoder.push(packet)]


def errors_in(box: Box, pictures: Sequence[Picture], originals: Sequence[Picture]) -> np.ndarray:
    """Squared error of a region in each frame."""
    places = box_places(box)
    looks = [
        [cv2.remap(picture, places, None, cv2.INTER_LINEAR).astype(np.float32) for picture in pair]
        for pair in zip(pictures, originals, strict=True)
    ]
    return np.array([(np.square(a - b).mean(-1) * MASK).sum() / MASK.sum() for a, b in looks])


def test_frames_whose_eyes_differ_show_a_variant(
    stream: Stream, originals: list[Picture], boxes: list[Box], runtime: Runtime
) -> None:
    budget = 800.0
    reported: list[float] = []
    tuned = add_variants(stream, COUNT, lambda: originals, runtime, budget, progress=reported.append)
    assert tuned.coded.packets[:1] == stream.coded.packets
    assert 0 < tuned.coded.size - stream.coded.size <= budget
    assert [(packet.slot, packet.base, packet.frame) for packet in variants_of(tuned)] == [(1, 0, None)]  # one bar
    assert shown(tuned.motion, EYES) == dict.fromkeys(COVERED, 1)
    assert [replace(packet, regions=()) for packet in tuned.motion] == stream.motion
    assert reported == sorted(reported)
    assert reported[-1] == pytest.approx(1.0)

    before, after = (errors_in(boxes[EYES], decoded(one, runtime), originals) for one in (stream, tuned))
    covered = np.isin(np.arange(COUNT), COVERED)
    assert np.all(after[covered] < 0.2 * before[covered])
    np.testing.assert_allclose(after[~covered], before[~covered], atol=1)


def test_without_a_difference_nothing_changes(stream: Stream, face: Picture, runtime: Runtime) -> None:
    assert add_variants(stream, COUNT, lambda: [face] * COUNT, runtime, 3000.0) == stream


def test_without_a_budget_frames_show_the_eyes_of_sources(
    stream: Stream, originals: list[Picture], boxes: list[Box], runtime: Runtime
) -> None:
    """Which costs their names alone. Frames that are sources are shown unmodified, and name nothing."""
    two = replace(stream, coded=sources_of(originals, (0, 6)), motion=still_packets(SKIPPED))
    tuned = add_variants(two, SKIPPED, lambda: originals[:SKIPPED], runtime, 0.0)
    assert tuned.coded == two.coded
    assert shown(tuned.motion, EYES) == {5: 1, 7: 1}
    assert not {0, 6} & shown(tuned.motion, MOUTH).keys()
    before, after = (errors_in(boxes[EYES], decoded(one, runtime), originals[:SKIPPED]) for one in (two, tuned))
    assert np.all(after[[5, 7]] < 0.6 * before[[5, 7]])  # placed by irises that the bar hides


def test_sources_whose_keypoints_miss_the_face_neither_lend_eyes_nor_show_others(
    stream: Stream, originals: list[Picture], runtime: Runtime
) -> None:
    assert add_variants(stream, COUNT, lambda: originals, runtime, 800.0, misleading={EYES: {0}, MOUTH: {0}}) == stream
    two = replace(stream, coded=sources_of(originals, (0, 6)), motion=still_packets(SKIPPED))
    tuned = add_variants(two, SKIPPED, lambda: originals[:SKIPPED], runtime, 0.0, misleading={EYES: (), MOUTH: {1}})
    assert shown(tuned.motion, EYES) == {5: 1, 7: 1}
    assert shown(tuned.motion, MOUTH) == {}
    tuned = add_variants(two, SKIPPED, lambda: originals[:SKIPPED], runtime, 0.0, misleading={EYES: {1}, MOUTH: {1}})
    assert shown(tuned.motion, EYES) == {}


def test_variants_change_a_source_that_av1_still_refers_to(
    stream: Stream, originals: list[Picture], runtime: Runtime
) -> None:
    """Not the most used of all, unless it is one of the last."""
    many = sources_of(originals, (0, 1, 2, 3, 4, 7))
    (packet,) = still_packets(SKIPPED)
    for slot, home in ((0, 3), (4, 4)):
        runs = (Run(slot, SKIPPED - 2), Run(3, 2))
        led = replace(stream, coded=replace(many, encoder=None), motion=[replace(packet, runs=runs)])
        assert variant_base(led, ()) == home
    assert variant_base(led, {3, 4}) is None
    assert variant_base(replace(led, motion=[packet]), ()) == 0


def test_interleaved_plans_have_no_variants(stream: Stream, originals: list[Picture], runtime: Runtime) -> None:
    """Their sources come and go. Regions are named all the same."""
    two = replace(stream, coded=sources_of(originals, (0, 6), upfront=False), motion=still_packets(SKIPPED))
    tuned = add_variants(two, SKIPPED, lambda: originals[:SKIPPED], runtime, 3000.0)
    assert variants_of(tuned) == []
    assert shown(tuned.motion, EYES) == {5: 1, 7: 1}


@pytest.fixture(scope="module")
def restless(face: Picture, boxes: list[Box]) -> list[Picture]:
    """Eyes and mouth of every frame differ."""
    rng, pictures = np.random.default_rng(2), [face]
    for _ in range(SKIPPED - 1):
        picture = face.copy()
        for box in boxes:
            for _ in range(6):
                centre = np.array(box.centre) + rng.uniform(-0.3, 0.3, 2) * (box.width, box.height)
                cv2.circle(picture, tuple(map(int, centre)), 7, rng.integers(0, 256, 3).tolist(), -1)
        pictures.append(picture)
    return pictures


@pytest.mark.parametrize("budget", [1500.0, 4000.0])
def test_variants_keep_within_the_budget(
    budget: float, stream: Stream, restless: list[Picture], runtime: Runtime
) -> None:
    """More is wanted than it allows."""
    skipped = replace(stream, motion=still_packets(SKIPPED))
    tuned = add_variants(skipped, SKIPPED, lambda: restless, runtime, budget)
    added = variants_of(tuned)
    assert 0 < tuned.coded.size - stream.coded.size <= budget
    assert 0 < len(added) < SKIPPED - 1
    assert [packet.slot for packet in added] == list(range(1, 1 + len(added)))
    named = {slot for region in REGIONS for slot in shown(tuned.motion, region).values()}
    assert named <= {packet.slot for packet in added}
    assert len(decoded(tuned, runtime)) == SKIPPED


def test_what_shows_most_often_comes_first_and_the_library_is_not_exceeded(
    stream: Stream, face: Picture, boxes: list[Box], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iwcodec.codec.file.rate_control.variant_selection.CAPACITY", 2)
    often, seldom = with_bar(face, boxes[EYES], 40), with_bar(face, boxes[EYES], 200)
    pictures = [seldom if n in (2, 3) else often if n in range(5, 11) else face for n in range(SKIPPED)]
    skipped = replace(stream, motion=still_packets(SKIPPED))
    tuned = add_variants(skipped, SKIPPED, lambda: pictures, runtime, 9000.0)
    assert len(tuned.coded.packets) == 2
    assert set(range(5, 11)) <= shown(tuned.motion, EYES).keys()
    monkeypatch.setattr("iwcodec.codec.file.rate_control.variant_selection.CAPACITY", 1)
    assert variants_of(add_variants(skipped, SKIPPED, lambda: pictures, runtime, 9000.0)) == []


def path_cost(path: Sequence[int | None], errors: Sequence[dict[int | None, float]]) -> float:
    """Sum of errors and changes."""
    changes = sum(a != b for a, b in itertools.pairwise(path))
    return sum(of_frame[slot] for slot, of_frame in zip(path, errors, strict=True)) + CHANGE_ERROR * changes


@pytest.mark.parametrize("seed", range(20))
def test_no_path_is_cheaper(seed: int) -> None:
    """Of all there are; sources come and go."""
    rng = np.random.default_rng(seed)
    slots = [None, *rng.permutation(5)[:2].tolist()]
    errors: list[dict[int | None, float]] = []
    for _ in range(6):
        kept = [slot for slot in slots if slot is None or rng.random() < 0.7]
        errors.append({slot: float(rng.uniform(0, 3 * CHANGE_ERROR)) for slot in kept})
    lowest = min(path_cost(path, errors) for path in itertools.product(*errors))
    assert path_cost(cheapest_path(errors), errors) == pytest.approx(lowest)


def test_a_source_is_kept_if_another_gains_less_than_a_change_costs() -> None:
    little, much = CHANGE_ERROR / 4, 4 * CHANGE_ERROR
    assert cheapest_path([{None: 0.0, 1: much}, {None: little, 1: 0.0}, {None: 0.0, 1: much}]) == [None] * 3
    assert cheapest_path([{None: 0.0, 1: much}, {None: much, 1: 0.0}, {None: 0.0, 1: much}]) == [None, 1, None]
    assert cheapest_path([]) == []


def test_a_file_tuned_for_the_face_closes_eyes_within_its_rate(runtime: Runtime, tmp_path: Path) -> None:
    """12 frames of the bundled clip, at 1 frame/s, with a bar over the eyes of every third; played from the middle, and
    without what it names for the eyes."""
    frames = itertools.islice(read_video(sample_clip()), 0, 24, 2)
    pictures = [crop_resize(frame.picture, Crop(140, 0, 360), SIZE) for frame in frames]
    boxes = [region_box(runtime.detect(picture), EYES, SIZE) for picture in pictures]
    closed = [n for n in range(len(pictures)) if n % 3 == 2]
    wanted = [with_bar(picture, boxes[n]) if n in closed else picture for n, picture in enumerate(pictures)]
    clip, target, kbps = write_clip(tmp_path / "blinks.mp4", wanted, fps=1), tmp_path / "a.iwc", 3.0
    options = EncodeOptions(sources=1, kbps=kbps, tune="face", crop="none", audio=False, effort=0)
    report = encode(clip, target, options, runtime)
    assert report.kbps["video"] < 1.02 * kbps
    assert report.sources == 1
    assert 0 < report.variants == inspect(target).variants
    with IwcFile(target, runtime) as file:
        whole, late = ([frame.picture for frame in file.frames(start)] for start in (0, 7))
        decoder, plain = file.decoder(), []
        for packet in file.reader.records():
            assert not isinstance(packet, AudioPacket)
            unnamed = replace(packet, regions=()) if isinstance(packet, MotionPacket) else packet
            plain += [frame.picture for frame in decoder.push(unnamed)]
        assert not file.damage
    assert all(np.array_equal(a, b) for a, b in zip(whole[7:], late, strict=True))
    errors = [
        np.mean([errors_in(boxes[n], [of[n]], [wanted[n]]) for n in closed if n != closed[0]]) for of in (plain, whole)
    ]
    assert errors[1] < 0.5 * errors[0]
