"""Rate limit for messages from the network. Pure: time is passed in."""


class TokenBucket:
    """Holds at most `burst` tokens, starts full, and refills by `rate` tokens a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens = burst
        self._filled_s: float | None = None
        """Time of the last call of `take`."""

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        """Take `amount` tokens, or none if there are fewer. Returns whether they were taken. `now_s`: any monotonic
        clock; a step back adds no tokens and removes none."""
        if self._filled_s is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._filled_s) * self._rate)
        self._filled_s = now_s
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True
