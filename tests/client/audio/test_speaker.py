"""The mix of all participants, and a missing sound card."""

import sys

import numpy as np
import pytest

from iwcodec.client.audio.jitter_buffer import AudioJitterBuffer
from iwcodec.client.audio.speaker import Speaker, load_sounddevice, open_speaker
from iwcodec.codec.errors import CodecError


def test_all_sources_are_mixed_and_clipped() -> None:
    speaker, blocks = Speaker(), []
    for _ in range(2):
        out = AudioJitterBuffer()
        out.pull = lambda count, at_s: np.full(count, 20_000, np.int16)
        speaker.add(out)
    speaker.listeners.append(lambda block, at_s: blocks.append((block, at_s)))
    assert speaker.mix(4, 1.5).tolist() == [32767] * 4
    speaker.remove(out)
    assert speaker.mix(4, 2.0).tolist() == [20_000] * 4
    assert [at_s for _, at_s in blocks] == [1.5, 2.0]


def test_a_missing_sounddevice_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(CodecError, match="pip install sounddevice"):
        load_sounddevice()
    speaker, problem = open_speaker(headless=False)
    speaker.stop()
    assert problem is not None
    speaker, problem = open_speaker(headless=True)
    speaker.stop()
    assert problem is None
