"""The player's state, window and sound, on SDL's dummy drivers."""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iwcodec.codec import player
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.types import AUDIO_RATE, Samples
from iwcodec.codec.player import SEEK_S, Playback
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.models.runtime.types import Runtime
from support.media.clips import CLIP_FRAMES


def test_keys_pause_seek_and_quit() -> None:
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


def test_seeking_stays_inside_the_file() -> None:
    playback = Playback(6.0)
    playback.press("left")
    assert playback.position_s == 0
    playback.press("right")
    playback.press("right")
    assert 0 < playback.position_s < 6.0


def test_a_missing_display_is_an_error_that_names_the_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "none-such")
    with pytest.raises(CodecError, match="iwcodec decode"), player.window("x"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: elsewhere there always is a display")
def test_without_a_display_nothing_plays_unseen(monkeypatch: pytest.MonkeyPatch):
    """SDL would fall back to its offscreen driver."""
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CodecError, match="There is no display"), player.window("x"):
        pass
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr("pygame.display.get_driver", lambda: "offscreen")
    monkeypatch.setattr("pygame.display.init", lambda: None)
    with pytest.raises(CodecError, match="neither Wayland nor X11 answers"), player.window("x"):
        pass


def test_a_file_plays_to_the_end(iwc_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    shown: list[int] = []
    monkeypatch.setattr(player, "show", lambda screen, frame: shown.append(frame.number))
    monkeypatch.setattr(player, "LATE_S", 1e9)  # a slow machine still shows every frame
    report = player.play(iwc_file)
    assert shown == list(range(len(shown)))
    assert len(shown) > 10
    assert (report.shown, report.late) == (len(shown), 0)


def test_the_network_is_loaded_once_for_all_seeks(iwc_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For picture and sound."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    monkeypatch.setattr(player, "LATE_S", -1e9)
    loaded: list[int] = []

    def load(size: int, threads: int | None = None) -> Runtime:
        loaded.append(size)
        return load_runtime_for(size, threads)

    monkeypatch.setattr("iwcodec.codec.shipped_model.load_runtime_for", load)
    seeks = iter(["right", "left"])
    monkeypatch.setattr(
        player, "poll_keys", lambda playback: [playback.press(key) for key in itertools.islice(seeks, 1)]
    )
    player.play(iwc_file)
    assert loaded == [256]
    assert not list(seeks)


def test_late_frames_are_skipped_and_counted(iwc_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(player, "LATE_S", -1e9)
    report = player.play(iwc_file)
    assert report.shown == 0
    assert report.late == CLIP_FRAMES


def test_sound_is_decoded_only_a_few_blocks_ahead(iwc_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def endless(file: IwcFile, start: int) -> Iterator[Samples]:
        while True:
            read.append(start)
            yield np.zeros(round(player.AUDIO_BLOCK_S * AUDIO_RATE), np.int16)

    monkeypatch.setattr(IwcFile, "samples", endless)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    with player.window("x"):
        speaker = player.open_speaker(lambda: IwcFile(iwc_file))
        speaker.start(3.0)
        for _ in range(100):
            speaker.refill()
        speaker.stop()
    assert read[0] == 3 * AUDIO_RATE
    assert len(read) <= player.BLOCKS_AHEAD + 4


def test_blocks_hold_the_same_samples() -> None:
    pieces = [np.arange(n, dtype=np.int16) for n in (10, 30_000, 0, 5)]
    made = list(player.blocks(iter(pieces)))
    np.testing.assert_array_equal(np.concatenate(made), np.concatenate(pieces))
    assert [len(block) for block in made] == [24_000, 6_015]


def test_after_a_seek_frames_play_from_there(iwc_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert after[0] > CLIP_FRAMES // 2  # the clip is shorter than a seek, which goes to the last frames
    assert after == sorted(after)


def test_a_recorded_call_whose_header_has_no_frame_count_plays(
    iwc_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(player, "LATE_S", 1e9)
    recorded = tmp_path / "call.iwc"
    with ContainerReader(iwc_file) as reader, ContainerWriter(recorded, replace(reader.header, frames=0)) as writer:
        for packet in reader.records():
            if isinstance(packet, SourcePacket):
                writer.write_source(packet)
            elif isinstance(packet, MotionPacket):
                writer.write_motion(packet)
    assert player.play(recorded).shown == CLIP_FRAMES
