"""Metrics by name: which exist, which this machine can compute, and the scores of a decoded clip."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from iwcodec.benchmarks.metrics import expression, faces, identity, lip_sync, pose, vmaf
from iwcodec.benchmarks.metrics.fidelity import MIN_MS_SSIM_SIDE, luma, ms_ssim, psnr_y, ssim_from_maps, ssim_maps
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.learned.dists import Dists
from iwcodec.benchmarks.metrics.learned.lpips import Lpips
from iwcodec.benchmarks.metrics.learned.sampling import SampledDistance
from iwcodec.benchmarks.metrics.mesh.body_pose import BodyPose
from iwcodec.benchmarks.metrics.mesh.face_mesh import FaceMesh
from iwcodec.benchmarks.metrics.temporal import flicker, motion_error
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture

Pictures = Sequence[Picture]
Scores = dict[str, float | None]


@dataclass(frozen=True)
class Clip:
    """An original and its decoded pictures (uint8 RGB), as many of each."""

    originals: Pictures
    decoded: Pictures
    fps: float
    levels: lip_sync.Levels | None = None
    """Level of the sound at each frame; None for a silent clip."""


ClipMetric = Callable[[Clip], Scores]

FRAME_METRICS: dict[str, tuple[str, ...]] = {
    "psnr": ("psnr_rgb", "psnr_y"),
    "ssim": ("ssim",),
    "ms-ssim": ("ms_ssim",),
    "flicker": ("flicker",),
    "motion": ("motion_error",),
}
"""Metrics that `measure` computes in one pass over the frames -> the scores each gives."""
CLIP_METRICS: dict[str, tuple[str, ...]] = {
    "vmaf": ("vmaf",),
    "lpips": ("lpips_alex", "lpips_vgg"),
    "dists": ("dists",),
    "akd": ("akd", "missing_faces"),
    "expression": (
        "eye_r",
        "gaze_r",
        "mouth_open_r",
        "mouth_width_r",
        "blink_recall",
        "blink_false",
        "lips_lmd",
        "eyes_lmd",
    ),
    "identity": ("csim",),
    "loudness": ("loudness_r", "loudness_r_original"),
    "pose": ("pose_akd", "missing_bodies"),
}
"""Metrics that take the whole clip and need optional packages or weights -> the scores each gives."""
METRICS = {**FRAME_METRICS, **CLIP_METRICS}
"""Name -> scores. Higher is better for psnr, ssim, ms-ssim, vmaf and identity, and for correlations and blink recall;
lower is better for the others."""
DEFAULT_METRICS = ("psnr", "ssim", "ms-ssim", "vmaf")
DIGITS = 4
"""Decimals of the scores in result files."""
MOTION_STRIDE = 5
"""Motion error is measured on every Nth pair of frames: two optical flows take three times as long as all the rest."""


def measure(
    originals: Iterable[Picture], decoded: Iterable[Picture], metrics: Collection[str] = tuple(FRAME_METRICS)
) -> Scores:
    """Mean of each score over a clip, in one pass. `metrics` are names from FRAME_METRICS.

    A score is None where it is undefined: ms_ssim of pictures smaller than MIN_MS_SSIM_SIDE, flicker of a clip that is
    nowhere still, flicker and motion of a single frame. Raises ValueError unless both clips have the same number of
    pictures and at least one.
    """
    values: dict[str, list[float]] = {column: [] for name in metrics for column in FRAME_METRICS[name]}
    last: tuple[Picture, Picture] | None = None
    count = 0
    for original, picture in zip(originals, decoded, strict=True):
        count += 1
        for column, value in _frame_scores(original, picture, metrics):
            values[column].append(value)
        if last is not None:
            pairs = (last[0], original), (last[1], picture)
            if "flicker" in metrics and (change := flicker(*pairs)) is not None:
                values["flicker"].append(change)
            if "motion" in metrics and (count - 2) % MOTION_STRIDE == 0:
                values["motion_error"].append(motion_error(*pairs))
        last = original, picture
    if not count:
        raise ValueError("no pictures")
    return {column: float(np.mean(scores)) if scores else None for column, scores in values.items()}


def _frame_scores(original: Picture, picture: Picture, metrics: Collection[str]) -> Iterator[tuple[str, float]]:
    y, y_decoded = luma(original), luma(picture)
    if "psnr" in metrics:
        yield "psnr_rgb", psnr(original, picture)
        yield "psnr_y", psnr_y(y, y_decoded)
    if "ssim" in metrics or "ms-ssim" in metrics:
        maps = ssim_maps(y, y_decoded)
        if "ssim" in metrics:
            yield "ssim", ssim_from_maps(maps)
        if "ms-ssim" in metrics and min(y.shape) >= MIN_MS_SSIM_SIDE:
            yield "ms_ssim", ms_ssim(y, y_decoded, maps)


@dataclass
class Scorer:
    """Scores clips by the requested metrics that are available; `missing` says why the others are not."""

    available: list[str]
    missing: dict[str, str]
    _functions: dict[str, ClipMetric] = field(repr=False)

    @property
    def columns(self) -> set[str]:
        """Names of the scores that a call returns."""
        return {column for name in self.available for column in METRICS[name]}

    def __call__(self, clip: Clip, known: Scores | None = None) -> Scores:
        """Score a decoded clip. Metrics whose scores are `known` are skipped."""
        known = known or {}
        missing = [name for name in self.available if not known.keys() >= set(METRICS[name])]
        frame_metrics = [name for name in missing if name in FRAME_METRICS]
        scores = measure(clip.originals, clip.decoded, frame_metrics) if frame_metrics else {}
        for name in missing:
            if name not in FRAME_METRICS:
                scores.update(self._functions[name](clip))
        return {**known, **{name: None if value is None else round(value, DIGITS) for name, value in scores.items()}}


def make_scorer(names: Sequence[str]) -> Scorer:
    """A scorer for these metrics. Raises CodecError for an unknown name or if none of them is available."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise CodecError(f"There is no metric {unknown[0]!r}; there are {', '.join(METRICS)}.")
    available, missing, functions = [], {}, {}
    for name in METRICS:
        if name not in names:
            continue
        try:
            if name in CLIP_METRICS:
                functions[name] = _MAKERS[name]()
            available.append(name)
        except MetricUnavailableError as error:
            missing[name] = str(error)
    if not available:
        raise CodecError(" ".join(missing.values()) or "No metric was requested.")
    return Scorer(available, missing, functions)


