"""The command line: reports, one-sentence errors, exit status, no partial files."""

import io
import itertools
import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from iwcodec.codec import cli
from iwcodec.codec.bitstream.packets import AudioPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.media.video import read_video
from support.codec.container_file import write_container
from support.codec.stub_runtime import SIZE, StubRuntime
from support.media.clips import CLIP_FPS, CLIP_FRAMES, grey_ramp, tone, write_clip

try:
    import resource
except ImportError:  # Windows
    resource = None


@pytest.fixture(scope="module")
def short_clip(face_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 8 frames of `face_clip`, one second, with a tone as sound."""
    pictures = [frame.picture for frame in itertools.islice(read_video(face_clip), 8)]
    return write_clip(tmp_path_factory.mktemp("clips") / "short.mp4", pictures, fps=CLIP_FPS, sound=tone(1.0))


@pytest.fixture
def stub_model(no_fit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode with the stub network, for pictures of SIZE."""
    monkeypatch.setattr("iwcodec.codec.file.encode.load_runtime_for", lambda size, threads: StubRuntime())


def iwcodec(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which saves loading everything anew."""
    words, stdout, stderr = ["iwcodec", *map(str, arguments)], io.StringIO(), io.StringIO()
    width, status = cli.console.width, 0
    cli.console.width = 200
    try:
        with mock.patch.object(sys, "argv", words), redirect_stdout(stdout), redirect_stderr(stderr):
            cli.main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        cli.console.width = width
    return subprocess.CompletedProcess(words, status, stdout.getvalue(), stderr.getvalue())


def own_process(
    *arguments: object, before: Callable[[], None] | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; `before` runs there first."""
    return subprocess.run(
        [sys.executable, "-m", "iwcodec", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **env},
        timeout=300,
        check=False,
        preexec_fn=before,
    )


def check_refusal(done: subprocess.CompletedProcess[str], saying: str) -> None:
    """Check that the command failed with one line that contains `saying`."""
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if not re.match(r"\d+ s: ", line)]  # progress
    assert len(lines) == 1, done.stderr
    assert saying in done.stderr, done.stderr


def refused(*arguments: object, saying: str) -> None:
    check_refusal(iwcodec(*arguments), saying)


def test_encode_info_decode(short_clip: Path, tmp_path: Path) -> None:
    coded, out = tmp_path / "a.iwc", tmp_path / "a.mp4"
    done = own_process("encode", short_clip, coded, "--sources", "2", "--effort", "0", "--verify", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"frames", "fps", "duration_s", "sources", "variants", "bytes", "kbps"} <= set(report)
    assert {"psnr_db", "copy_psnr_db"} <= set(report)
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


def test_reports_for_people_go_to_stderr(short_clip: Path, stub_model: None, tmp_path: Path) -> None:
    options = (short_clip, tmp_path / "a.iwc", "--size", SIZE, "--sources", "1", "--no-audio")
    done = iwcodec("encode", *options)
    assert done.returncode == 0
    assert "kbps" in done.stderr
    assert done.stdout == ""
    quiet = iwcodec("encode", *options, "-fq")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_tables_that_are_the_answer_go_to_stdout(iwc_file: Path):
    done = iwcodec("info", iwc_file)
    assert "lite-256" in done.stdout
    assert "not measured (encode with --verify)" in done.stdout
    assert done.stderr == ""


def test_variants_are_counted(tmp_path: Path) -> None:
    coded = write_container(tmp_path / "a.iwc")
    assert json.loads(iwcodec("info", coded, "--json").stdout)["variants"] == 3
    assert "variants" in iwcodec("info", coded).stdout


def test_an_unknown_tune_is_refused(face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = iwcodec("encode", face_clip, tmp_path / "a.iwc", "--tune", "ears")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "'ears' is not one of 'psnr', 'face'" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sources", ["auto", "2"])
def test_a_bitrate_that_is_exceeded_is_reported(
    sources: str, short_clip: Path, stub_model: None, tmp_path: Path
) -> None:
    options = ("--size", SIZE, "--bitrate", "1", "--no-audio", "--sources", sources)
    done = iwcodec("encode", short_clip, tmp_path / "a.iwc", *options)
    assert done.returncode == 0
    assert "instead of the 1 kbps asked for" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["encode", "FACE", "x.iwc", "--quality", "30", "--bitrate", "4"], "combined"),
        (["encode", "FACE", "x.iwc", "--quality", "30", "--sources", "2"], "combined"),
        (["encode", "nowhere.mp4", "x.iwc"], "does not exist"),
        (["encode", ".", "x.iwc"], "folder"),
        (["encode", "FACE", "x.mp4"], ".iwc"),
        (["encode", "FACE", "x.iwc", "--sources", "many"], "--sources"),
        (["encode", "FACE", "x.iwc", "--crop", "left"], "crop"),
        (["encode", "FACE", "x.iwc", "--crop", "600,300,256"], "inside"),
        (["encode", "FACE", "x.iwc", "--size", "300"], "300"),
        (["encode", "GREY", "x.iwc"], "No face"),
        (["encode", "TEXT", "x.iwc"], "not a video"),
        (["encode", "EMPTY", "x.iwc"], "is empty"),
        (["encode", "SOUND", "x.iwc"], "only sound"),
        (["encode", "FACE", "text.mp4/x.iwc"], "text.mp4"),
        (["decode", "EMPTY", "x.mp4"], "not an .iwc file"),
        (["decode", "FACE", "x.mp4"], ""),
        (["decode", "nowhere.iwc", "x.mp4"], "does not exist"),
        (["decode", "IWC", "x.gif"], ".mp4"),
        (["info", "FACE"], ""),
        (["play", "nowhere.iwc"], "does not exist"),
        (["info", "talk[final].iwc"], "talk[final].iwc does not exist"),
        (["info", "talk[/final].iwc"], "final].iwc does not exist"),
        (["encode", "FACE", "GREY", "x.iwc"], "need a folder to write to, not x.iwc"),
        (["encode", "FACE", "GREY", "text.mp4"], "text.mp4 is not a folder"),
        (["encode", "FACE", "FACE", "folder"], "Several inputs would be written to"),
        (["encode", "FACE", "GREY", "-"], "cannot go to standard output"),
        (["encode", "FACE", "x.iwc", "--face", "first"], "largest, a number from 1"),
        (["encode", "FACE", "x.iwc", "--start", "90"], "no picture after 90 s"),
        (["encode", "FACE", "x.iwc", "--audio-track", "2"], "has 1 audio track, so there is no audio track 2"),
        (["encode", "rtmp://127.0.0.1/x", "x.iwc"], "only http, https and file"),
    ],
)
def test_bad_arguments_and_inputs_are_refused(
    arguments: list[str], saying: str, face_clip: Path, iwc_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grey = write_clip(tmp_path / "grey.mp4", grey_ramp(6, 96, 64))
    text = tmp_path / "text.mp4"
    text.write_text("hello " * 100)
    (tmp_path / "empty.mp4").touch()
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(8000))
    names = {"FACE": face_clip, "GREY": grey, "TEXT": text, "IWC": iwc_file, "SOUND": sound}
    names["EMPTY"] = tmp_path / "empty.mp4"
    refused(*(names.get(a, a) for a in arguments), saying=saying)
    assert {p.name for p in tmp_path.iterdir()} == {"grey.mp4", "text.mp4", "empty.mp4", "sound.wav"}


