"""`iwcodec bench motion`: finer steps cost more bits and lose less quality."""

import itertools
import json
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from iwcodec.benchmarks.quality.motion import at_slope, command, measure, parse_scales, slope_table, table
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.media.video import read_video, sample_clip
from support.codec.stub_runtime import SIZE, StubRuntime
from support.media.clips import grey_ramp, write_clip


def test_short_clip(tmp_path: Path) -> None:
    pictures = [frame.picture for frame in itertools.islice(read_video(sample_clip()), 24)]
    source = write_clip(tmp_path / "short.mp4", pictures, fps=16)
    app = typer.Typer()
    app.command()(command)
    words = [str(source), "--sources", "1", "--scales", "110,50,80", "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "motion.json").read_text())
    (clip,) = results["clips"]
    assert [point["scale"] for point in clip["points"]] == [50, 80, 110]
    rates = [point["kbps"] for point in clip["points"]]
    assert rates == sorted(rates, reverse=True)
    losses = [clip["fitted_db"] - point["psnr_db"] for point in clip["points"]]
    assert losses[0] < 0.15
    assert losses[0] < losses[2]
    console = Console(width=120)
    with console.capture() as printed:
        console.print(table(results))
        console.print(slope_table(results))
    assert f"{losses[2]:.3f}" in printed.get()
    for point in clip["points"]:
        first, second = point["halves_db"]  # of five frames, or of four if one of them is the source
        means = (first + second) / 2, (3 * first + 2 * second) / 5
        assert min(abs(mean - point["psnr_db"]) for mean in means) < 0.002
    assert at_slope(clip, 100.0)[0] == pytest.approx(rates[2] * 25 / clip["fps"])
    assert at_slope(clip, 0.04)[0] > at_slope(clip, 100.0)[0]


def test_clip_without_two_compared_frames_is_rejected(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "short.mp4", grey_ramp(4, 64, 64))
    with pytest.raises(CodecError, match="too short"):
        measure(clip, EncodeOptions(SIZE, sources=1, crop="none"), StubRuntime(), [80], lambda name, share: None)


def test_scale_is_chosen_and_measured_on_different_halves() -> None:
    """A scale that is good by chance in one half is not measured on that half."""
    points = [
        {"kbps": 2.4, "psnr_db": 29.95, "halves_db": [29.9, 30.0]},
        {"kbps": 1.2, "psnr_db": 29.85, "halves_db": [30.0, 29.7]},
    ]
    clip = {"fps": 30.0, "fitted_db": 30.0, "fitted_halves_db": [30.0, 30.0], "points": points}
    rate, loss = at_slope(clip, 0.1)
    assert rate == pytest.approx((1.0 + 2.0) / 2)  # the first half has the coarse one, the second the fine one
    assert loss == pytest.approx((0.3 + 0.1) / 2)


@pytest.mark.parametrize("text", ["", "a", "60,,80", "-1", "256"])
def test_invalid_scales_are_rejected(text: str) -> None:
    with pytest.raises(CodecError):
        parse_scales(text)
