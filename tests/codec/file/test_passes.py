"""Encoder passes: number of sources and bitrate of a clip."""

from pathlib import Path

from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.options import EncodeOptions


def test_the_number_of_sources_is_that_of_the_options(face_clip: Path, tmp_path: Path):
    few = encode(face_clip, tmp_path / "a.iwc", EncodeOptions(sources=1))
    more = encode(face_clip, tmp_path / "b.iwc", EncodeOptions(sources=4))
    assert (few.sources, more.sources) == (1, 4)
    assert few.bytes["sources"] < more.bytes["sources"]


def test_a_bitrate_is_kept_with_a_fixed_number_of_sources(face_clip: Path, tmp_path: Path):
    rates = []
    for kbps in (12.0, 30.0):
        options = EncodeOptions(sources=2, kbps=kbps, audio=False, overwrite=True)
        report = encode(face_clip, tmp_path / "a.iwc", options)
        assert report.sources == 2
        rates.append(report.kbps["video"])
        assert 0.8 * kbps < rates[-1] < 1.05 * kbps
    assert rates[0] < rates[1]
