"""`iwcodec bench motion`: rate of the quantised motion against its loss of PSNR.

The motion of a clip is fitted once, with the sources that `encode` would choose, and coded at every quantiser scale
(codec/motion/transform_coder.py). The loss is relative to the pictures from the unquantised fitted keypoints.

One scale for all clips is expensive where motion is lively, and loses most where a clip is calm and its quality high.
A better encoder equalises the slope: it gives each clip the scale at which another kbps brings the same gain in all
clips (second table). Selection and measurement use different halves of the frames, both ways round, to avoid selection
bias.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import read_clip
from iwcodec.codec.file.motion_pass import fit_motion, motion_size, quantise_messages, to_source_coordinates
from iwcodec.codec.file.options import EncodeOptions, Progress
from iwcodec.codec.file.passes import code_sources, fit_for
from iwcodec.codec.fit.alignment import as_keypoints
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.motion.transform_coder import SCALES, step_of
from iwcodec.codec.motion.types import Fit
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.terminal import JSON, progress_bar
from iwcodec.models.runtime.types import Runtime

STRIDE = 5
"""Every Nth frame is reconstructed and compared."""
COLUMNS = ("kbps", "max kbps", "loss, dB", "max loss, dB")
"""Figures of both tables: mean and maximum over clips."""
SLOPES = (0.04, 0.06, 0.08, 0.09, 0.1, 0.15, 0.2)
"""Rate-distortion slopes: dB that another kbps must bring, at 25 frames/s."""


@dataclass(frozen=True)
class Point:
    """Motion coded at one quantiser scale."""

    scale: int
    kbps: float
    """Rate including the container's overhead."""
    psnr_db: float
    """PSNR (RGB), mean over the compared frames."""
    halves_db: list[float]
    """The same over the even and over the odd of the compared frames."""


