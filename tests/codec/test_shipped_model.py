"""The model for a picture size, or for a file."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from iwcodec.codec import shipped_model
from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import CodecError, FormatError, OptionError, VersionError
from iwcodec.codec.file.decode import decode
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.shipped_model import check_model, load_runtime, load_runtime_for, load_runtime_of
from support.codec.stub_file import stub_file
from support.codec.stub_runtime import StubRuntime


def test_the_picture_size_selects_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.codec.shipped_model.load_runtime", lambda name, threads: (name, threads))
    assert load_runtime_for(512, 1) == ("lite-512", 1)
    monkeypatch.undo()
    with pytest.raises(CodecError, match="no model for pictures of 640 pixels: give 256 or 512"):
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


@pytest.mark.parametrize("forged", [{"size": 128}, {"size": 300}, {"keypoints": 5}])
def test_a_header_that_contradicts_the_model_is_refused(forged: dict[str, int], tmp_path: Path):
    path = stub_file(tmp_path / "a.iwc")
    with ContainerReader(path) as reader:
        header, packets = reader.header, list(reader.records())
    with ContainerWriter(path, replace(header, **forged)) as writer:
        for packet in packets:
            writer.write_source(packet) if isinstance(packet, SourcePacket) else writer.write_motion(packet)
    with pytest.raises(FormatError, match=rf"a\.iwc: The header is wrong: its {next(iter(forged))} is"):
        decode(path, tmp_path / "x.mkv", runtime=StubRuntime())


def test_a_forged_size_of_a_shipped_model_is_named(iwc_file: Path):
    with IwcFile(iwc_file) as file, pytest.raises(FormatError, match="its size is 300, that of the model lite-256 256"):
        load_runtime_of(replace(file.header, size=300))


def test_unknown_models_and_kinds_are_refused():
    with pytest.raises(OptionError, match="no model 'grand-256'"):
        load_runtime("grand-256")
    with pytest.raises(OptionError, match="no runtime 'abacus'"):
        load_runtime(kind="abacus")


def test_a_changed_graph_is_not_called_a_missing_model(iwc_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> NoReturn:
        raise FileNotFoundError("lite-256.attend.onnx is not the one that was exported")

    monkeypatch.setattr(shipped_model, "load_model", refuse)
    with pytest.raises(OptionError, match=r"attend\.onnx is not the one that was exported"):
        decode(iwc_file, tmp_path / "x.mkv")