def test_a_truncated_file_is_decoded_up_to_the_cut_and_reported(iwc_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.iwc").write_bytes(iwc_file.read_bytes()[:-20])
    done = iwcodec("decode", tmp_path / "cut.iwc", tmp_path / "cut.mp4")
    assert done.returncode == 0, done.stderr
    assert "truncated" in done.stderr
    assert (tmp_path / "cut.mp4").stat().st_size > 1000


def test_a_damaged_record_is_named_and_the_rest_is_decoded(iwc_file: Path, tmp_path: Path) -> None:
    with ContainerReader(iwc_file) as reader:
        sound = [packet for packet in reader.records() if isinstance(packet, AudioPacket)]
    data = bytearray(iwc_file.read_bytes())
    data[data.find(sound[0].packets[0]) + 3] ^= 4
    (tmp_path / "bit.iwc").write_bytes(data)
    done = iwcodec("decode", tmp_path / "bit.iwc", tmp_path / "bit.mp4")
    assert done.returncode == 0, done.stderr
    assert "audio record 1" in done.stderr
    assert f"{CLIP_FRAMES} frames" in done.stderr


@pytest.mark.parametrize("command", [["info"], ["decode"]])
def test_another_format_version_is_refused(command: list[str], iwc_file: Path, tmp_path: Path) -> None:
    data = bytearray(iwc_file.read_bytes())
    data[4] = 9
    (tmp_path / "new.iwc").write_bytes(data)
    target = [tmp_path / "new.mp4"] if command == ["decode"] else []
    refused(*command, tmp_path / "new.iwc", *target, saying="version 9")
    assert [p.name for p in tmp_path.iterdir()] == ["new.iwc"]


def test_another_model_is_refused_and_named(iwc_file: Path, tmp_path: Path) -> None:
    with ContainerReader(iwc_file) as reader:
        header, packets = reader.header, list(reader.records())
    with ContainerWriter(tmp_path / "other.iwc", replace(header, model_id="grand-256")) as writer:
        for packet in packets:
            if isinstance(packet, SourcePacket):
                writer.write_source(packet)
    refused("decode", tmp_path / "other.iwc", tmp_path / "x.mp4", saying="needs the model grand-256")
    assert [p.name for p in tmp_path.iterdir()] == ["other.iwc"]


def full_disk(bytes_left: int) -> None:
    """Make writes fail once a file has this many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left))


@pytest.mark.skipif(resource is None, reason="needs a limit on file sizes")
def test_a_full_disk_leaves_no_partial_files(short_clip: Path, iwc_file: Path, tmp_path: Path) -> None:
    """Neither in the folder for temporary files nor in that of the output."""
    temporary, out = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    out.mkdir()
    full = partial(full_disk, 1000)
    failed = own_process("encode", short_clip, out / "x.iwc", "--effort", "0", before=full, TMPDIR=str(temporary))
    check_refusal(failed, "Cannot store")
    check_refusal(own_process("decode", iwc_file, out / "x.mp4", before=full), "could not be written")
    assert not [*temporary.iterdir(), *out.iterdir()]


def test_onnx_runtime_sends_no_telemetry(iwc_file: Path, tmp_path: Path) -> None:
    """Its telemetry would leave a session file in the folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    environment = {"TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path)}
    assert own_process("decode", iwc_file, tmp_path / "a.mp4", **environment).returncode == 0
    assert {p.name for p in tmp_path.rglob("*")} == {"temporary", "a.mp4"}


def test_an_existing_output_is_not_overwritten(face_clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.iwc"
    target.write_text("precious")
    refused("encode", face_clip, target, saying="-f")
    assert target.read_text() == "precious"


def test_every_command_has_help() -> None:
    for command in ("encode", "decode", "info", "play", "train", "export", "doctor"):
        done = iwcodec(command, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout
        if command == "encode":
            assert "face follows the speaker" in done.stdout


def test_a_command_loads_only_what_it_needs() -> None:
    """Encoding must not wait for the packages of servers and calls to load."""
    script = "import sys; sys.argv[1:] = ['info', '--help']; import iwcodec.__main__"
    asked = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {script}"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=100, check=False)
    assert "iwcodec.codec.cli" in done.stdout
    assert not {"aiortc", "fastapi", "iwcodec.benchmarks"} & set(done.stdout.split())
    listed = iwcodec("--help").stdout
    assert "Usage" in listed
    assert all(name in listed for name in ("encode", "bench", "call", "serve", "demo"))
    unknown = iwcodec("encod")
    assert unknown.returncode != 0
    assert "encod" in unknown.stderr


def test_the_version_is_printed() -> None:
    assert iwcodec("--version").stdout.startswith("iwcodec 0.")


def test_doctor_reports_speed_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.codec.doctor.load_runtime", lambda *_: StubRuntime())
    report = json.loads(iwcodec("doctor", "--json").stdout)
    assert report["speed"]["receiver frames/s"] > 0
    assert "onnxruntime" in report["versions"]


def test_playing_without_a_display_is_refused(iwc_file: Path) -> None:
    done = own_process("play", iwc_file, SDL_VIDEODRIVER="none-such")
    assert done.returncode == 1
    assert "no display" in done.stderr


def test_pipes_at_both_ends(iwc_file: Path):
    """Standard output holds nothing but the file."""
    command = [sys.executable, "-m", "iwcodec", "decode", "-", "-", "--format", "y4m"]
    done = subprocess.run(command, input=iwc_file.read_bytes(), capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"YUV4MPEG2 W256 H256")
    assert done.stdout.count(b"FRAME\n") == CLIP_FRAMES
    command = [sys.executable, "-m", "iwcodec", "decode", "-", "-"]
    done = subprocess.run(command, input=b"not a file", capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"error: standard input: This is not an .iwc file." in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_answer_that_cannot_be_written_is_one_sentence(options: list[str], iwc_file: Path):
    errors, words = io.StringIO(), ["iwcodec", "info", str(iwc_file), *options]
    with (
        open("/dev/full", "w") as full,
        redirect_stdout(full),
        redirect_stderr(errors),
        mock.patch.object(sys, "argv", words),
        pytest.raises(SystemExit),
    ):
        cli.main()
    assert errors.getvalue() == "error: No space left on device.\n"


def test_several_inputs_go_into_a_folder_and_one_that_fails_stops_no_other(iwc_file: Path, tmp_path: Path):
    (tmp_path / "bad.iwc").write_bytes(b"not a file")
    out = tmp_path / "out"
    done = iwcodec("decode", tmp_path / "bad.iwc", iwc_file, out, "--format", "y4m", "--json")
    assert done.returncode == 1
    assert "1 of 2 inputs failed" in done.stderr
    bad, good = json.loads(done.stdout)
    assert "not an .iwc file" in bad["error"]
    assert (good["frames"], good["output"]) == (CLIP_FRAMES, str(out / "face.y4m"))
    assert [path.name for path in out.iterdir()] == ["face.y4m"]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_says_stopped_and_leaves_nothing(face_clip: Path, tmp_path: Path):
    script = (
        "import sys, iwcodec.codec.file.encode as e; sys.argv[1:] = sys.argv[1:]\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "e.read_clip = stop\n"
        "import iwcodec.__main__"
    )
    command = [sys.executable, "-c", script, "encode", str(face_clip), str(tmp_path / "a.iwc")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (130, "error: Stopped.\n")
    assert not list(tmp_path.iterdir())