@dataclass(frozen=True)
class Curve:
    """Rate and quality of one clip's motion over the quantiser scales."""

    clip: str
    fps: float
    sources: int
    fitted_db: float
    """PSNR with the fitted keypoints, not quantised."""
    fitted_halves_db: list[float]
    points: list[Point]
    """From the finest to the coarsest scale."""


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    sources: Annotated[int, typer.Option(help="As for encode.", min=1)] = 3,
    scales: Annotated[str, typer.Option(help="Quantiser scales; +16 doubles the step.")] = "54,62,70,78,86,94",
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder for motion.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Rate of the motion against the loss of PSNR by its quantisation."""
    chosen = parse_scales(scales)
    runtime, curves = load_runtime_for(256, threads), []
    todo = clips or [sample_clip()]
    with progress_bar(as_json) as progress:
        for number, clip in enumerate(todo):
            options = EncodeOptions(sources=sources, crop=crop, tune="psnr")
            whole = partial(_part, progress, number / len(todo), 1 / len(todo))
            curves.append(measure(clip, options, runtime, chosen, whole))
            results = {"what": "motion", **experiment.surroundings(), "clips": list(map(asdict, curves))}
            experiment.save(results, out / "motion.json")
    experiment.publish(results, out / "motion.json", as_json, table(results), slope_table(results))


def parse_scales(text: str) -> list[int]:
    """Comma-separated quantiser scales, ascending. Raises CodecError."""
    try:
        scales = sorted({int(word) for word in text.split(",")})
    except ValueError as error:
        raise CodecError(f"--scales takes comma-separated numbers, not {text!r}.") from error
    if not 0 <= scales[0] <= scales[-1] < SCALES:
        raise CodecError(f"--scales must be from 0 to {SCALES - 1}.")
    return scales


def _part(progress: Progress, start: float, share: float, name: str, done: float) -> None:
    """Report progress of a part that covers `share` of the whole, from `start` on."""
    progress(name, start + share * done)


def measure(clip: Path, options: EncodeOptions, runtime: Runtime, scales: list[int], progress: Progress) -> Curve:
    """Fit and code the motion of a clip at each scale. Raises CodecError for a clip that is too short."""
    whole = read_clip(clip, runtime, options, progress)
    video, survey, coded = whole.video, whole.survey, code_sources(whole, progress)
    decoder = Decoder(runtime)
    raw: list[Motion] = []
    fits: list[Fit] = []
    length = whole.message_frames
    report_fit = partial(progress, "fitting the motion")
    fit = fit_motion(video.pictures(), survey.keypoints, coded, length, decoder, fit_for(options.effort), report_fit)
    for fitted in fit:
        raw.append(Motion(len(raw), as_keypoints(fitted.frame.target), fitted.reference_source, fitted.skip))
        fits += to_source_coordinates([fitted], decoder)
    starts = range(0, len(fits), length)
    packed = [list(quantise_messages((fits[first : first + length] for first in starts), scale)) for scale in scales]
    tracks = [raw, *([motion for packet in packets for motion in decoder.motion(packet)] for packets in packed)]
    source_frames = {packet.frame for packet in coded.packets}

    def reconstruct(motion: Motion) -> Picture:
        result = decoder.reconstruct_motion(motion)
        assert result is not None
        return result

    quality = [
        [psnr(reconstruct(motion), picture) for motion in frame]
        for number, (frame, picture) in enumerate(zip(zip(*tracks, strict=True), video.pictures(), strict=False))
        if number % STRIDE == 0 and number not in source_frames
    ]
    if len(quality) < 2:
        raise CodecError(f"{clip} is too short: one of every {STRIDE} frames is compared, and two are needed.")
    means = np.mean(quality, axis=0).round(3).tolist()
    halves = np.stack([np.mean(quality[first::2], axis=0) for first in (0, 1)], axis=1).round(3).tolist()
    seconds = len(fits) / float(video.info.fps)
    points = [
        Point(scale, round(motion_size(packets) / 125 / seconds, 3), mean, half)
        for scale, packets, mean, half in zip(scales, packed, means[1:], halves[1:], strict=True)
    ]
    return Curve(clip.stem, round(float(video.info.fps), 3), len(coded.packets), means[0], halves[0], points)


def table(results: dict[str, Any]) -> Table:
    """Rate and loss for each scale, over the clips."""
    clips, rows = results["clips"], []
    for number, point in enumerate(clips[0]["points"]):
        rates = [at_25(clip, clip["points"][number]) for clip in clips]
        losses = [clip["fitted_db"] - clip["points"][number]["psnr_db"] for clip in clips]
        rows.append([str(point["scale"]), f"{step_of(point['scale']):.2f}", *row_of(rates, losses)])
    title = "Motion: rate at 25 frames/s, and loss of PSNR"
    return experiment.text_table(title, ("scale", "step", *COLUMNS), rows)


def slope_table(results: dict[str, Any]) -> Table:
    """Rate and loss where each clip has its own scale, chosen for the same rate-distortion slope in all clips."""
    found = [zip(*(at_slope(clip, slope) for clip in results["clips"]), strict=True) for slope in SLOPES]
    rows = [[f"{slope:.2f}", *row_of(*pairs)] for slope, pairs in zip(SLOPES, found, strict=True)]
    return experiment.text_table(
        "Each clip at the scale of equal rate-distortion slope", ("dB per kbps", *COLUMNS), rows
    )


def at_slope(clip: dict[str, Any], slope: float) -> tuple[float, float]:
    """Rate at 25 frames/s and loss in dB at the scale that minimises loss + slope * rate.

    The scale is chosen on one half of the frames and measured on the other; mean of both ways round.
    """
    rates = np.array([at_25(clip, point) for point in clip["points"]])
    losses = np.array(clip["fitted_halves_db"]) - [point["halves_db"] for point in clip["points"]]
    chosen = (losses + slope * rates[:, None]).argmin(axis=0)
    return float(rates[chosen].mean()), float(losses[chosen, [1, 0]].mean())


def at_25(clip: dict[str, Any], point: dict[str, Any]) -> float:
    """Rate converted to 25 frames/s: motion is sent per frame, so it is proportional to the frame rate."""
    return float(point["kbps"] * 25 / clip["fps"])


def row_of(rates: Sequence[float], losses: Sequence[float]) -> list[str]:
    """The figures of COLUMNS."""
    return [f"{np.mean(rates):.2f}", f"{max(rates):.2f}", f"{np.mean(losses):.3f}", f"{max(losses):.3f}"]
