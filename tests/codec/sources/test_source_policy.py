"""Source policy: hysteresis, intervals, and the mean PSNR of sources."""

import numpy as np
import pytest

from iwcodec.codec.media.quality import psnr
from iwcodec.codec.sources.source_policy import (
    ENOUGH_DEFICIT_DB,
    JUDGE_INTERVAL_S,
    MAX_INTERVAL_S,
    MIN_GAIN_DB,
    MIN_INTERVAL_S,
    WANTED_DEFICIT_DB,
    QualityDeficit,
    SourcePolicy,
)
from stub_runtime import StubRuntime, picture


def test_the_deficit_is_tested_with_hysteresis() -> None:
    deficit = QualityDeficit()
    between = (WANTED_DEFICIT_DB + ENOUGH_DEFICIT_DB) / 2
    judged = [between, WANTED_DEFICIT_DB + 0.1, between, ENOUGH_DEFICIT_DB - 0.1, between]
    assert [deficit.judge(n, db, False) for n, db in enumerate(judged)] == [False, True, True, False, False]


def test_sources_have_a_least_interval() -> None:
    deficit = QualityDeficit()
    assert deficit.judge(0.0, 10.0, False)
    deficit.added(0.0)
    assert not deficit.judge(MIN_INTERVAL_S - 0.1, 10.0, False)
    assert deficit.judge(MIN_INTERVAL_S, 10.0, False)


def added_at(deficit: QualityDeficit, seconds: float, deficit_db: float, newest: bool = True) -> list[float]:
    """Times of the sources added if every frame has this deficit."""
    times = []
    for at_s in np.arange(0.0, seconds, JUDGE_INTERVAL_S):
        if deficit.judge(float(at_s), deficit_db, newest):
            deficit.added(float(at_s))
            times.append(float(at_s))
    return times


def test_the_interval_doubles_while_sources_do_not_help() -> None:
    times = added_at(QualityDeficit(), 100.0, 12.0)
    assert np.diff(times)[:4] == pytest.approx([2, 4, 8, 16])
    assert np.diff(times).max() == MAX_INTERVAL_S


def test_only_frames_near_the_newest_source_judge_it() -> None:
    assert np.diff(added_at(QualityDeficit(), 20.0, 12.0, newest=False)).max() == MIN_INTERVAL_S


def test_a_helpful_source_resets_the_interval() -> None:
    deficit = QualityDeficit()
    added_at(deficit, 20.0, 12.0)
    assert not deficit.judge(20.0, 12.0, True)  # the interval has grown
    assert deficit.judge(20.0 + MAX_INTERVAL_S, 12.0, True)
    deficit.added(20.0 + MAX_INTERVAL_S)
    deficit.judge(20.5 + MAX_INTERVAL_S, 12.0 - MIN_GAIN_DB, True)
    assert deficit.judge(20.0 + MAX_INTERVAL_S + MIN_INTERVAL_S, 12.0, True)


def test_the_psnr_of_sources_is_measured() -> None:
    policy = SourcePolicy(StubRuntime())
    original = picture(100)
    coded = np.clip(original.astype(int) + 4, 0, 255).astype(np.uint8)
    policy.add(0, policy.prepare(original, coded), 0.0)
    assert policy.source_db == pytest.approx(psnr(coded, original))


def test_two_frames_per_second_are_judged() -> None:
    policy = SourcePolicy(StubRuntime())
    assert sum(policy.due(n / 25) for n in range(100)) == 8
