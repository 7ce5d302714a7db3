"""The clip that measured clients send has sound."""

from pathlib import Path

from iwcodec.benchmarks.call.film import close_up, with_sound
from iwcodec.codec.media.video import probe
from support.media.clips import grey_ramp, write_clip


def test_clip_without_sound_gets_a_tone(tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", grey_ramp(25))
    film = with_sound(silent, tmp_path / "film.mp4")
    assert probe(film).audio is not None
    assert with_sound(film, tmp_path / "again.mp4") == film


def test_a_close_up_is_square_and_has_sound(tmp_path: Path) -> None:
    film = probe(close_up(write_clip(tmp_path / "silent.mp4", grey_ramp(10)), tmp_path / "film.mp4", 32))
    assert (film.width, film.height, film.audio is not None) == (32, 32, True)
