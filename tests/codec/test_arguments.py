"""Arguments of the public API that have the wrong type."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iwcodec
from iwcodec.codec.arguments import check_callback, check_path, check_runtime, check_type
from iwcodec.codec.errors import OptionError
from support.codec.stub_runtime import StubRuntime

RUNTIME = StubRuntime()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iwcodec.Encoder(None), r"runtime must be what load_runtime\(\) returns, not NoneType"),
        (lambda: iwcodec.Encoder("lite-256"), "runtime must be what .* not str"),
        (lambda: iwcodec.Encoder(StubRuntime), "runtime must be what .* not the class StubRuntime"),
        (lambda: iwcodec.Encoder(RUNTIME, {"fit": True}), "settings must be EncoderSettings or None, not dict"),
        (lambda: iwcodec.Encoder(RUNTIME, tables=3), "tables must be Tables or None"),
        (lambda: iwcodec.Encoder(RUNTIME).add_variant(np.zeros((64, 64, 3), np.uint8), None), "base must be int"),
        (lambda: iwcodec.EncoderSettings(message_frames=2.5), "message_frames must be int, not float"),
        (lambda: iwcodec.EncoderSettings(quantiser=None), "quantiser must be Quantiser"),
        (lambda: iwcodec.Decoder(None), "runtime must be"),
        (lambda: iwcodec.Decoder(RUNTIME, quantiser=1), "quantiser must be Quantiser or None"),
        (lambda: iwcodec.Decoder(RUNTIME, capacity=None), "capacity must be int"),
        (lambda: iwcodec.Decoder(RUNTIME, active=0), "active must be from 1 to"),
        (lambda: iwcodec.Decoder(RUNTIME, suppression="x"), "suppression must be from 0"),
        (lambda: iwcodec.encode(None, "a.iwc"), "source must be the path of a file, not NoneType"),
        (lambda: iwcodec.encode("a.mp4", 3), "target must be the path of a file, not int"),
        (lambda: iwcodec.encode("a.mp4", "a.iwc", runtime="onnx"), "runtime must be"),
        (lambda: iwcodec.encode("a.mp4", "a.iwc", progress=1), "progress must be a function, not int"),
        (lambda: iwcodec.decode(b"a.iwc", "a.mp4"), "source must be the path of a file, not bytes"),
        (lambda: iwcodec.decode("a.iwc", None), "target must be the path of a file"),
        (lambda: iwcodec.IwcFile(None), "path must be the path of a file"),
        (lambda: iwcodec.IwcFile("a.iwc", 3), "runtime must be"),
        (lambda: iwcodec.load_runtime(256), "model must be str, not int"),
        (lambda: iwcodec.load_runtime(kind=None), "kind must be str, not NoneType"),
        (lambda: iwcodec.load_runtime(threads="2"), "threads must be int or None, not str"),
    ],
)
def test_wrong_types_are_refused_in_one_sentence(
    call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message) as refused:
        call()
    assert str(refused.value).endswith(".")
    assert list(tmp_path.iterdir()) == []


def test_right_types_are_taken(tmp_path: Path) -> None:
    assert check_runtime(RUNTIME) is RUNTIME
    assert check_path("source", "a.mp4") == check_path("source", Path("a.mp4"))
    check_callback("progress", None)
    check_callback("progress", print)
    check_type("settings", None, iwcodec.EncoderSettings, None)
