"""The model for a picture size, or for a file."""

from dataclasses import replace
from pathlib import Path

import pytest

from iwcodec.codec.errors import CodecError, FormatError, VersionError
from iwcodec.codec.file.decode import decode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.shipped_model import check_model, load_runtime_for
from stub_file import stub_file


def test_the_picture_size_selects_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.codec.shipped_model.load_runtime", lambda name, threads: (name, threads))
    assert load_runtime_for(512, 1) == ("lite-512", 1)
    monkeypatch.undo()
    with pytest.raises(CodecError, match="no model for pictures of 640 pixels"):
        load_runtime_for(640)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(VersionError, match="needs the model stub"):
        IwcFile(stub_file(tmp_path / "a.iwc"))


def test_files_of_other_models_are_refused(iwc_file: Path, tmp_path: Path) -> None:
    data = iwc_file.read_bytes()
    with IwcFile(iwc_file) as file:
        digest = file.header.model_digest
    assert digest in data
    # A changed digest breaks the header's checksum, so this is damage, not another model:
    forged = tmp_path / "forged.iwc"
    forged.write_bytes(data.replace(digest, bytes(8), 1))
    with pytest.raises(FormatError):
        decode(forged, tmp_path / "x.mkv")
    with IwcFile(iwc_file) as file, pytest.raises(VersionError, match="lite-256"):
        check_model(replace(file.header, model_digest=bytes(8)), file.runtime.info)
