"""The command line as a user meets it: reports, one-sentence errors, exit status, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from media_fixtures import grey_ramp, write_clip


def iwcodec(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "iwcodec", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **env},
        timeout=300,
        check=False,
    )


def refused(*arguments: object, saying: str) -> None:
    done = iwcodec(*arguments)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert saying in done.stderr, done.stderr


def test_encode_info_decode(face_clip: Path, tmp_path: Path):
    coded, out = tmp_path / "a.iwc", tmp_path / "a.mp4"
    done = iwcodec("encode", face_clip, coded, "--sources", "2", "--verify", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"frames", "fps", "duration_s", "sources", "bytes", "kbps", "psnr_db", "copy_psnr_db"} <= set(report)
    assert set(report["bytes"]) == {"total", "sources", "motion", "audio", "container"}
    assert {"total", "video"} <= set(report["kbps"])

    info = json.loads(iwcodec("info", coded, "--json").stdout)
    assert (info["frames"], info["sources"]) == (report["frames"], 2)
    assert info["bytes"] == report["bytes"]

    decoded = json.loads(iwcodec("decode", coded, out, "--json").stdout)
    assert decoded["frames"] == report["frames"]
    assert decoded["audio"] is True
    assert out.exists()

    refused("decode", coded, out, saying="-f")
    assert iwcodec("decode", coded, out, "-f").returncode == 0


def test_human_reports(face_clip: Path, tmp_path: Path):
    done = iwcodec("encode", face_clip, tmp_path / "a.iwc", "--sources", "1", "--no-audio")
    assert done.returncode == 0
    assert "kbps" in done.stderr
    assert done.stdout == ""
    assert "lite-256" in iwcodec("info", tmp_path / "a.iwc").stderr


@pytest.mark.parametrize("sources", ["auto", "2"])
def test_a_bitrate_that_cannot_be_had_is_said(sources: str, face_clip: Path, tmp_path: Path):
    done = iwcodec("encode", face_clip, tmp_path / "a.iwc", "--bitrate", "1", "--no-audio", "--sources", sources)
    assert done.returncode == 0
    assert "1 kbps were asked for" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["encode", "FACE", "x.iwc", "--quality", "30", "--bitrate", "4"], "together"),
        (["encode", "FACE", "x.iwc", "--quality", "30", "--sources", "2"], "together"),
        (["encode", "nowhere.mp4", "x.iwc"], "does not exist"),
        (["encode", ".", "x.iwc"], "folder"),
        (["encode", "FACE", "x.mp4"], ".iwc"),
        (["encode", "FACE", "x.iwc", "--sources", "many"], "--sources"),
        (["encode", "FACE", "x.iwc", "--crop", "left"], "crop"),
        (["encode", "FACE", "x.iwc", "--crop", "600,300,256"], "inside"),
        (["encode", "FACE", "x.iwc", "--size", "300"], "300"),
        (["encode", "GREY", "x.iwc"], "No face"),
        (["encode", "TEXT", "x.iwc"], "not a video"),
        (["decode", "FACE", "x.mp4"], ""),
        (["decode", "nowhere.iwc", "x.mp4"], "does not exist"),
        (["decode", "IWC", "x.gif"], ".mp4"),
        (["info", "FACE"], ""),
        (["play", "nowhere.iwc"], "does not exist"),
    ],
)
def test_refusals(
    arguments: list[str], saying: str, face_clip: Path, iwc_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    grey = write_clip(tmp_path / "grey.mp4", grey_ramp(6, 96, 64))
    text = tmp_path / "text.mp4"
    text.write_text("hello " * 100)
    names = {"FACE": face_clip, "GREY": grey, "TEXT": text, "IWC": iwc_file}
    refused(*(names.get(a, a) for a in arguments), saying=saying)
    assert {p.name for p in tmp_path.iterdir()} == {"grey.mp4", "text.mp4"}


def test_help_teaches():
    for command in ([], ["encode"], ["decode"], ["info"], ["play"], ["train"], ["export"], ["doctor"]):
        done = iwcodec(*command, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout
    assert "face follows the speaker" in iwcodec("encode", "--help").stdout


def test_version():
    assert iwcodec("--version").stdout.startswith("iwcodec 0.")


def test_doctor():
    report = json.loads(iwcodec("doctor", "--json").stdout)
    assert report["speed"]["receiver frames/s"] > 0
    assert "onnxruntime" in report["versions"]


def test_play_without_a_display(iwc_file: Path):
    done = iwcodec("play", iwc_file, SDL_VIDEODRIVER="none-such")
    assert done.returncode == 1
    assert "no display" in done.stderr
