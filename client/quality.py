"""The quality of a call in words, for people: what is wrong, how badly, and on which side."""

from typing import Final

from iwcodec.client.link.link_state import LinkStats

SLOW_SHARE: Final = 0.7
"""Share of the frames that arrive, below which showing them counts as too slow."""
MIN_RECEIVED: Final = 5.0
"""Frames per second that must arrive before that is judged."""
MAX_RENDER_MS: Final = 100.0
"""Time for a frame, from the jitter buffer to its picture, from which on a machine counts as too slow; usually 15."""
LOSSY: Final = 0.08
"""Share of lost messages from which on losses are mentioned; fewer are repaired."""
LATE_MS: Final = 600.0
"""Delay from which on it is mentioned: conversation suffers (ITU-T G.114)."""


def is_too_slow(stats: LinkStats) -> bool:
    """Whether this machine shows clearly fewer frames than arrive, or takes too long for one. A machine that is much
    too slow for the call receives few frames, too, because it acknowledges them late."""
    return _is_behind(stats) or stats.render_ms > MAX_RENDER_MS


def _is_behind(stats: LinkStats) -> bool:
    return stats.received_per_s >= MIN_RECEIVED and stats.frames_per_s < SLOW_SHARE * stats.received_per_s


def quality_words(stats: LinkStats) -> str:
    """What spoils the call with one participant; empty while nothing does. The cause that explains most comes first."""
    shown, received = stats.frames_per_s, stats.received_per_s
    if _is_behind(stats):
        return f"your machine is too slow: {shown:.0f} of {received:.0f} frames"
    if is_too_slow(stats):
        return f"your machine is too slow: {stats.render_ms:.0f} ms for a frame"
    if stats.congested:
        return f"the link is narrow: {stats.sent_kbps.get('total', 0.0):.0f} kbps"
    if stats.loss >= LOSSY:
        return f"the link loses {100 * stats.loss:.0f} % of the packets"
    if shown and stats.delay_ms >= LATE_MS:
        return f"the link is slow: {stats.delay_ms / 1000:.1f} s behind"
    return ""
