"""Estimates of what source plans are worth, for a tenth of the time that a trial (trials.py) takes.

The motion is priced once, on a few messages: its bytes and the error that its quantisation adds hardly depend on the
sources. Frames of the clip are fitted and reconstructed one by one. Between qualities of the same sources, the error of
a frame is that of the motion and of what no source shows, which stays, and a share of that of the coded sources.
"""

import math
from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import similar_sources
from iwcodec.codec.file.rate_control.closed_loop import evaluated_frames
from iwcodec.codec.file.rate_control.frame_quality import REGION_WEIGHT
from iwcodec.codec.file.rate_control.source_plan import RECORD_BYTES, CodedSources, Pictures, pictures_of
from iwcodec.codec.file.rate_control.source_selection import Survey, evenly_spaced, mean_square
from iwcodec.codec.file.rate_control.trials import Excerpt
from iwcodec.codec.fit.keypoint_fit import quick_fit
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.transform_coder import TransformCoder, inverse_transform
from iwcodec.codec.motion.transform_rdo import RateDistortionQuantiser
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.parallel import in_order, per_thread
from iwcodec.codec.sources.library import CAPACITY, Library
from iwcodec.codec.sources.region_view import RegionView
from iwcodec.codec.sources.regions import REGIONS, Compositor, region_mask
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Runtime

VARIANTS, MAX_CANDIDATES = 8, 240
"""Variants of eyes and mouths that are expected, and the number of frames that they are chosen from."""
VARIANT_ERROR = 40.0
"""Squared error that coding adds to a variant, in squared grey levels."""
MESSAGE_BYTES = RECORD_BYTES + 8
"""Bytes that packet and container add to the payload of a message."""
SHOWN_SOURCE_ERROR = 0.8
"""Share of the squared error of the coded sources that is part of a reconstructed frame's (measured: 0.8 to 1)."""


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


def with_other_sources(quality: float, source_db: float, other_db: float) -> float:
    """Quality in dB of frames whose sources have `other_db` instead of `source_db`."""
    kept = 10 ** (-quality / 10) - SHOWN_SOURCE_ERROR * 10 ** (-source_db / 10)
    return -10 * math.log10(max(kept, 1e-6) + SHOWN_SOURCE_ERROR * 10 ** (-other_db / 10))


class SampledFrames:
    """Judges coded sources by frames of the clip that are fitted and reconstructed one by one."""

    def __init__(self, survey: Survey, pictures: Pictures, runtime: Runtime, most: int) -> None:
        self._runtime, self._survey = runtime, survey
        self._tuned = survey.faces is not None
        order = evaluated_frames(len(survey.keypoints), most)
        found = dict(pictures_of(sorted(order), pictures, hold=False))
        self._originals = {number: found[number] for number in order if number in found}
        self._regions = SampledRegions(survey, list(self._originals), runtime.info.size) if self._tuned else None

    def qualities(self, coded: CodedSources, count: int, known: Container[int] = ()) -> dict[int, float]:
        """Quality of the first `count` frames, by their number, with exact motion; without those that are known."""
        decoder = Decoder(self._runtime, capacity=CAPACITY, active=1)
        for packet in coded.packets:
            decoder.add_source(packet)
        decoder.prepare()
        library, unlike = decoder.library, coded.plan.unlike
        home = library.candidates(self._survey.keypoints.mean(0))[0]
        own_view = per_thread(lambda: RegionView(home, Compositor(self._runtime)))
        numbers = [number for number in list(self._originals)[:count] if number not in known]
        return dict(zip(numbers, in_order(lambda n: self._judge(n, unlike, library, own_view()), numbers), strict=True))

    def _judge(self, number: int, unlike: bool, library: Library, view: RegionView) -> float:
        original, detected = self._originals[number], self._survey.keypoints[number]
        candidates = library.candidates(detected)
        if unlike:
            candidates = similar_sources(original, candidates)
        fitted = quick_fit().frame(original, detected, candidates)
        source, keypoints = fitted.source, fitted.keypoints
        assert source is not None
        shown = source
        if self._regions is not None:
            slots = view.choose(original, keypoints, source, library)
            others = [None if slot is None else library.at(slot) for slot in slots]
            shown = view.compositor.composite(source, others)
        rebuilt = self._runtime.reconstruct(keypoints, [shown])
        return max(self._quality(number, rebuilt), self._quality(number, source.picture))

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
        errors, grid = variant_errors(survey), pixel_grid(size)
        self._most = {number: errors[number] for number in frames}
        self._masks = {
            number: [region_mask(survey.keypoints[number], region, size, grid) for region in REGIONS]
            for number in frames
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
        flat = survey.regions[:, region].reshape(count, -1).astype(np.float32)
        errors = mean_square(flat[candidates], flat) + VARIANT_ERROR
        left = np.full(count, np.inf, np.float32)
        for _ in range(VARIANTS):
            left = np.minimum(left, errors[int(np.minimum(left, errors).sum(1).argmin())])
        found.append(left)
    return np.stack(found, 1).astype(np.float32)
