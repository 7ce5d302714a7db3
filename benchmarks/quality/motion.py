"""`iwcodec bench motion`: what quantising the motion costs, in bits and in decibels of the rebuilt picture.

The motion of a clip is fitted once, to the sources that `encode` would choose, and coded at every scale
(motion_transform.py). Beside each stands the picture from the keypoints as they were fitted, which no bits would carry.

The same steps for all clips are dear where motion is lively and lose most where a clip is calm and its pictures good.
What an encoder would rather do is give each clip the steps at which a kbps more brings the same everywhere: the second
table. So that nobody wins by luck, half of the frames choose and the others are counted, both ways about.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.codec.cli import JSON, console, progress_bar
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import EncodeOptions, Progress, read_clip
from iwcodec.codec.file.motion_pass import fitted_motion, from_sources, motion_size, packed_motion
from iwcodec.codec.file.passes import code_sources, fit_for
from iwcodec.codec.fit.alignment import as_keypoints
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.motion.transform_coder import SCALES, step_of
from iwcodec.codec.motion.types import Fit
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.models.runtime.types import Runtime

JUDGED_STRIDE = 5
"""Every so many frames one is rebuilt."""
MEANS = ("kbps", "most kbps", "loss, dB", "most loss, dB")
PRICES = (0.04, 0.06, 0.08, 0.09, 0.1, 0.15, 0.2)
"""dB that a kbps has to bring, at 25 frames/s."""


@dataclass(frozen=True)
class Point:
    scale: int
    kbps: float
    """With what the container adds."""
    psnr_db: float
    """RGB, mean over the frames that are rebuilt."""
    halves_db: list[float]
    """The same of every other of them, and of the rest."""


@dataclass(frozen=True)
class Curve:
    clip: str
    fps: float
    sources: int
    fitted_db: float
    """From the keypoints as they were fitted."""
    fitted_halves_db: list[float]
    points: list[Point]
    """From fine to coarse."""


def command(
    clips: Annotated[list[Path] | None, typer.Argument(metavar="CLIPS...", help="Default: the bundled clip.")] = None,
    sources: Annotated[int, typer.Option(help="As for encode.", min=1)] = 3,
    scales: Annotated[str, typer.Option(help="Of the steps, which double with every 16.")] = "54,62,70,78,86,94",
    crop: Annotated[str, typer.Option(help="As for encode.")] = "face",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder for motion.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Rate of the motion against what quantising it costs the picture."""
    chosen = parse_scales(scales)
    runtime, curves = load_runtime_for(256, threads), []
    todo = clips or [sample_clip()]
    with progress_bar(as_json) as tell:
        for number, clip in enumerate(todo):
            options = EncodeOptions(sources=sources, crop=crop)
            whole = partial(_part, tell, number / len(todo), 1 / len(todo))
            curves.append(measure(clip, options, runtime, chosen, whole))
            results = {"what": "motion", **experiment.surroundings(), "clips": list(map(asdict, curves))}
            experiment.save(results, out / "motion.json")
    if as_json:
        print(json.dumps(list(map(asdict, curves)), indent=1))
    else:
        console.print(table(results))
        console.print(price_table(results))
        console.print(f"Results: {out / 'motion.json'}")


def parse_scales(text: str) -> list[int]:
    """Ascending. Raises CodecError."""
    try:
        scales = sorted({int(word) for word in text.split(",")})
    except ValueError as error:
        raise CodecError(f"--scales takes numbers with commas between them, not {text!r}.") from error
    if not 0 <= scales[0] <= scales[-1] < SCALES:
        raise CodecError(f"--scales are from 0 to {SCALES - 1}.")
    return scales


def _part(tell: Progress, done: float, share: float, name: str, of_it: float) -> None:
    tell(name, done + share * of_it)


