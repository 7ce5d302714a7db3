"""Sources and motion of a whole clip."""

from pathlib import Path

from iwcodec.codec.file.clip import EncodeOptions
from iwcodec.codec.file.encode import encode


def test_source_count_and_bitrate(face_clip: Path, tmp_path: Path):
    few = encode(face_clip, tmp_path / "a.iwc", EncodeOptions(sources=1))
    more = encode(face_clip, tmp_path / "b.iwc", EncodeOptions(sources=4))
    assert (few.sources, more.sources) == (1, 4)
    assert few.bytes["sources"] < more.bytes["sources"]


def test_a_bitrate_holds_for_a_number_of_sources_too(face_clip: Path, tmp_path: Path):
    rates = []
    for kbps in (12.0, 30.0):
        options = EncodeOptions(sources=2, kbps=kbps, audio=False, overwrite=True)
        report = encode(face_clip, tmp_path / "a.iwc", options)
        assert report.sources == 2
        rates.append(report.kbps["video"])
        assert 0.8 * kbps < rates[-1] < 1.05 * kbps
    assert rates[0] < rates[1]
