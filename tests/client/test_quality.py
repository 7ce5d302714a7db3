"""The quality of a call in words."""

from typing import Any

import pytest

from iwcodec.client.link.link_state import LinkStats
from iwcodec.client.quality import quality_words


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({}, ""),
        ({"frames_per_s": 11.2}, "your machine is too slow: 11 of 25 frames"),
        ({"frames_per_s": 0.0}, "your machine is too slow: 0 of 25 frames"),
        ({"frames_per_s": 0.0, "received_per_s": 0.0}, ""),  # the state says that the picture is frozen
        ({"received_per_s": 3.0, "render_ms": 400.0}, "your machine is too slow: 400 ms for a frame"),
        ({"congested": True}, "the link is narrow: 14 kbps"),
        ({"loss": 0.2}, "the link loses 20 % of the packets"),
        ({"delay_ms": 900.0}, "the link is slow: 0.9 s behind"),
        ({"frames_per_s": 9.0, "congested": True}, "your machine is too slow: 9 of 25 frames"),
    ],
)
def test_what_spoils_the_call_is_said(measured: dict[str, Any], words: str):
    values: dict[str, Any] = {"frames_per_s": 25.0, "received_per_s": 25.0, "delay_ms": 150.0, "loss": 0.0} | measured
    stats = LinkStats({"total": 14.4}, {"total": 11.0}, sources=3, dropped={}, **values)
    assert quality_words(stats) == words
