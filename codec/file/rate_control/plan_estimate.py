"""Estimates of what source plans are worth, for a tenth of the time that a trial (trials.py) takes.

The motion is priced once, on a few messages: its bytes and the error that its quantisation adds hardly depend on the
sources. Frames of the clip are fitted to single sources, and some reconstructed from them, before anything is coded: a
plan is then a choice among these fits. To the error of a frame, coding adds a share of the error of the coded sources.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.file.motion_pass import are_similar
from iwcodec.codec.file.rate_control.closed_loop import evaluated_frames
from iwcodec.codec.file.rate_control.excerpt import Excerpt
from iwcodec.codec.file.rate_control.frame_quality import REGION_WEIGHT
from iwcodec.codec.file.rate_control.source_plan import RECORD_BYTES, CodedSources, Plan
from iwcodec.codec.file.rate_control.source_selection import Survey, evenly_spaced, flattened, mean_square
from iwcodec.codec.fit.keypoint_fit import MIN_ERROR, KeypointFit
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.transform_coder import TransformCoder, inverse_transform
from iwcodec.codec.motion.transform_rdo import RateDistortionQuantiser
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.parallel import in_order
from iwcodec.codec.sources.library import pose_distance
from iwcodec.codec.sources.regions import REGIONS, region_mask
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

VARIANTS, MAX_CANDIDATES = 8, 240
"""Variants of eyes and mouths that are expected, and the number of frames that they are chosen from."""
VARIANT_ERROR = 40.0
"""Squared error that coding adds to a variant, in squared grey levels."""
MESSAGE_BYTES = RECORD_BYTES + 8
"""Bytes that packet and container add to the payload of a message."""
SHOWN_SOURCE_ERROR = 0.8
"""Share of the squared error of the coded sources that is part of a reconstructed frame's (measured: 0.8 to 1)."""
DB_PER_FIT_DB = 0.7
"""Quality in dB that a reconstructed frame gains with each dB of PSNR of its source warped by the fit: 0.62 to 0.84 on
five clips, with correlations of 0.95 to 0.99."""


class MotionPrice:
    """What the motion of a clip costs, as an excerpt of it tells. Nothing is quantised before it is asked for."""

    def __init__(self, excerpt: Excerpt, coded: CodedSources) -> None:
        """`coded`: sources that the motion is fitted to."""
        self._fits, self._length, self._share = excerpt.fits(coded), excerpt.message_frames, excerpt.share
        self._coder = TransformCoder(load_transform_tables())
        self._known: dict[int, tuple[float, float]] = {}

    def at(self, scale: int) -> tuple[float, float]:
        """Bytes of the whole clip's motion at a quantiser scale, and the mean PSNR in dB that it loses."""
        if scale not in self._known:
            self._known[scale] = self._quantise(RateDistortionQuantiser(self._coder, scale))
        return self._known[scale]

    def _quantise(self, quantiser: RateDistortionQuantiser) -> tuple[float, float]:
        size, errors = 0, []
        for first in range(0, len(self._fits), self._length):
            frames = self._fits[first : first + self._length]
            message = quantiser.message(frames)
            size += len(message.payload) + MESSAGE_BYTES
            decoded = np.concatenate([inverse_transform(levels, quantiser.scale) for levels in message.levels])
            errors += [fit.frame.of(row) for fit, row in zip(frames, decoded, strict=True)]
        return size / self._share, float(np.mean(10 * np.log10(1 + np.array(errors))))


def with_coding_error(qualities: NDArray[np.float64], source_db: float) -> NDArray[np.float64]:
    """Quality in dB of frames (n,) reconstructed from sources that coding leaves at `source_db`; `qualities`: from
    uncoded ones."""
    return -10 * np.log10(10 ** (-qualities / 10) + SHOWN_SOURCE_ERROR * 10 ** (-source_db / 10))


