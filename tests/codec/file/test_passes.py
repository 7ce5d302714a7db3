"""Encoder passes: number of sources and bitrate of a clip."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iwcodec.codec.file.clip import Clip
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.options import VARIANTS_KBPS, VARIANTS_SHARE, EncodeOptions, Tune
from iwcodec.codec.file.passes import UNDERESTIMATE_DB, USUAL_KBPS, even_pieces, reserve_for_variants, with_usual_rate
from iwcodec.codec.parallel import WORKERS
from iwcodec.models.runtime.types import Runtime
from support.codec.stub_runtime import SIZE, StubRuntime


def test_the_number_of_sources_is_that_of_the_options(face_clip: Path, tmp_path: Path, no_fit: None) -> None:
    few = encode(face_clip, tmp_path / "a.iwc", EncodeOptions(SIZE, sources=1), StubRuntime())
    more = encode(face_clip, tmp_path / "b.iwc", EncodeOptions(SIZE, sources=4), StubRuntime())
    assert (few.sources, more.sources) == (1, 4)
    assert few.bytes["sources"] < more.bytes["sources"]


@pytest.mark.parametrize("tune", ["psnr", "face"])
def test_a_bitrate_is_kept_with_a_fixed_number_of_sources(
    face_clip: Path, blind_runtime: Runtime, tmp_path: Path, tune: Tune
) -> None:
    """Few variants are worth their bytes in so short a clip: the others go to sources."""
    rates: list[float] = []
    for kbps in (12.0, 30.0):
        options = EncodeOptions(sources=2, kbps=kbps, tune=tune, audio=False, effort=0, overwrite=True)
        report = encode(face_clip, tmp_path / "a.iwc", options, blind_runtime)
        assert report.sources == 2
        rates.append(report.kbps["video"])
        assert 0.9 * kbps < rates[-1] < 1.05 * kbps
    assert rates[0] < rates[1]


def clip_of(seconds: int, options: EncodeOptions) -> Clip:
    """As much of a clip as its length and options."""
    unused: Any = None
    video: Any = SimpleNamespace(info=SimpleNamespace(fps=25))
    survey: Any = SimpleNamespace(keypoints=[None] * (25 * seconds))
    return Clip(video, survey, unused, options)


def test_variants_get_a_share_of_the_bitrate() -> None:
    clip, budget = reserve_for_variants(clip_of(20, EncodeOptions(tune="face", kbps=8.0)))
    assert 0 < budget == pytest.approx((8.0 - clip.options.kbps) * 125 * 20)
    assert clip.options.kbps == pytest.approx((1 - VARIANTS_SHARE) * 8)


@pytest.mark.parametrize("size", [256, 512])
def test_without_a_bitrate_variants_have_their_own(size: int) -> None:
    clip, budget = reserve_for_variants(clip_of(20, EncodeOptions(size, tune="face")))
    assert budget == pytest.approx(VARIANTS_KBPS * size / 256 * 125 * 20)
    assert clip.options.kbps is None


@pytest.mark.parametrize("options", [{"kbps": 8.0}, {}, {"quality_db": 30.0}])
def test_there_are_no_variants_if_not_asked_for(options: dict[str, Any]) -> None:
    clip = clip_of(20, EncodeOptions(tune="psnr", **options))
    assert reserve_for_variants(clip) == (clip, 0.0)


class PredictedTrials:
    """Plans whose quality follows from the budget alone: 30 dB at 10,000 bytes, 3 dB more at twice as many. Before
    their sources are coded it is estimated too high, by `excess_db`."""

    def __init__(self, excess_db: float = 0.0) -> None:
        self.budgets: list[float] = []
        self._excess_db = excess_db

    def predicted(self, budget: float, start: int, progress: Any) -> float:
        self.budgets.append(budget)
        return 30 + 3 * math.log2(budget / 10_000) + self._excess_db

    def code_promising(self, budget: float, start: int) -> bool:
        is_known, self._excess_db = self._excess_db == 0, 0.0
        return not is_known


@pytest.mark.parametrize(("size", "seconds", "most"), [(256, 20, USUAL_KBPS), (512, 20, 2 * USUAL_KBPS)])
def test_without_a_bitrate_the_usual_one_is_the_most(size: int, seconds: int, most: float) -> None:
    trials: Any = PredictedTrials()
    clip = with_usual_rate(clip_of(seconds, EncodeOptions(size, tune="psnr")), trials, no_progress)
    assert clip.options.kbps == most
    assert max(trials.budgets) <= most * 125 * seconds


def test_without_a_bitrate_a_good_picture_takes_no_more_than_it_needs() -> None:
    trials: Any = PredictedTrials()
    clip = with_usual_rate(clip_of(100, EncodeOptions(tune="psnr")), trials, no_progress)
    assert 20_000 <= clip.options.kbps * 125 * 100 <= 26_000  # USUAL_DB at 20,000 bytes


def test_variants_are_part_of_the_usual_rate() -> None:
    tuned, plain = PredictedTrials(), PredictedTrials()
    for tune, trials in (("face", tuned), ("psnr", plain)):
        clip = with_usual_rate(clip_of(20, EncodeOptions(tune=tune)), trials, no_progress)
        assert clip.options.kbps == USUAL_KBPS
    assert max(tuned.budgets) < max(plain.budgets) * (1 - VARIANTS_SHARE / 2)


@pytest.mark.parametrize("excess_db", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize(
    ("quality_db", "bytes_needed"),
    [(27.0, 5_000), (36.0 + UNDERESTIMATE_DB, 40_000)],  # 4 kbps are 10,000 bytes
)
def test_a_quality_is_sought_from_the_lowest_rate_that_may_bring_it(
    quality_db: float, bytes_needed: float, excess_db: float
) -> None:
    trials: Any = PredictedTrials(excess_db)
    clip = with_usual_rate(clip_of(20, EncodeOptions(quality_db=quality_db, tune="psnr")), trials, no_progress)
    assert bytes_needed <= clip.options.kbps * 125 * 20 <= 1.15 * bytes_needed


def test_the_usual_rate_is_tried_first_if_it_may_bring_the_quality() -> None:
    trials: Any = PredictedTrials()
    clip = with_usual_rate(clip_of(20, EncodeOptions(quality_db=32.0)), trials, no_progress)
    assert clip.options.kbps == USUAL_KBPS


def no_progress(name: str, share: float) -> None:
    pass


@pytest.mark.parametrize("count", [1, 2, 7, 200, 297, 1001])
@pytest.mark.parametrize("longest", [1, 50, 60])
def test_pieces_keep_all_threads_at_work(count: int, longest: int) -> None:
    length = even_pieces(count, longest)
    assert 1 <= length <= longest
    pieces = -(-count // length)
    assert pieces % WORKERS == 0 or length == 1
    assert pieces < -(-count // longest) + WORKERS + 1
