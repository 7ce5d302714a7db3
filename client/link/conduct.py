"""Whether a peer keeps within what it may cost us. Pure: time is passed in, in seconds.

Single messages beyond a budget are dropped where the budget is (channels.py, receive.py, incoming.py). A peer that goes
on sending them, or messages that no program of ours makes, is ignored for a while: its pictures are neither decoded nor
rendered, so that those of the others are.
"""

from collections import Counter
from typing import Final

from iwcodec.codec.token_bucket import TokenBucket

OFFENCES: Final = ("flood", "malformed", "too large", "wrong channel", "sources")
"""Reasons for which messages are dropped that no honest peer gives for long. Transport is encrypted and checked, so
that nothing is damaged on the way; what is late, repeated or out of sequence may be the path's fault."""
TOLERATED_PER_S, TOLERATED = 1.0, 40.0
"""Offences per second, and at once, that have no consequence: a queue that an outage of seconds has filled may exceed a
budget when it is delivered."""
IGNORED_S: Final = 10.0
"""Time for which a peer is ignored, from its last excess on."""
CALM_PER_S, CALM_BURST = 30.0, 60.0
"""Messages of an ignored peer, per second and at once, beyond which it stays ignored. A call has up to 13 of motion, 4
of sources."""


class Conduct:
    """Judges one peer by the messages of it that were dropped."""

    def __init__(self) -> None:
        self._tolerance = TokenBucket(TOLERATED_PER_S, TOLERATED)
        self._calm = TokenBucket(CALM_PER_S, CALM_BURST)
        self._seen = 0
        self._ignored_until_s = float("-inf")

    def judge(self, dropped: Counter[str], now_s: float) -> None:
        """Take the counts of dropped messages so far, by reason. Call it several times a second."""
        count = sum(dropped[reason] for reason in OFFENCES)
        offences, self._seen = max(0, count - self._seen), count  # counts of a stream that has ended are gone
        if offences and not self._tolerance.take(now_s, offences):
            self._ignored_until_s = now_s + IGNORED_S

    def is_ignored(self, now_s: float) -> bool:
        return now_s < self._ignored_until_s

    def ignores(self, now_s: float) -> bool:
        """Whether a message that arrives is to be dropped unread. A peer that does not calm down stays ignored."""
        if not self.is_ignored(now_s):
            return False
        if not self._calm.take(now_s):
            self._ignored_until_s = now_s + IGNORED_S
        return True
