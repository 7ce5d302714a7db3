"""What the motion coder expects of a track before it sees it: predictions and contexts, in integers only.

A message holds the frames 1..n; frame 0 is the reference, where there is one. The order of coding is a hierarchy as in
video codecs' B-frames: the first frame (only without a reference, predicted from a mean pose), then every `SPAN`-th
frame from the one before it, then the frames halfway between two that are known, until none is left. Within a frame
the keypoints come in groups: the first ones tell how the head moves, and the expectation of the rest follows them
(learnt integer weights: each keypoint's deviation from its prediction in time is a linear function of the deviations
of the keypoints known already).

Each level is coded as its difference from the rounded expectation, with a table chosen by
    - how large a difference is likely: a weighted sum of what moved nearby in time and in the same frame;
    - the kind of step (first, forward, between) and of value (place, strength);
    - how far the expectation lies from a whole number, its sign folded away.
A flag per frame says that all its differences are zero: a frame in which nothing moves costs a fraction of a bit.

Expectations are in sixteenths of a level, weights in 256ths. Everything here is exact integer arithmetic, so sender and
receiver agree on any machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SPAN = 8
"""Frames between two that are predicted forward."""
INTRA, FORWARD, BETWEEN = 0, 1, 2
"""Kinds of step."""
TYPES = 7
"""Finer: 0 first frame; 1, 2, 3 forward by 1, 2-3, more; 4, 5, 6 between frames more than 4, 3-4, 2 apart."""
FEATURES = 7
RANGE = 40
"""Largest difference with a symbol of its own; larger ones escape."""
SYMBOLS = 2 * RANGE + 2
ESCAPE = SYMBOLS - 1
LARGEST_LEVEL = 1 << 17
POSE_UNIT = 1 << 16
"""The mean pose is stored in this part of a coordinate unit."""
GROUP_SHARES = (0.15, 0.45)
"""The first group ends after this share of the keypoints, the second after that one; the third has the rest."""
GROUPS = len(GROUP_SHARES) + 1
KIND_OF_AXIS = np.array([0, 0, 1])
"""x and y share their tables; strengths have their own."""
THRESHOLDS = np.array([1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 56, 80, 112, 160, 240, 400, 720], np.int64)
"""Likely differences in sixteenths of a level at which the next context begins."""
CONTEXTS = len(THRESHOLDS) + 1
OFFSETS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
"""Class of an expectation that lies this many sixteenths from a whole number."""
OFFSET_CLASSES = 3
FLAG_CONTEXTS = 9
"""Still flags: kind of step x how many of the two frames it is predicted from are still."""
TABLE_SUM = 1 << 16


@dataclass(frozen=True)
class Tables:
    """Everything learnt, as integers. K is the number of keypoints it was learnt for; others get the generic part."""

    order: NDArray[np.int32]
    """(K,): keypoints in coding order."""
    mean: NDArray[np.int32]
    """(K, 3): the mean pose in 1 / POSE_UNIT."""
    spread: NDArray[np.int32]
    """(K, 3): mean absolute deviation from it."""
    weights: NDArray[np.int32]
    """(3 kinds of step, 3 axes, K, K): expectation of a row's keypoint from a column's, / 256."""
    base: NDArray[np.int32]
    """(TYPES, K, 3): likely difference where nothing else is known, / 16."""
    scale: NDArray[np.int32]
    """(TYPES, 2, GROUPS, FEATURES): what each feature adds to it, / 256."""
    counts: NDArray[np.int32]
    """(2, 3 kinds of step, CONTEXTS, OFFSET_CLASSES, SYMBOLS): each row sums to TABLE_SUM, none is 0."""
    still: NDArray[np.int32]
    """(FLAG_CONTEXTS, 2): the same for the still flags."""
    share: NDArray[np.int32]
    """(3 kinds of step, 3 axes, GROUPS): weight of the mean of all known keypoints, where K is another, / 256."""

    @property
    def id(self) -> int:
        """CRC-32 of the contents: named by a file, so that it is not read with other tables."""
        total = 0
        for field in fields(self):
            values = np.ascontiguousarray(getattr(self, field.name), "<i4")
            total = crc32(values.tobytes(), crc32(repr((field.name, values.shape)).encode(), total))
        return total

    @property
    def keypoints(self) -> int:
        return len(self.order)


@dataclass(frozen=True)
class Model:
    """Tables made ready for one number of keypoints and one pair of quantiser steps."""

    groups: tuple[Ints, ...]
    known: tuple[Ints, ...]
    """Keypoints coded before each group."""
    weights: tuple[Ints, ...]
    """Per group: (3 kinds of step, 3 axes, known, group)."""
    mean: Ints
    """(K, 3), in sixteenths of a level; likewise `spread`."""
    spread: Ints
    base: Ints
    """(TYPES, K, 3)."""
    scale: Ints
    """(TYPES, 3 axes, GROUPS, FEATURES)."""

    @property
    def keypoints(self) -> int:
        return len(self.mean)


def make_model(tables: Tables, keypoints: int, steps: tuple[float, float]) -> Model:
    """The model for `keypoints` keypoints quantised with (step of places, step of strengths)."""
    learnt = keypoints == tables.keypoints
    order = tables.order if learnt else _spread_order(keypoints)
    groups = tuple(np.sort(group).astype(np.int64) for group in split(order))
    known = tuple(np.concatenate((*groups[:n], np.zeros(0, np.int64))).astype(np.int64) for n in range(len(groups)))
    pose = [tables.mean, tables.spread, *tables.base]
    if not learnt:
        pose = [np.broadcast_to(values.mean(0).round().astype(np.int32), (keypoints, 3)) for values in pose]
    if learnt:
        weights = tuple(
            tables.weights[:, :, group][..., before].swapaxes(2, 3).astype(np.int64)
            for group, before in zip(groups, known, strict=True)
        )
    else:
        weights = tuple(_shared_weights(tables, n, len(known[n]), len(groups[n])) for n in range(len(groups)))
    return Model(
        groups,
        known,
        weights,
        _in_levels(pose[0], steps),
        _in_levels(pose[1], steps),
        np.stack(pose[2:]).astype(np.int64),
        tables.scale[:, KIND_OF_AXIS].astype(np.int64),
    )


def split(order: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Keypoints in coding order -> groups; none of them is empty."""
    ends = [max(1, round(share * len(order))) for share in GROUP_SHARES]
    return [group for group in np.split(order, ends) if len(group)]


