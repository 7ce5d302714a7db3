"""Metrics by name: which there are, which this machine can do, and all the wanted ones of a decoded clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from iwcodec.benchmarks.metrics import faces, learned, metrics
from iwcodec.benchmarks.metrics.metrics import COLUMNS, SIMPLE, MetricUnavailableError
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import Picture

Pictures = Sequence[Picture]
Scores = dict[str, float | None]

CLIP_METRICS: dict[str, tuple[str, ...]] = {
    "vmaf": ("vmaf",),
    "lpips": ("lpips",),
    "fid": ("fid",),
    "akd": ("akd", "missing_faces"),
    "cvvdp": ("cvvdp",),
}
METRICS = {**COLUMNS, **CLIP_METRICS}
"""Name -> the figures it gives. Higher is better for psnr, ssim, ms-ssim, vmaf and cvvdp, lower for the others."""
USUAL = ("psnr", "ssim", "ms-ssim", "vmaf")
DIGITS = 4


@dataclass
class Scorer:
    """Scores clips by the metrics asked for; `missing` says of the others why this machine cannot do them."""

    able: list[str]
    missing: dict[str, str]
    _functions: dict[str, Callable[[Pictures, Pictures, float], Scores]] = field(repr=False)

    @property
    def columns(self) -> set[str]:
        return {column for name in self.able for column in METRICS[name]}

    def __call__(self, originals: Pictures, decoded: Pictures, fps: float, known: Scores | None = None) -> Scores:
        """Pictures uint8 RGB, as many decoded as original ones. What is known already is not measured again."""
        known = known or {}
        missing = [name for name in self.able if not known.keys() >= set(METRICS[name])]
        simple = [name for name in missing if name in SIMPLE]
        found = metrics.measure(originals, decoded, simple) if simple else {}
        for name in missing:
            if name not in SIMPLE:
                found.update(self._functions[name](originals, decoded, fps))
        return {**known, **{name: None if value is None else round(value, DIGITS) for name, value in found.items()}}


def make_scorer(wanted: Sequence[str]) -> Scorer:
    """Raises CodecError for an unknown name, or where none of the wanted metrics can be had."""
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        raise CodecError(f"There is no metric {unknown[0]!r}; there are {', '.join(METRICS)}.")
    able, missing, functions = [], {}, {}
    for name in METRICS:
        if name not in wanted:
            continue
        try:
            if name in CLIP_METRICS:
                functions[name] = _MAKERS[name]()
            able.append(name)
        except MetricUnavailableError as error:
            missing[name] = str(error)
    if not able:
        raise CodecError(" ".join(missing.values()) or "No metric was asked for.")
    return Scorer(able, missing, functions)


def _vmaf() -> Callable[[Pictures, Pictures, float], Scores]:
    metrics.find_ffmpeg()
    return lambda originals, decoded, fps: {"vmaf": float(np.mean(metrics.vmaf(originals, decoded, fps)))}


def _lpips() -> Callable[[Pictures, Pictures, float], Scores]:
    distance = learned.Lpips()
    return lambda originals, decoded, fps: {
        "lpips": float(np.mean([distance(a, b) for a, b in zip(originals, decoded, strict=True)]))
    }


def _fid() -> Callable[[Pictures, Pictures, float], Scores]:
    learned.check_inception()
    return lambda originals, decoded, fps: {"fid": learned.fid(originals, decoded)}


def _akd() -> Callable[[Pictures, Pictures, float], Scores]:
    finder = faces.Landmarks()
    remembered = faces.Remembered(finder)
    return lambda originals, decoded, fps: faces.compare(finder, originals, decoded, remembered)


def _cvvdp() -> Callable[[Pictures, Pictures, float], Scores]:
    metric = learned.ColorVideoVdp()
    return lambda originals, decoded, fps: {"cvvdp": metric(originals, decoded, fps)}


_MAKERS = {"vmaf": _vmaf, "lpips": _lpips, "fid": _fid, "akd": _akd, "cvvdp": _cvvdp}
