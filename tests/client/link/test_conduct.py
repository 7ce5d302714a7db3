"""When a peer is ignored, and for how long."""

from collections import Counter

from iwcodec.client.link.conduct import IGNORED_S, TOLERATED, Conduct


def test_a_peer_that_goes_on_is_ignored_for_a_while() -> None:
    conduct, dropped = Conduct(), Counter[str]()
    ignored = []
    for tenth in range(300):
        now_s = tenth / 10
        if tenth < 50:  # 80 messages a second for 5 s
            dropped["flood"] += 8
        conduct.judge(dropped, now_s)
        if conduct.is_ignored(now_s):
            ignored.append(now_s)
    assert ignored[0] <= TOLERATED / 80 + 0.2
    assert 5 + IGNORED_S - 0.3 <= ignored[-1] <= 5 + IGNORED_S


def test_what_the_path_may_have_caused_is_no_offence() -> None:
    conduct, dropped = Conduct(), Counter[str]()
    for tenth in range(100):
        for reason in ("replayed", "out of sequence", "late frames", "repeated", "implausible", "before hello"):
            dropped[reason] += 5
        dropped["flood"] += tenth % 20 == 0  # every other second
        conduct.judge(dropped, tenth / 10)
        assert not conduct.is_ignored(tenth / 10)


def test_counts_of_an_ended_stream_may_go_back() -> None:
    conduct = Conduct()
    conduct.judge(Counter({"malformed": 15}), 0.0)
    conduct.judge(Counter(), 1.0)
    conduct.judge(Counter({"malformed": 3}), 2.0)
    assert not conduct.is_ignored(2.0)


def test_a_peer_that_does_not_calm_down_stays_ignored() -> None:
    conduct = Conduct()
    conduct.judge(Counter({"flood": 1000}), 0.0)
    for n in range(80 * 60):  # 80 messages a second for a minute
        assert conduct.ignores(n / 80)
    later = 60 + IGNORED_S
    assert [conduct.ignores(60 + n / 20) for n in range(round(20 * IGNORED_S))][:190] == [True] * 190
    assert not conduct.ignores(later)
