"""One side of a demo call with invented recordings."""

import numpy as np

from iwcodec.client.demo.measurement import Side
from iwcodec.client.link.link_state import LinkState, LinkStats, RenderedFrame
from iwcodec.client.video.capture import CapturedFrame
from support.media.sounds import RATE

STATS = LinkStats({"total": 9.0}, {"motion": 2.0, "total": 8.0}, 24.0, 100.0, 0.1, 3, {})


def recorded_side(name: str, sound: bool = True, sound_delay_s: float = 0.2) -> Side:
    """Two seconds at 10 frames/s from time 50, seen 0.1 s and heard `sound_delay_s` later."""
    side = Side(name, None, None, None, joined_s=49.0, began_s=50.0)
    for n in range(20):
        picture = np.full((64, 64, 3), 10 * n, np.uint8)
        side.sent.append(CapturedFrame(picture, 50 + n / 10))
        side.seen.append((50.1 + n / 10, RenderedFrame(n, picture, 50.1 + n / 10, 0.1, LinkState.LIVE)))
    side.samples = [STATS, STATS]
    side.wire = [(50.0, 1000.0), (52.0, 6000.0)]
    if sound:
        side.tones_s = [49.5, 50.1, 51.0, 51.9]
        times = 49.0 + np.arange(3 * RATE) / RATE
        track = np.zeros(len(times), np.int16)
        for tone_s in side.tones_s[:2] + side.tones_s[3:]:
            track[(times >= tone_s + sound_delay_s) & (times < tone_s + sound_delay_s + 0.12)] = 8000
        side.heard = [(49.0 + at / RATE, track[at : at + 960]) for at in range(0, len(track), 960)]
    return side
