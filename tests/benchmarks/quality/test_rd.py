"""`bench rd` on a short clip: real bytes and scores; nothing is measured twice, nothing is lost by an interruption."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from iwcodec.benchmarks.metrics import scoring
from iwcodec.benchmarks.metrics.scoring import make_scorer
from iwcodec.benchmarks.quality import rd, rd_clip
from iwcodec.benchmarks.quality.rd import CODECS, Plan, parse_codecs, parse_rates
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.media.video import read_video
from support.codec.stub_runtime import FileFit, StubRuntime
from support.media.clips import write_clip

RATES = (6.0, 60.0)


@pytest.fixture(scope="module")
def short_clip(face_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [frame.picture for frame in read_video(face_clip)][:6]
    return write_clip(tmp_path_factory.mktemp("rd") / "short.mp4", pictures, fps=25)


def plan(
    folder: Path, codecs: tuple[str, ...] = CODECS, rates: tuple[float, ...] = RATES, pictures: bool = False
) -> Plan:
    return Plan(rates, codecs, 256, "face", folder, pictures)


@pytest.fixture(scope="module")
def measured(
    stub_network: None, short_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("results")
    return folder, rd.run([short_clip], plan(folder, pictures=True), make_scorer(["psnr"]))


@pytest.fixture(autouse=True, scope="module")
def stub_network() -> Iterator[None]:
    """The stub network for pictures of 256, whose keypoints are not fitted, at the least effort."""
    runtime = StubRuntime()
    runtime.info = replace(runtime.info, size=256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rd, "load_runtime_for", lambda size, threads: runtime)
        patch.setattr(rd_clip, "EncodeOptions", partial(EncodeOptions, effort=0))
        patch.setattr(rd_clip.experiment, "codec_digest", lambda runtime: "this codec")
        patch.setattr("iwcodec.codec.file.passes.fit_for", lambda effort: FileFit())
        patch.setattr("iwcodec.codec.file.rate_control.excerpt.quick_fit", FileFit)
        yield


def points_of(results: dict[str, Any]) -> dict[tuple[str, float], dict[str, Any]]:
    return {(p["codec"], p["asked_kbps"]): p for p in results["clips"]["short"]["points"]}


def test_every_codec_at_every_rate(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, results = measured
    points = points_of(results)
    assert set(points) == {(codec, rate) for codec in CODECS for rate in RATES}
    assert json.loads((folder / "rd.json").read_text()) == json.loads(json.dumps(results))
    for point in points.values():
        assert point["kbps"] == pytest.approx(sum(point["bytes"].values()) * 8 / 1000 / 0.24, abs=0.01)
        assert 5 < point["scores"]["psnr_rgb"] < 60
    for codec in ("svtav1", "svtav1-half", "x265", "vp9"):
        assert points[codec, 60]["scores"]["psnr_rgb"] > points[codec, 6]["scores"]["psnr_rgb"]
    ours, copy, oracle = (points[name, 60] for name in ("iwcodec", "copy", "oracle"))
    assert ours["bytes"].keys() == {"sources", "motion", "container"}
    assert copy["bytes"] == {"sources": ours["bytes"]["sources"]}
    assert oracle["bytes"] == ours["bytes"]
    assert ours["sources"] == copy["sources"] == oracle["sources"] >= 1
    assert results["settings"]["x265"]["options"]["6"]["tune"] == "zerolatency"


def test_pictures_are_written(measured: tuple[Path, dict[str, Any]]) -> None:
    names = {file.name for file in (measured[0] / "pictures" / "short").iterdir()}
    assert names == {
        f"{p}-{n}.png" for n in range(3) for p in ["original", *(f"{c}-{r:g}" for c in CODECS for r in RATES)]
    }


def test_second_run_codes_nothing(
    short_clip: Path, measured: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, results = measured
    monkeypatch.setattr(rd_clip, "encode_rival", None)
    monkeypatch.setattr(rd_clip, "encode", None)
    again = rd.run([short_clip], plan(folder, pictures=True), make_scorer(["psnr"]))
    assert again["clips"] == results["clips"]
    elsewhere = rd.run([short_clip], plan(tmp_path, pictures=True), make_scorer(["psnr"]), [folder / "rd.json"])
    assert elsewhere["clips"] == results["clips"]
    assert (tmp_path / "pictures" / "short" / "vp9-6-2.png").is_file()


def test_new_weights_do_not_remeasure_the_rivals(
    short_clip: Path, measured: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, results = measured
    monkeypatch.setattr(rd_clip, "encode_rival", None)
    monkeypatch.setattr(rd_clip.experiment, "codec_digest", lambda runtime: "another codec")
    scored: list[int] = []
    scorer = make_scorer(["psnr"])
    measure = scorer.__call__
    monkeypatch.setattr(type(scorer), "__call__", lambda self, *given: scored.append(1) or measure(*given))
    results_now = rd.run(
        [short_clip], plan(tmp_path, ("iwcodec", "x264", "oracle"), (6.0,)), scorer, [folder / "rd.json"]
    )
    now, before = points_of(results_now), points_of(results)
    assert now["x264", 6] == before["x264", 6]
    assert now["iwcodec", 6]["recipe"] != before["iwcodec", 6]["recipe"]
    # The same sources were chosen, so the oracle is not scored again; only our own pictures are new.
    assert now["oracle", 6]["scores"] == before["oracle", 6]["scores"]
    assert len(scored) == 1


def test_interrupted_run_keeps_its_points(short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = make_scorer(["psnr"])
    rd.run([short_clip], plan(tmp_path, ("x264",)), scorer)
    encode = rd_clip.encode_rival

    def stop_at_x265(codec: str, *rest: Any) -> Any:
        if codec == "x265":
            raise KeyboardInterrupt
        return encode(codec, *rest)

    monkeypatch.setattr(rd_clip, "encode_rival", stop_at_x265)
    with pytest.raises(KeyboardInterrupt):
        rd.run([short_clip], plan(tmp_path, ("svtav1", "x265")), scorer)
    left = points_of(json.loads((tmp_path / "rd.json").read_text()))
    assert set(left) == {("x264", 6), ("x264", 60), ("svtav1", 6)}


def test_only_an_added_metric_is_measured(short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = points_of(rd.run([short_clip], plan(tmp_path, ("x264",), (6.0,)), make_scorer(["psnr"])))["x264", 6]
    measured: list[Sequence[str]] = []
    measure = scoring.measure
    monkeypatch.setattr(scoring, "measure", lambda a, b, wanted: measured.append(wanted) or measure(a, b, wanted))
    results = rd.run([short_clip], plan(tmp_path, ("x264",), (6.0,)), make_scorer(["psnr", "ssim"]))
    point = points_of(results)["x264", 6]
    assert measured == [["ssim"]]
    assert point["scores"].keys() == {"psnr_rgb", "psnr_y", "ssim"}
    assert point["scores"].items() >= once["scores"].items()
    # With fewer metrics requested, nothing is lost and nothing coded.
    monkeypatch.setattr(rd_clip, "encode_rival", None)
    again = rd.run([short_clip], plan(tmp_path, ("x264",), (6.0,)), make_scorer(["psnr"]))
    assert points_of(again)["x264", 6] == point


def test_rates_and_codecs_are_validated() -> None:
    assert parse_rates("8,2,2") == (2.0, 8.0)
    assert parse_codecs("x264,iwcodec") == ("iwcodec", "x264")
    for text in ("2,x", "0"):
        with pytest.raises(CodecError, match="--rates"):
            parse_rates(text)
    with pytest.raises(CodecError, match=r"'h264'.*x264"):
        parse_codecs("x264,h264")


def test_two_clips_of_one_name_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="same name"):
        rd.run([tmp_path / "a.mp4", tmp_path / "b" / "a.mp4"], plan(tmp_path), make_scorer(["psnr"]))
