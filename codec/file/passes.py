"""Encoder passes: choose and code a clip's sources; fit and quantise the motion that goes with them."""

import math
from dataclasses import replace
from functools import partial

from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.clip import Clip
from iwcodec.codec.file.effort import EFFORTS
from iwcodec.codec.file.motion_pass import (
    FINEST_SCALE,
    USUAL_SCALE,
    fit_motion,
    fit_upfront,
    message_length,
    motion_size,
    quantise_to_budget,
    to_source_coordinates,
)
from iwcodec.codec.file.options import VARIANTS_KBPS, VARIANTS_SHARE, Progress
from iwcodec.codec.file.rate_control.closed_loop import Stream
from iwcodec.codec.file.rate_control.excerpt import best_active, read_excerpt
from iwcodec.codec.file.rate_control.quick_trials import QuickTrials
from iwcodec.codec.file.rate_control.search import MAX_KBPS, choose, rate_for_quality
from iwcodec.codec.file.rate_control.source_plan import (
    BUDGET_TOLERANCE,
    CodedSources,
    crf_for_budget,
    encode_plan,
    encode_within_budget,
    pictures_of,
    upfront_plan,
)
from iwcodec.codec.file.rate_control.trials import USUAL_MOTION, Choice
from iwcodec.codec.fit.keypoint_fit import KeypointFit
from iwcodec.codec.parallel import WORKERS

USUAL_DB, USUAL_KBPS = 33.0, 4.0
"""Without a bitrate, a quality or a number of sources: the quality to reach, and the bitrate for it at most (at
256x256)."""
UNDERESTIMATE_DB = 3.0
"""By so much PSNR may exceed the estimate. Rates are tried from below: from above, a plan of many sources is found that
has no more than one of few sources and variants has at a lower rate."""
MAX_SOURCE_BYTES = 1550
"""Maximum mean bytes of a source at 256x256. Sources that would take more (detailed and unlike each other) are coded at
a higher crf. Three sources then leave room for motion in 5 kbps from ten seconds on."""
MOTION_KBPS, VIDEO_KBPS = 2.0, 4.9
"""Without a bitrate, motion is quantised more coarsely if it would take more than MOTION_KBPS, or sources and motion
more than VIDEO_KBPS (at 256x256)."""
MIN_MOTION_KBPS = 1.0
"""Bitrate left to motion even if the sources take nearly all of VIDEO_KBPS."""
MIN_SPENT = 0.96
"""Sources are coded once more if they take less than this share of what the motion leaves, or too much."""


def with_usual_rate(clip: Clip, trials: QuickTrials, progress: Progress) -> Clip:
    """The clip with the lowest bitrate that may bring the quality asked for, or without one USUAL_DB at USUAL_KBPS at
    most."""
    usual, quality_db = USUAL_KBPS * size_factor(clip.options.size), clip.options.quality_db
    shared = 1 - VARIANTS_SHARE if clip.options.tune == "face" else 1.0

    def estimate(quality_db: float, most: float) -> float:
        return rate_for_quality(quality_db, trials, lambda kbps: clip.bytes_at(shared * kbps), progress, most)

    if quality_db is None:
        rate = estimate(USUAL_DB, usual)
    else:
        rate = max(estimate(quality_db, usual), estimate(quality_db - UNDERESTIMATE_DB, MAX_KBPS))
    return replace(clip, options=replace(clip.options, kbps=rate))


def choose_sources_and_motion(clip: Clip, progress: Progress, quick: QuickTrials | None = None) -> list[Choice]:
    """Choose the frames that become sources, and code them.

    Several candidates if only the whole clip can tell which is best; the likely best first. `quick`: as for `choose`.
    """
    survey, pictures, runtime, length = clip.survey, clip.video.pictures, clip.runtime, clip.message_frames
    kbps, budget = clip.options.kbps, clip.budget
    if kbps is not None and budget is not None and clip.options.sources is None:
        choices = choose(survey, pictures, runtime, budget, kbps, length, progress, clip.effort.presets, quick)
        # Sources that show something else do not belong into a frame's attention.
        return [replace(choice, active=1) for choice in choices] if survey.required else choices
    coded = code_sources(clip, progress)
    if len(coded.packets) == 1 or survey.required or clip.effort.single_pass:
        return [Choice(coded, 1)]
    progress("choosing sources", 1.0)
    return [Choice(coded, best_active(coded, read_excerpt(survey, pictures, runtime, length)))]


def reserve_for_variants(clip: Clip) -> tuple[Clip, float]:
    """Split the bitrate if it is tuned for the face: the clip with what is left for sources and motion, and the bytes
    for variants of sources."""
    if clip.options.tune != "face":
        return clip, 0.0
    kbps = clip.options.kbps
    reserved = VARIANTS_KBPS * size_factor(clip.options.size) if kbps is None else VARIANTS_SHARE * kbps
    if kbps is not None:
        clip = replace(clip, options=replace(clip.options, kbps=kbps - reserved))
    return clip, reserved * 125 * clip.seconds


