"""What `iwcodec doctor` reports."""

from pathlib import Path

import pytest

from iwcodec.codec.cli import doctor
from iwcodec.codec.extras import requirement
from iwcodec.models.runtime.weights import DEFAULT_MODEL
from support.codec.stub_runtime import StubRuntime


def test_models_for_larger_pictures_are_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "load_runtime", lambda *_: StubRuntime())
    monkeypatch.setattr(doctor, "larger_models", lambda: ["grown-128"])
    speed = doctor.examine().speed
    assert speed["receiver frames/s"] > 0
    assert speed["grown-128: frames/s"] > 0


def test_the_default_model_is_not_larger_than_itself() -> None:
    assert DEFAULT_MODEL not in doctor.larger_models()


def test_missing_extras_are_installed_from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "load_runtime", lambda *_: StubRuntime())
    monkeypatch.setattr(doctor, "larger_models", list)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    examined = doctor.examine()
    assert examined.missing == []  # nothing that encoding and decoding need
    missing = examined.optional
    assert (Path(requirement()) / "pyproject.toml").exists()
    for extra in ("train", "server", "call", "bench"):
        assert any(f"'{requirement(extra)}'" in line for line in missing)
    assert any(line.startswith("mediapipe") for line in missing)
