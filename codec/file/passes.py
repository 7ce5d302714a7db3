"""The passes that choose and code a clip's sources, and fit and quantise the motion that goes with them."""

from dataclasses import replace
from functools import partial

from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.clip import Clip, Progress
from iwcodec.codec.file.closed_loop import Stream
from iwcodec.codec.file.motion_pass import (
    FINEST_SCALE,
    USUAL_SCALE,
    fitted_motion,
    from_sources,
    motion_size,
    quantised_motion,
    together,
)
from iwcodec.codec.file.rate_control import USUAL_MOTION, Choice, Stretch, best_active, choose
from iwcodec.codec.file.source_plan import CLOSE, Coded, code, fitted, sparse_plan, wanted
from iwcodec.codec.fit.keypoint_fit import KeypointFit, quick_fit
from iwcodec.codec.sources.library import CAPACITY

AUTO_GAIN_DB = 0.12
"""`--sources auto` stops where one more source brings less than this on average."""
AUTO_SOURCES_KBPS = 1.5
"""`--sources auto` stops where the sources would cost more than this over the clip."""
SOURCE_BYTES = 450
"""What a further source costs, roughly; measured in benchmarks."""
MAX_SOURCE_BYTES = 1550
"""On average, at 256x256; sources that would take more, full of detail and unlike each other, are coded more coarsely.
Three then leave room for motion in 5 kbps from ten seconds on."""
LOOKS = (0, 0, 1, 3)
"""For each effort, how often a frame is rebuilt and its keypoints corrected."""
MOTION_KBPS, VIDEO_KBPS = 2.0, 4.9
"""Lively motion is quantised more coarsely where it would take more, or all would take more with the sources (of
256x256), unless a bitrate is asked for."""
MIN_MOTION_KBPS = 1.0
"""Where the sources take nearly all of it by themselves."""
ENOUGH = 0.96
"""Share of what motion leaves to sources: where they take less, or more than there is, they are coded once more."""


def choose_sources_and_motion(clip: Clip, tell: Progress) -> list[Choice]:
    """Further passes: choose the frames that become sources, and encode them. Several where only the whole clip can
    tell which is best."""
    survey, pictures, runtime, length = clip.survey, clip.video.pictures, clip.runtime, clip.message_frames
    kbps = clip.options.kbps
    if kbps is not None and clip.options.sources is None:
        return choose(survey, pictures, runtime, clip.bytes_at(kbps), kbps, length, tell, clip.presets)
    coded = code_sources(clip, tell)
    if len(coded.packets) == 1:
        return [Choice(coded, 1)]
    tell("choosing sources", 1.0)
    return [Choice(coded, best_active(coded, Stretch(survey, pictures, runtime, length)))]


def part_of(tell: Progress, number: int, count: int) -> Progress:
    """Tells of one of so many passes of the same name."""
    return lambda name, share: tell(name, (number + share) / count)


def code_stream(choice: Choice, clip: Clip, tell: Progress) -> Stream:
    """The motion that goes with the sources; they are coded anew where it takes less, or more, than was thought."""
    motion = code_motion(choice, clip, tell)
    if clip.budget is not None:
        left = max(1.0, clip.budget - motion_size(motion))
        if not ENOUGH * left <= choice.coded.size <= left * (1 + CLOSE):
            anew = fitted(choice.coded.plan, clip.video.pictures, clip.options.size, left, clip.presets)
            choice = replace(choice, coded=anew)
            motion = code_motion(choice, clip, tell)
    return Stream(choice.coded, motion, choice.active)


def code_motion(choice: Choice, clip: Clip, tell: Progress) -> list[MotionPacket]:
    """Another pass: fit the motion to the sources as they are coded, and quantise it. Sources that are coded anew need
    it anew: other keypoints are found in them."""
    decoder = Decoder(clip.runtime, active=choice.active)
    length = together(choice.coded.plan, clip.message_frames)
    found = fitted_motion(
        clip.video.pictures(),
        clip.survey.keypoints,
        choice.coded,
        length,
        decoder,
        fit_for(clip.options.effort),
        partial(tell, "fitting the motion"),
    )
    most = motion_budget(choice.coded, clip)
    finest = USUAL_SCALE if clip.budget is None else FINEST_SCALE
    return quantised_motion(from_sources(found, decoder), length, most, choice.scale, finest)


def code_sources(clip: Clip, tell: Progress) -> Coded:
    """As many sources as were asked for, or as pay, at the usual quality, or at what the bitrate leaves beside motion
    until that is known."""
    tell("coding sources", 0.0)
    options, pictures, presets = clip.options, clip.video.pictures, clip.presets
    if options.sources is not None:
        plan = sparse_plan(clip.survey, options.sources)
        if clip.budget is not None:
            left = max(1.0, clip.budget * (1 - USUAL_MOTION))
            return fitted(plan, pictures, options.size, left, presets)
    else:
        most = 1 + int(max(0.0, AUTO_SOURCES_KBPS * 125 * clip.seconds - 3 * SOURCE_BYTES) / SOURCE_BYTES)
        plan = sparse_plan(clip.survey, min(CAPACITY, most), least_gain_db=AUTO_GAIN_DB)
    coded = code(plan, wanted(plan.frames, pictures, hold=True), options.size, presets)
    held = MAX_SOURCE_BYTES * larger(options.size) * len(coded.packets)
    if coded.size <= held:
        return coded
    return fitted(plan, pictures, options.size, held, presets)


def fit_for(effort: int) -> KeypointFit:
    return KeypointFit(LOOKS[effort]) if effort else quick_fit()


def larger(size: int) -> float:
    """How many times the bits pictures of that size take, at most, where those of 256x256 are held to some."""
    return max(1.0, size / 256)


def motion_budget(coded: Coded, clip: Clip) -> float:
    """Bytes that motion may take."""
    if clip.budget is not None:
        return max(1.0, clip.budget - coded.size)
    left = clip.bytes_at(VIDEO_KBPS * larger(clip.options.size)) - coded.size
    least, most = (kbps * 125 * clip.seconds for kbps in (MIN_MOTION_KBPS, MOTION_KBPS))
    return min(max(left, least), most)
