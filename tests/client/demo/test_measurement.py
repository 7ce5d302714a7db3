"""Statistics of one side of a call."""

import pytest

from iwcodec.client.demo.measurement import Side
from support.calls.recorded_side import recorded_side


def test_statistics() -> None:
    assert recorded_side("Ada").statistics() == {
        "first_picture_s": 1.1,
        "frames_per_s": 10.0,
        "picture_delay_p50_ms": 100,
        "picture_delay_p95_ms": 100,
        "sound_delay_p50_ms": pytest.approx(200, abs=6),
        "sound_ahead_ms": pytest.approx(-100, abs=6),
        # The first tone is before the measurement, the third was not heard, and the last is too close to the end.
        "tones_heard": "1 of 2",
        "sources": 3,
        "motion_lost": 0.1,
        "all_sent_kbps": 20.0,
        "picture_received_kbps": {"motion": 2.0, "total": 8.0},
    }


def test_statistics_without_sound_or_pictures() -> None:
    silent = recorded_side("Ada", sound=False).statistics()
    assert (silent["sound_delay_p50_ms"], silent["sound_ahead_ms"], silent["tones_heard"]) == (None, None, None)
    blind = Side("Ada", None, None, None).statistics()
    assert blind["first_picture_s"] is None
