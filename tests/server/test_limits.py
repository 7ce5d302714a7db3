"""Limits of connections and addresses, with times passed in."""

import pytest

from iwcodec.server.limits import MAX_ADDRESSES, AddressBuckets, Allowance, Limits, address_key


def test_an_allowance_limits_messages_bytes_and_drops() -> None:
    limits = Limits(messages_per_s=0, message_burst=3, bytes_per_s=0, byte_burst=100, dropped_per_s=0, dropped_burst=2)
    allowance = Allowance(limits)
    assert allowance.message(60, 0.0)
    assert not allowance.message(60, 0.0)
    assert allowance.message(40, 0.0)
    assert not allowance.message(0, 0.0)
    assert [allowance.dropped(0.0) for _ in range(3)] == [True, True, False]


def test_a_full_room_may_trickle_all_candidates_at_once() -> None:
    limits = Limits()
    allowance = Allowance(limits)
    # Five peers: an offer of 10 kB and 20 candidates each.
    assert all(allowance.message(10_000, 0.0) for _ in range(5))
    assert all(allowance.message(300, 0.0) for _ in range(100))


def test_addresses_have_separate_buckets_and_the_oldest_is_forgotten() -> None:
    addresses = AddressBuckets(rate=0, burst=1)
    assert addresses.take("one", 0.0)
    assert not addresses.take("one", 0.0)
    assert addresses.take("two", 0.0)
    for number in range(MAX_ADDRESSES):
        addresses.take(str(number), 0.0)
    assert len(addresses.buckets) == MAX_ADDRESSES
    assert addresses.take("one", 0.0)


@pytest.mark.parametrize("size", [1, 7])
def test_a_room_size_out_of_range_is_rejected(size: int) -> None:
    with pytest.raises(ValueError, match="2 to 6"):
        Limits(room_size=size)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_the_addresses_of_one_subscriber_have_one_key(address: str, key: str) -> None:
    assert address_key(address) == key
