"""Provenance of results, and their files: complete or absent."""

import json
import re
import sys
from pathlib import Path

import pytest

from iwcodec.benchmarks import experiment
from iwcodec.codec.errors import CodecError


def test_surroundings_name_machine_and_versions() -> None:
    found = experiment.surroundings()
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["processor"]
    assert {"iwcodec", "av", "numpy", "libavcodec"} <= found["versions"].keys()
    json.dumps(found)


def test_command_line_omits_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/somewhere/bin/iwcodec", "bench", "rd", "/home/me/clips/a.mp4", "--rates", "2,3"]
    )
    assert experiment.command_line() == "iwcodec bench rd a.mp4 --rates 2,3"


def test_codec_digest_changes_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from iwcodec.models.runtime.load import load_runtime

    runtime = load_runtime(kind="onnx")
    before = experiment.codec_digest(runtime)
    assert before == experiment.codec_digest(runtime)
    monkeypatch.setattr(experiment, "_sources_digest", lambda: b"other code")
    assert experiment.codec_digest(runtime) != before


def test_layout_is_json_with_short_lines() -> None:
    value = {"a": [{"n": n, "text": "x" * 60} for n in range(20)], "empty": {}, "none": None}
    text = experiment.layout(value)
    assert json.loads(text) == value
    assert len(text.splitlines()) == 26
    assert max(map(len, text.splitlines())) <= experiment.MAX_LINE


def test_results_are_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    experiment.save({"clips": {"a": [1, 2]}}, path)
    assert experiment.load(path) == {"clips": {"a": [1, 2]}}
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize(("content", "message"), [("[1]", "no results"), ("{", "not JSON"), (None, "cannot be read")])
def test_invalid_results_files_are_rejected(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CodecError, match=message):
        experiment.load(path)


def test_unwritable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CodecError, match="cannot be written"):
        experiment.save({}, tmp_path / "file" / "results.json")


def test_codec_digest_covers_all_imported_model_code() -> None:
    """Every module of models/ that codec/ imports, except training and export."""
    files = experiment.codec_files()
    folder = next(file.parent for file in files if file.name == "encoder.py")
    imported = {
        name
        for file in folder.rglob("*.py")
        for name in re.findall(r"from iwcodec\.models\.(?!training|export)(?:\w+\.)*(\w+) import", file.read_text())
    }
    assert {"types", "weights", "fit_settings", "flow"} <= imported
    assert imported <= {file.stem for file in files}