def _vmaf() -> ClipMetric:
    vmaf.find_ffmpeg()
    return lambda clip: {"vmaf": float(np.mean(vmaf.vmaf(clip.originals, clip.decoded, clip.fps)))}


def _lpips() -> ClipMetric:
    alex, vgg = SampledDistance(Lpips("alex")), SampledDistance(Lpips("vgg"))
    return lambda clip: {
        "lpips_alex": alex(clip.originals, clip.decoded),
        "lpips_vgg": vgg(clip.originals, clip.decoded),
    }


def _dists() -> ClipMetric:
    distance = SampledDistance(Dists())
    return lambda clip: {"dists": distance(clip.originals, clip.decoded)}


def _akd() -> ClipMetric:
    detect = faces.FaceLandmarks()
    cached = faces.CachedDetector(detect)
    return lambda clip: faces.keypoint_distance(detect, clip.originals, clip.decoded, cached)


def _expression() -> ClipMetric:
    detect = FaceMesh()
    cached = faces.CachedDetector(detect)

    def scores(clip: Clip) -> Scores:
        measured = expression.measure_clip(detect, clip.originals, clip.decoded, cached)
        return {column: getattr(measured, column) for column in CLIP_METRICS["expression"]}

    return scores


def _identity() -> ClipMetric:
    describe = identity.FaceRecognition()
    cached = faces.CachedDetector(describe)
    return lambda clip: {"csim": identity.similarity(describe, clip.originals, clip.decoded, cached)}


def _loudness() -> ClipMetric:
    detect = FaceMesh()
    cached = faces.CachedDetector(detect)

    def scores(clip: Clip) -> Scores:
        if clip.levels is None:
            return dict.fromkeys(CLIP_METRICS["loudness"])
        return {
            "loudness_r": lip_sync.loudness_correlation(detect, clip.decoded, clip.levels),
            "loudness_r_original": lip_sync.loudness_correlation(cached, clip.originals, clip.levels),
        }

    return scores


def _pose() -> ClipMetric:
    detect = BodyPose()
    cached = faces.CachedDetector(detect)
    return lambda clip: pose.pose_distance(detect, clip.originals, clip.decoded, cached)


_MAKERS: dict[str, Callable[[], ClipMetric]] = {
    "vmaf": _vmaf,
    "lpips": _lpips,
    "dists": _dists,
    "akd": _akd,
    "expression": _expression,
    "identity": _identity,
    "loudness": _loudness,
    "pose": _pose,
}