def measure(clip: Path, options: EncodeOptions, runtime: Runtime, scales: list[int], tell: Progress) -> Curve:
    whole = read_clip(clip, runtime, options, tell)
    video, survey, coded = whole.video, whole.survey, code_sources(whole, tell)
    decoder = Decoder(runtime)
    raw: list[Motion] = []
    fits: list[Fit] = []
    length = whole.message_frames
    told = partial(tell, "fitting the motion")
    fit = fitted_motion(video.pictures(), survey.keypoints, coded, length, decoder, fit_for(options.effort), told)
    for found in fit:
        raw.append(Motion(len(raw), as_keypoints(found.frame.target), found.reference_source, found.still))
        fits += from_sources([found], decoder)
    starts = range(0, len(fits), length)
    packed = [list(packed_motion((fits[first : first + length] for first in starts), scale)) for scale in scales]
    tracks = [raw, *([motion for packet in packets for motion in decoder.motion(packet)] for packets in packed)]
    shown = {packet.frame for packet in coded.packets}

    def rebuilt(sent: Motion) -> Picture:
        found = decoder.rebuilt(sent)
        assert found is not None
        return found

    quality = [
        [psnr(rebuilt(sent), picture) for sent in frame]
        for number, (frame, picture) in enumerate(zip(zip(*tracks, strict=True), video.pictures(), strict=False))
        if number % JUDGED_STRIDE == 0 and number not in shown
    ]
    if len(quality) < 2:
        raise CodecError(f"{clip} is too short: of every {JUDGED_STRIDE} frames one is looked at, and two are needed.")
    means = np.mean(quality, axis=0).round(3).tolist()
    halves = np.stack([np.mean(quality[first::2], axis=0) for first in (0, 1)], axis=1).round(3).tolist()
    seconds = len(fits) / float(video.info.fps)
    points = [
        Point(scale, round(motion_size(packets) / 125 / seconds, 3), mean, half)
        for scale, packets, mean, half in zip(scales, packed, means[1:], halves[1:], strict=True)
    ]
    return Curve(clip.stem, round(float(video.info.fps), 3), len(coded.packets), means[0], halves[0], points)


def table(results: dict[str, Any]) -> Table:
    """Means over the clips, for each scale."""
    drawn = Table(title="Motion: rate as at 25 frames/s, and loss; means over the clips", title_justify="left")
    for heading in ("scale", "step", *MEANS):
        drawn.add_column(heading, justify="right")
    clips = results["clips"]
    for number, point in enumerate(clips[0]["points"]):
        rates = [at_25(clip, clip["points"][number]) for clip in clips]
        losses = [clip["fitted_db"] - clip["points"][number]["psnr_db"] for clip in clips]
        drawn.add_row(str(point["scale"]), f"{step_of(point['scale']):.2f}", *means_of(rates, losses))
    return drawn


def price_table(results: dict[str, Any]) -> Table:
    """The same, where each clip has its own scale and a kbps brings the same in all of them."""
    drawn = Table(title="Each clip at the scale where a kbps more brings the same", title_justify="left")
    for heading in ("dB a kbps", *MEANS):
        drawn.add_column(heading, justify="right")
    for price in PRICES:
        rates, losses = zip(*(at_price(clip, price) for clip in results["clips"]), strict=True)
        drawn.add_row(f"{price:.2f}", *means_of(rates, losses))
    return drawn


def at_price(clip: dict[str, Any], price: float) -> tuple[float, float]:
    """Rate, as at 25 frames/s, and loss in dB at the scales where loss and rate, at a price in dB a kbps, are least:
    chosen by one half of the frames and measured on the other, the mean of both ways about."""
    rates = np.array([at_25(clip, point) for point in clip["points"]])
    losses = np.array(clip["fitted_halves_db"]) - [point["halves_db"] for point in clip["points"]]
    chosen = (losses + price * rates[:, None]).argmin(axis=0)
    return float(rates[chosen].mean()), float(losses[chosen, [1, 0]].mean())


def at_25(clip: dict[str, Any], point: dict[str, Any]) -> float:
    """Motion is sent by the frame: a clip of 30 frames/s takes more."""
    return float(point["kbps"] * 25 / clip["fps"])


def means_of(rates: Sequence[float], losses: Sequence[float]) -> list[str]:
    """As MEANS has them."""
    return [f"{np.mean(rates):.2f}", f"{max(rates):.2f}", f"{np.mean(losses):.3f}", f"{max(losses):.3f}"]
