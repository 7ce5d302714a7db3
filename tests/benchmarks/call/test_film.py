"""The clip that measured clients send has sound."""

from pathlib import Path

from iwcodec.benchmarks.call.film import with_sound
from iwcodec.codec.media.video import probe, sample_clip


def test_clip_without_sound_gets_a_tone(tmp_path: Path) -> None:
    film = with_sound(sample_clip(), tmp_path / "film.mp4")
    assert probe(film).audio is not None
    assert with_sound(film, tmp_path / "again.mp4") == film