def part_of(progress: Progress, number: int, count: int) -> Progress:
    """Report the progress of part `number` of `count` equal parts of a pass."""
    return lambda name, share: progress(name, (number + share) / count)


def code_stream(choice: Choice, clip: Clip, progress: Progress) -> Stream:
    """Code the motion that goes with the sources; code both anew if the motion left another budget than expected."""
    motion = code_motion(choice, clip, progress)
    if clip.budget is not None:
        left = max(1.0, clip.budget - motion_size(motion))
        if not MIN_SPENT * left <= choice.coded.size <= left * (1 + BUDGET_TOLERANCE):
            coded = encode_within_budget(
                choice.coded.plan, clip.video.pictures, clip.options.size, left, clip.effort.presets
            )
            choice = replace(choice, coded=coded)
            motion = code_motion(choice, clip, progress)  # other pixels, other keypoints
    return Stream(choice.coded, motion, choice.active)


def code_finer(stream: Stream, more: float, clip: Clip, progress: Progress) -> Stream:
    """Code the sources of a stream again with about `more` bytes, and, in as many as before, the motion that goes with
    them."""
    plan, size, kbps = stream.coded.plan, stream.coded.size, clip.options.kbps
    assert kbps is not None
    crf = crf_for_budget({plan.crf: size}, size + more, clip.options.size)
    pictures = pictures_of(plan.frames, clip.video.pictures, hold=True)
    coded = encode_plan(replace(plan, crf=crf), pictures, clip.options.size, clip.effort.presets)
    clip = replace(clip, options=replace(clip.options, kbps=kbps + (coded.size - size) / 125 / clip.seconds))
    scale = stream.motion[0].scale
    assert scale is not None
    return Stream(coded, code_motion(Choice(coded, stream.active, scale), clip, progress), stream.active)


def code_motion(choice: Choice, clip: Clip, progress: Progress) -> list[MotionPacket]:
    """Fit the motion of the whole clip to the coded sources, and quantise it within the budget."""
    progress("fitting the motion", 0.0)
    coded, length = choice.coded, message_length(choice.coded.plan, clip.message_frames)
    pictures, detected = clip.video.pictures(), clip.survey.keypoints
    report, new_fit = partial(progress, "fitting the motion"), partial(fit_for, clip.options.effort)
    decoder = Decoder(clip.runtime, active=choice.active)
    if coded.plan.upfront:
        pieces, step = even_pieces(len(detected), length), clip.effort.frame_step
        fits = fit_upfront(pictures, detected, coded, pieces, decoder, new_fit, report, step=step)
    else:
        fits = fit_motion(pictures, detected, coded, length, decoder, new_fit(), report)
        fits = to_source_coordinates(fits, decoder)
    finest = USUAL_SCALE if clip.budget is None else FINEST_SCALE
    return quantise_to_budget(fits, length, motion_budget(choice, clip), choice.scale, finest)


def even_pieces(count: int, longest: int) -> int:
    """Length of the pieces, at most `longest`, into which `count` frames are divided so that all threads work on
    them to the end."""
    return math.ceil(count / (WORKERS * math.ceil(count / (WORKERS * longest))))


def code_sources(clip: Clip, progress: Progress) -> CodedSources:
    """Code as many sources as the options say, at the default quality, or at what the bitrate leaves if USUAL_MOTION
    goes to motion."""
    progress("coding sources", 0.0)
    options, pictures, presets = clip.options, clip.video.pictures, clip.effort.presets
    assert options.sources is not None
    plan = upfront_plan(clip.survey, options.sources)
    if clip.budget is not None:
        left = max(1.0, clip.budget * (1 - USUAL_MOTION))
        return encode_within_budget(plan, pictures, options.size, left, presets)
    coded = encode_plan(plan, pictures_of(plan.frames, pictures, hold=True), options.size, presets)
    max_bytes = MAX_SOURCE_BYTES * size_factor(options.size) * len(coded.packets)
    if coded.size <= max_bytes:
        return coded
    return encode_within_budget(plan, pictures, options.size, max_bytes, presets)


def fit_for(effort: int) -> KeypointFit:
    return EFFORTS[effort].new_fit()


def size_factor(size: int) -> float:
    """Factor for limits on bytes that were set for pictures of 256x256."""
    return max(1.0, size / 256)


def motion_budget(choice: Choice, clip: Clip) -> float:
    """Maximum bytes of the motion."""
    if clip.budget is not None:
        return max(1.0, clip.budget - choice.coded.size)
    left = clip.bytes_at(VIDEO_KBPS * size_factor(clip.options.size)) - choice.coded.size
    lowest, highest = (kbps * 125 * clip.seconds for kbps in (MIN_MOTION_KBPS, MOTION_KBPS))
    return min(max(left, lowest), highest)