def _spread_order(keypoints: int) -> NDArray[np.int32]:
    """Any order will do where nothing is known of the keypoints, as long as the first ones lie apart."""
    stride = next(s for s in range(max(2, keypoints // 3), 3 * keypoints + 3) if np.gcd(s, keypoints) == 1)
    return (np.arange(keypoints) * stride % keypoints).astype(np.int32)


def _shared_weights(tables: Tables, group: int, known: int, size: int) -> Ints:
    share = tables.share[:, :, group, None, None].astype(np.int64)
    return np.broadcast_to(share // max(1, known), (3, 3, known, size))


def _in_levels(values: NDArray[np.int32], steps: tuple[float, float]) -> Ints:
    """Sixteenths of a level. One IEEE division, correctly rounded everywhere."""
    step = np.array([steps[0], steps[0], steps[1]])
    return np.rint(values * (16 / POSE_UNIT) / step).astype(np.int64)


# ------------------------------------------------------------------------------------------- order of coding


@dataclass(frozen=True)
class Step:
    """Frames coded together: they do not depend on each other. Arrays are (F,), `left_weight` and on (F, 1, 1)."""

    kind: int
    frames: Ints
    left: Ints
    right: Ints
    """Frames predicted from; the same one twice where there is only one."""
    older: Ints
    """The known frame whose distance from `right` tells how fast things move."""
    types: Ints
    left_weight: Ints
    right_weight: Ints
    distance: Ints


@lru_cache(maxsize=64)
def schedule(frames: int, intra: bool) -> tuple[Step, ...]:
    """The steps of a message of `frames` frames."""
    steps = [_step(INTRA, [(1, 0, 0, 0, 0, 1, 0, 1)])] if intra else []
    start = 1 if intra else 0
    length = frames - start
    hops = -(-length // SPAN)
    stops = [start + n * length // hops for n in range(hops + 1)] if hops else [start]
    for n in range(hops):
        at, to, older = stops[n], stops[n + 1], stops[max(0, n - 1)]
        hop = to - at
        steps.append(_step(FORWARD, [(to, at, at, older, 1 if hop == 1 else 2 if hop <= 3 else 3, 1, 0, 1)]))
    gaps = [(a, b) for a, b in zip(stops, stops[1:], strict=False) if b - a > 1]
    while gaps:
        rows = []
        for a, b in gaps:
            middle, gap = (a + b) // 2, b - a
            kind = 6 if gap == 2 else 5 if gap <= 4 else 4
            rows.append((middle, a, b, a, kind, b - middle, middle - a, gap))
        steps.append(_step(BETWEEN, rows))
        halves = [half for (a, b), row in zip(gaps, rows, strict=True) for half in ((a, row[0]), (row[0], b))]
        gaps = [(a, b) for a, b in halves if b - a > 1]
    return tuple(steps)


def _step(kind: int, rows: list[tuple[int, ...]]) -> Step:
    columns: list[Any] = list(np.array(rows, np.int64).T)
    columns[5:] = [column[:, None, None] for column in columns[5:]]
    return Step(kind, *columns)


# ------------------------------------------------------------------------------------------------- the walk


@dataclass(frozen=True)
class Choice:
    """One group of keypoints of all frames of a step: what is expected. Arrays are (F, keypoints of the group, 3)."""

    step: Step
    number: int
    keypoints: Ints
    centre: Ints
    """The expected level, rounded."""
    sign: Ints
    """-1 where the expectation lies below it: differences are coded mirrored."""
    rows: Ints
    """Row of the flattened tables."""
    features: tuple[Ints, ...]
    expected: Ints
    """In sixteenths of a level."""


Choose = Callable[[Choice], Ints]
"""Gives the differences from the centre, mirrored by the sign."""


class Walk:
    """Goes through a message step by step; the caller says which differences there are, the walk what is expected."""

    def __init__(self, model: Model, frames: int, reference: NDArray[np.int32] | None) -> None:
        self._model = model
        self._intra = reference is None
        shape = (frames + 1, model.keypoints, 3)
        self._levels = np.zeros(shape, np.int64)
        if reference is not None:
            self._levels[0] = reference
        self._differences = np.zeros(shape, np.int64)
        self._still = np.zeros(frames + 1, np.int64)
        self.steps = schedule(frames, self._intra)

    @property
    def levels(self) -> NDArray[np.int32]:
        """(n, K, 3): what has been committed."""
        return self._levels[1:].astype(np.int32)

    def flag_rows(self, step: Step) -> Ints:
        """Row of the still tables for every frame of a step."""
        parents = self._still[step.left] + self._still[step.right]
        return 3 * step.kind + (parents if step.kind != INTRA else 0 * parents)

    def commit(self, step: Step, levels: Ints, differences: Ints) -> None:
        """Take levels and differences (F, K, 3) for known."""
        self._levels[step.frames] = levels
        self._differences[step.frames] = np.abs(differences)
        self._still[step.frames] = ~differences.any((1, 2))

    def groups(self, step: Step, choose: Choose) -> tuple[Ints, Ints]:
        """Levels and differences (F, K, 3) of a step, asking `choose` for one group after the other."""
        model, count = self._model, len(step.frames)
        base, motion, near = self._from_time(step)
        pace = motion.sum(1, keepdims=True) // model.keypoints
        levels = np.zeros((count, model.keypoints, 3), np.int64)
        differences, deviation = np.zeros_like(levels), np.zeros_like(levels)
        for number, (group, known) in enumerate(zip(model.groups, model.known, strict=True)):
            expected = base[:, group]
            moved = missed = np.zeros((1, 1, 3), np.int64)
            if len(known):
                seen = deviation[:, known]
                follow = np.matmul(seen.transpose(2, 0, 1), model.weights[number][step.kind])
                expected = expected + ((follow.transpose(1, 2, 0) + 128) >> 8)
                moved = np.abs(seen).sum(1, keepdims=True) // len(known)
                missed = 16 * np.abs(differences[:, known]).sum(1, keepdims=True) // len(known)
            missed_xy = missed[..., :2].sum(-1, keepdims=True) >> 1
            shift = np.abs(expected - base[:, group])
            features = (motion[:, group], near[:, group], moved, missed, missed_xy, pace, shift)
            centre = (expected + 8) >> 4
            beside = expected - 16 * centre
            choice = Choice(
                step,
                number,
                group,
                centre,
                np.where(beside < 0, -1, 1),
                self._rows(step, number, group, features, beside),
                features,
                expected,
            )
            difference = choose(choice) * choice.sign
            differences[:, group] = difference
            levels[:, group] = centre + difference
            deviation[:, group] = 16 * levels[:, group] - base[:, group]
        return levels, differences

    def _from_time(self, step: Step) -> tuple[Ints, Ints, Ints]:
        """Expectation, motion and recent differences (F, K, 3) from other frames alone, in sixteenths."""
        if step.kind == INTRA:
            mean = self._model.mean[None]
            return mean, self._model.spread[None], np.zeros_like(mean)
        left, right = self._levels[step.left], self._levels[step.right]
        between = 16 * (left * step.left_weight + right * step.right_weight)
        expected = (between + (step.distance >> 1)) // step.distance
        motion = 16 * np.abs(right - self._levels[step.older])
        return expected, motion, 8 * (self._differences[step.left] + self._differences[step.right])

    def _rows(self, step: Step, number: int, group: Ints, features: tuple[Ints, ...], beside: Ints) -> Ints:
        scale = self._model.scale[step.types, :, number][:, None]  # (F, 1, 3, FEATURES)
        likely = 256 * self._model.base[step.types][:, group]
        for n, feature in enumerate(features):
            likely = likely + scale[..., n] * feature
        context = np.searchsorted(THRESHOLDS, likely >> 8, side="right")
        kind = 3 * KIND_OF_AXIS + step.kind
        return (kind * CONTEXTS + context) * OFFSET_CLASSES + OFFSETS[np.abs(beside)]


def each_choice(walk: Walk, levels: NDArray[np.int32]) -> Iterator[tuple[Step, list[tuple[Choice, Ints]]]]:
    """Walk along known levels (n, K, 3): for every step its groups and their mirrored differences."""
    for step in walk.steps:
        wanted = levels[step.frames - 1].astype(np.int64)
        found: list[tuple[Choice, Ints]] = []

        def choose(choice: Choice, wanted: Ints = wanted, found: list[tuple[Choice, Ints]] = found) -> Ints:
            difference = (wanted[:, choice.keypoints] - choice.centre) * choice.sign
            found.append((choice, difference))
            return difference

        result = walk.groups(step, choose)
        yield step, found
        walk.commit(step, *result)
