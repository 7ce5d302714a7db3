"""`iwcodec bench`: every command exists, and errors are one sentence."""

import pytest
from typer.testing import CliRunner

from iwcodec.benchmarks.bench import COMMANDS, app
from iwcodec.codec.cli import app as cli


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert len(done.output.splitlines()) > 5


def test_bench_is_a_command_of_iwcodec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["iwcodec", "bench", "rd", "--codecs", "h266"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "no codec 'h266'" in " ".join(capsys.readouterr().err.split())
