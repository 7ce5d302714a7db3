"""Words that both ends of a link show if nobody sits between them."""

import pytest

from iwcodec.client.link.messages import Commitment, Nonce
from iwcodec.client.link.verification import EXCHANGE_BURST, WORDS, Verification, words_of

A, B, M = b"a" * 32, b"b" * 32, b"m" * 32
"""Fingerprints of the certificates of two ends, and of somebody in the middle."""


def converse(ends: list[Verification], begun: list[list[Commitment | Nonce]]) -> None:
    """Deliver the messages that each end has begun with to the other one, and all answers, in order."""
    sent = [list(messages) for messages in begun]
    while sent[0] or sent[1]:
        for n in (0, 1):
            if sent[n]:
                sent[1 - n] += ends[1 - n].receive(sent[n].pop(0), 0.0)


def verified(first: tuple[bytes, bytes] = (A, B), second: tuple[bytes, bytes] = (B, A)) -> list[Verification]:
    ends = [Verification(), Verification()]
    converse(ends, [end.connected(certificates) for end, certificates in zip(ends, (first, second), strict=True)])
    return ends


def test_both_ends_show_the_same_three_words():
    one, other = verified()
    assert one.words == other.words
    assert len(one.words.split()) == 3
    assert verified()[0].words != one.words  # random numbers are part of them


def test_somebody_in_the_middle_leads_to_different_words():
    assert verified((A, M), (M, A))[0].words != verified((M, B), (B, M))[1].words


def test_relayed_numbers_do_not_hide_other_certificates():
    """The server replaces the certificates and passes everything else on."""
    one, other = verified((A, M), (B, M))
    assert one.words is not None
    assert other.words is not None
    assert one.words != other.words


def test_number_that_was_not_committed_to_is_ignored():
    end = Verification()
    end.connected((A, B))
    assert [type(message) for message in end.receive(Commitment(bytes(32)), 0.0)] == [Nonce]
    end.receive(Nonce(bytes(16)), 0.0)
    assert end.words is None


def test_own_number_is_revealed_only_after_the_peer_has_committed():
    end = Verification()
    assert [type(message) for message in end.connected((A, B))] == [Commitment]
    assert end.receive(Nonce(bytes(16)), 0.0) == []
    assert Verification().receive(Commitment(bytes(32)), 0.0) == []  # not even connected


def test_words_survive_a_reconnection_with_the_same_certificates():
    one, other = verified()
    words = one.words
    assert one.connected((A, B)) == other.connected((B, A)) == []
    assert one.words == words
    again = one.connected((A, M))
    assert [type(message) for message in again] == [Commitment]
    assert one.words is None


def test_peer_that_was_restarted_begins_another_exchange():
    one, other = verified()
    restarted = Verification()
    converse([restarted, other], [restarted.connected((A, B)), []])
    assert restarted.words is not None
    assert restarted.words == other.words != one.words


def test_exchanges_of_a_peer_are_limited():
    """Each is a guess for somebody in the middle."""
    _, other = verified()
    answered = sum(bool(other.receive(Commitment(bytes(32)), 0.0)) for _ in range(100))
    assert answered == EXCHANGE_BURST
    assert other.receive(Commitment(bytes(32)), 60.0)


def test_words_depend_on_every_part():
    ends = ((A, bytes(16)), (B, bytes([1] * 16)))
    assert words_of(*ends) == words_of(*ends[::-1])
    others = [((A, bytes(16)), (M, bytes([1] * 16))), ((A, bytes([2] * 16)), ends[1])]
    assert len({words_of(*ends), *(words_of(*other) for other in others)}) == 3


def test_words_are_distinct():
    assert len(set(WORDS)) == 256
    assert all(word.isalpha() and 4 <= len(word) <= 9 for word in WORDS)


@pytest.mark.parametrize("message", [Commitment(bytes(32)), Nonce(bytes(16))])
def test_messages_before_the_connection_have_no_effect(message: Commitment | Nonce):
    end = Verification()
    assert end.receive(message, 0.0) == []
    assert end.words is None
