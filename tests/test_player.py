"""The player's state and its window, on SDL's dummy drivers."""

from pathlib import Path

import pytest
from iwcodec import player
from iwcodec.errors import CodecError
from iwcodec.player import SEEK_S, Playback


def test_keys():
    playback = Playback(20.0)
    playback.press("space")
    assert playback.paused
    playback.press("right")
    playback.press("right")
    assert playback.position_s == 2 * SEEK_S
    playback.press("left")
    assert playback.position_s == SEEK_S
    assert len(playback.seeks) == 3
    playback.press("q")
    assert playback.finished


def test_seeking_stays_inside():
    playback = Playback(6.0)
    playback.press("left")
    assert playback.position_s == 0
    playback.press("right")
    playback.press("right")
    assert 0 < playback.position_s < 6.0


def test_no_display_is_said_plainly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "none-such")
    with pytest.raises(CodecError, match="iwcodec decode"), player.window("x"):
        pass


def test_plays_to_the_end(iwc_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    shown: list[int] = []
    monkeypatch.setattr(player, "show", lambda screen, frame: shown.append(frame.number))
    monkeypatch.setattr(player, "LATE_S", 1e9)  # a slow machine still shows every frame
    player.play(iwc_file)
    assert shown == list(range(len(shown)))
    assert len(shown) > 10


def test_a_seek_starts_from_there(iwc_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(player, "LATE_S", 1e9)
    shown: list[int] = []

    def show(screen: object, frame: player.Frame) -> None:
        shown.append(frame.number)

    monkeypatch.setattr(player, "show", show)

    def keys(playback: Playback) -> None:
        if len(shown) == 3:
            shown.append(-1)
            playback.press("right")

    monkeypatch.setattr(player, "poll_keys", keys)
    player.play(iwc_file)
    after = shown[shown.index(-1) + 1 :]
    assert after[0] > 10  # the clip is shorter than a seek: it goes to the last frames
    assert after == sorted(after)
