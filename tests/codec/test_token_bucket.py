"""The bucket limits the rate, allows a burst, and survives a clock that steps back."""

import pytest

from iwcodec.codec.token_bucket import TokenBucket


def test_starts_full() -> None:
    bucket = TokenBucket(rate=1, burst=3)
    assert [bucket.take(100.0) for _ in range(5)] == [True, True, True, False, False]


def test_refills_at_the_rate_up_to_the_burst() -> None:
    bucket = TokenBucket(rate=2, burst=3)
    bucket.take(0.0, 3)
    assert not bucket.take(0.4)
    assert bucket.take(0.5)
    assert not bucket.take(0.5)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_takes_all_of_an_amount_or_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=10)
    assert not bucket.take(0.0, 11)
    assert bucket.take(0.0, 10)
    assert not bucket.take(0.0, 0.5)


@pytest.mark.parametrize("step_s", [0.5, 5.0, 1000.0])
def test_sustains_no_more_than_the_rate(step_s: float) -> None:
    bucket = TokenBucket(rate=1, burst=4)
    taken = sum(bucket.take(step * step_s) for step in range(100))
    assert taken <= 4 + 99 * step_s


def test_clock_that_steps_back_does_not_change_the_level() -> None:
    bucket = TokenBucket(rate=1, burst=3)
    bucket.take(100.0)
    assert bucket.take(10.0, 2)
    assert not bucket.take(10.0)
    assert bucket.take(11.0)
