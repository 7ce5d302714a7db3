"""Token buckets on a clock that is moved by hand."""

import pytest

from iwcodec.server.limits import ADDRESSES, Addresses, Allowance, Bucket, Limits, subscriber


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=2.0, burst=3.0, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(1, 1.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(1, 100.0) for _ in range(4)] == [True, True, True, False]


def test_a_refused_amount_takes_nothing() -> None:
    bucket = Bucket(rate=0.0, burst=3.0, now=0.0)
    assert not bucket.take(4, 0.0)
    assert bucket.take(3, 0.0)


def test_a_clock_that_steps_back_does_no_harm() -> None:
    bucket = Bucket(rate=1.0, burst=2.0, now=50.0)
    assert bucket.take(2, 10.0)
    assert not bucket.take(1, 10.5)
    assert bucket.take(1, 11.0)


def test_an_allowance_counts_messages_bytes_and_patience() -> None:
    limits = Limits(messages_per_s=0, message_burst=3, bytes_per_s=0, byte_burst=100, dropped_per_s=0, dropped_burst=2)
    allowance = Allowance(limits, 0.0)
    assert allowance.message(60, 0.0)
    assert not allowance.message(60, 0.0)
    assert allowance.message(40, 0.0)
    assert not allowance.message(0, 0.0)
    assert [allowance.dropped(0.0) for _ in range(3)] == [True, True, False]


def test_a_full_room_may_trickle_at_once() -> None:
    limits = Limits()
    allowance = Allowance(limits, 0.0)
    # Five peers: an offer of 10 kB and 20 candidates each.
    assert all(allowance.message(10_000, 0.0) for _ in range(5))
    assert all(allowance.message(300, 0.0) for _ in range(100))


def test_addresses_count_apart_and_are_forgotten_in_the_end() -> None:
    addresses = Addresses(Limits(requests_per_s=0, request_burst=1))
    assert addresses.allow("one", 0.0)
    assert not addresses.allow("one", 0.0)
    assert addresses.allow("two", 0.0)
    for number in range(ADDRESSES):
        addresses.allow(str(number), 0.0)
    assert len(addresses.buckets) == ADDRESSES
    assert addresses.allow("one", 0.0)


@pytest.mark.parametrize("size", [1, 7])
def test_a_room_is_a_mesh_of_two_to_six(size: int) -> None:
    with pytest.raises(ValueError, match="2 to 6"):
        Limits(room_size=size)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_addresses_of_one_line_count_as_one(address: str, line: str) -> None:
    assert subscriber(address) == line
