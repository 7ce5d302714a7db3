"""Options of the encoder: what is impossible is refused, by names that a caller knows."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwcodec.codec.errors import CodecError, OptionError
from iwcodec.codec.file.decode import decode
from iwcodec.codec.file.encode import encode
from iwcodec.codec.file.options import EncodeKeywords, EncodeOptions

NAMES = {field.name for field in fields(EncodeOptions)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"effort": 9},
        {"effort": -1},
        {"effort": 1.5},
        {"sources": 0},
        {"sources": 33},
        {"sources": "2"},
        {"kbps": -5},
        {"kbps": 0},
        {"kbps": float("nan")},
        {"kbps": "4"},
        {"quality_db": 500.0},
        {"size": 7},
        {"size": None},
        {"crop": "left"},
        {"crop": "0,0,8"},
        {"tune": "ears"},
        {"audio_bitrate": 5},
        {"start_s": -1.0},
        {"start_s": float("inf")},
        {"duration_s": 0.0},
        {"video_track": 0},
        {"audio_track": -1},
        {"face": "first"},
        {"face": "0"},
        {"face": "1,2,3"},
    ],
)
def test_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as refused:
        EncodeOptions(**wrong)
    assert isinstance(refused.value, CodecError)
    assert isinstance(refused.value, ValueError)
    with pytest.raises(OptionError):
        encode("nowhere.mp4", "x.iwc", **wrong)


@pytest.mark.parametrize("wrong", [{"kbps": 4.0}, {"sources": 2}])
def test_a_quality_excludes_a_rate_and_a_number_of_sources(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="cannot be combined"):
        encode("nowhere.mp4", "x.iwc", quality_db=30.0, **wrong)


def test_options_of_another_type_are_refused() -> None:
    with pytest.raises(OptionError, match="must be EncodeOptions, not dict"):
        encode("nowhere.mp4", "x.iwc", {"kbps": 4.0})


@pytest.mark.parametrize("name", ["a\0b.iwc", "a" * 300 + ".iwc"])
def test_impossible_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="cannot be written"):
        encode("nowhere.mp4", tmp_path / name)
    with pytest.raises(CodecError, match="cannot be read"):
        decode(str(tmp_path / name), tmp_path / "a.mp4")


def test_numbers_of_numpy_are_taken() -> None:
    options = EncodeOptions(sources=np.int64(3), kbps=np.float32(4))
    assert (options.sources, options.kbps) == (3, 4)


def test_keywords_and_options_are_the_same() -> None:
    assert set(EncodeKeywords.__annotations__) == NAMES
    options = EncodeOptions(kbps=4.0).with_keywords({"effort": 2})
    assert (options.kbps, options.effort) == (4.0, 2)
    with pytest.raises(OptionError, match=r"'sorces' is not an option; there are size, sources"):
        encode("nowhere.mp4", "x.iwc", sorces=3)


def test_the_help_of_encode_names_every_option() -> None:
    assert encode.__doc__ is not None
    assert {name for name in NAMES if name in encode.__doc__} == NAMES


def test_outputs_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"must end in \.iwc, not '\.xyz'"):
        encode("nowhere.mp4", tmp_path / "q.xyz")