class SampledFrames:
    """Frames of the clip, fitted to single sources that are not coded, and some of them reconstructed. A frame is
    fitted once to each source, in whatever plans this is.

    Safe to use from several threads."""

    def __init__(
        self,
        survey: Survey,
        pictures: Mapping[int, Picture],
        runtime: Runtime,
        count: int,
        rebuilt: int,
        new_fit: Callable[[], KeypointFit] = KeypointFit,
    ) -> None:
        """`pictures`: the frames that are sampled and those that may become sources, by frame number. `count`: frames
        sampled (`evaluated_frames`). `rebuilt`: frames of these that are reconstructed from the sources of a plan.
        `new_fit`: makes the fit of a single frame."""
        self._rebuilt, self._new_fit = rebuilt, new_fit
        self._survey, self._runtime, self._pictures = survey, runtime, pictures
        sampled = evaluated_frames(len(survey.keypoints), count)
        self._originals = {number: pictures[number] for number in sampled if number in pictures}
        self._regions = (
            None if survey.faces is None else SampledRegions(survey, list(self._originals), runtime.info.size)
        )
        self._prepared: dict[int, Source] = {}
        self._fits: dict[tuple[int, int], tuple[Keypoints, float]] = {}
        self._known: dict[tuple[int, int], float] = {}

    def qualities(self, plan: Plan) -> NDArray[np.float64]:
        """Quality in dB of the sampled frames that are not sources of the plan, with exact motion: of those that
        are not reconstructed from what their fits leave, with the offset of those that are (a regression estimate)."""
        numbers = [number for number in self._originals if number not in plan.frames]
        sources = list(in_order(lambda number: self._nearest(number, plan), numbers))
        pairs = list(zip(numbers, sources, strict=True))
        rebuilt = np.array(list(in_order(lambda pair: self._judge(*pair), pairs[: self._rebuilt])))
        if len(rebuilt) == len(pairs):
            return rebuilt
        by_fit = np.array([-10 * DB_PER_FIT_DB * math.log10(max(self._fit(*pair)[1], MIN_ERROR)) for pair in pairs])
        return np.append(rebuilt, by_fit[self._rebuilt :] + np.mean(rebuilt - by_fit[: self._rebuilt]))

    def _nearest(self, number: int, plan: Plan) -> int:
        """The source of a plan that fits a frame best."""
        return min(self._candidates(number, plan), key=lambda source: self._fit(number, source)[1])

    def _judge(self, number: int, source: int) -> float:
        """Quality in dB of a frame reconstructed from a source, or of the source itself if that is better."""
        if (number, source) not in self._known:
            prepared, (keypoints, _) = self._prepare(source), self._fit(number, source)
            shown = self._runtime.reconstruct(keypoints, [prepared]), prepared.picture
            self._known[number, source] = max(self._quality(number, picture) for picture in shown)
        return self._known[number, source]

    def _candidates(self, number: int, plan: Plan) -> list[int]:
        """The sources that are fitted to a frame."""
        frames, poses = np.array(plan.frames), self._survey.keypoints
        if plan.unlike:
            shown = flattened(self._survey.thumbnails[[number, *frames]])
            frames = frames[are_similar(np.square(shown[1:] - shown[0]).mean(1))]
        nearest = np.argsort(pose_distance(poses[frames], poses[number]), kind="stable")
        return [int(frame) for frame in frames[nearest[: self._new_fit().candidates]]]

    def _fit(self, number: int, source: int) -> tuple[Keypoints, float]:
        """Keypoints (K, 3) of a frame, fitted to a source, and the error that remains."""
        if (number, source) not in self._fits:
            original, detected = self._originals[number], self._survey.keypoints[number]
            fitted = self._new_fit().frame(original, detected, [self._prepare(source)])
            self._fits[number, source] = fitted.keypoints, fitted.error
        return self._fits[number, source]

    def _prepare(self, source: int) -> Source:
        if source not in self._prepared:
            self._prepared[source] = self._runtime.prepare(self._pictures[source])
        return self._prepared[source]

    def _quality(self, number: int, picture: Picture) -> float:
        if self._regions is None:
            return psnr(picture, self._originals[number])
        return self._regions.quality(number, picture, self._originals[number])


class SampledRegions:
    """Judges frames as `frame_quality`, with eyes and mouths as variants of sources will show them.

    Variants are chosen later (variant_selection.py), for whatever sources there are. So the error of a region counts at
    most as much as the nearest variant leaves; otherwise plans of many sources would be chosen for their expressions.
    """

    def __init__(self, survey: Survey, frames: Sequence[int], size: int) -> None:
        assert survey.faces is not None
        errors, grid, faces = variant_errors(survey), pixel_grid(size), survey.faces
        self._most = {number: errors[number] for number in frames}
        self._masks = {
            number: [region_mask(faces[number], region, size, grid) for region in REGIONS] for number in frames
        }

    def quality(self, number: int, picture: Picture, original: Picture) -> float:
        """Quality in dB of a picture for a frame."""
        errors = np.square(picture.astype(np.float32) - original).mean(2)
        masks = self._masks[number]
        rest = np.maximum(1 - sum(masks), 0)
        total, weight = float((rest * errors).sum()), float(rest.sum())
        for mask, most in zip(masks, self._most[number], strict=True):
            area = REGION_WEIGHT * float(mask.sum())
            total += min(REGION_WEIGHT * float((mask * errors).sum()), area * float(most))
            weight += area
        return 10 * math.log10(255**2 / max(total / weight, 1e-3))


def variant_errors(survey: Survey) -> NDArray[np.float32]:
    """Squared error that VARIANTS pictures of eyes and mouths leave in each region of each frame (n, regions)."""
    assert survey.regions is not None
    count = len(survey.regions)
    candidates, found = evenly_spaced(count, MAX_CANDIDATES), []
    for region in range(len(REGIONS)):
        flat = flattened(survey.regions[:, region])
        errors = mean_square(flat[candidates], flat) + VARIANT_ERROR
        left = np.full(count, np.inf, np.float32)
        for _ in range(VARIANTS):
            left = np.minimum(left, errors[int(np.minimum(left, errors).sum(1).argmin())])
        found.append(left)
    return np.stack(found, 1).astype(np.float32)
