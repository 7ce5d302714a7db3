"""The virtual camera, with a pyvirtualcam double."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwcodec.client.recording.virtual_camera import VirtualCamera
from iwcodec.codec.errors import CodecError
from support.calls.fake_call import RecordedCall


def test_the_first_participant_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[np.ndarray] = []
    camera = SimpleNamespace(send=sent.append, close=lambda: None)
    module = SimpleNamespace(Camera=lambda *_, **__: camera, PixelFormat=SimpleNamespace(RGB=1))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    call = RecordedCall()
    call.participants = {"a": SimpleNamespace(id="a"), "b": SimpleNamespace(id="b")}
    shows = VirtualCamera(call)
    pictures = {
        id: SimpleNamespace(picture=np.full((256, 256, 3), level, np.uint8))
        for id, level in zip("ab", (50, 90), strict=True)
    }
    for id in "aba":
        shows.show(call.participants[id], pictures[id])
    del call.participants["a"]
    shows.show(call.participants["b"], pictures["b"])
    assert [frame[240, 320, 0] for frame in sent] == [50, 50, 90]
    assert sent[0].shape == (480, 640, 3)
    assert not sent[0][:, :80].any()


def test_a_missing_pyvirtualcam_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(CodecError, match="pip install pyvirtualcam"):
        VirtualCamera(RecordedCall())


def test_a_missing_device_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise RuntimeError("no device")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=none, PixelFormat=SimpleNamespace(RGB=1)))
    with pytest.raises(CodecError, match="v4l2loopback"):
        VirtualCamera(RecordedCall())
