"""benchmarks/rd.py on a short clip: real bytes, real scores, nothing measured twice, nothing lost."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from iwcodec.benchmarks.metrics import metrics
from iwcodec.benchmarks.metrics.scoring import make_scorer
from iwcodec.benchmarks.quality import rd
from iwcodec.benchmarks.quality.rd import CODECS, Plan, comparisons, mean_points, parse_codecs, parse_rates
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.video import read_video
from media_fixtures import write_clip

RATES = (6.0, 60.0)


@pytest.fixture(scope="module")
def short_clip(face_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [frame.picture for frame in read_video(face_clip)][:10]
    return write_clip(tmp_path_factory.mktemp("rd") / "short.mp4", pictures, fps=25)


def plan(
    folder: Path, codecs: tuple[str, ...] = CODECS, rates: tuple[float, ...] = RATES, pictures: bool = False
) -> Plan:
    return Plan(rates, codecs, 256, "face", folder, pictures)


@pytest.fixture(scope="module")
def measured(short_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("results")
    return folder, rd.run([short_clip], plan(folder, pictures=True), make_scorer(["psnr"]))


def points_of(results: dict[str, Any]) -> dict[tuple[str, float], dict[str, Any]]:
    return {(p["codec"], p["asked_kbps"]): p for p in results["clips"]["short"]["points"]}


def test_every_codec_at_every_rate(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, results = measured
    points = points_of(results)
    assert set(points) == {(codec, rate) for codec in CODECS for rate in RATES}
    assert json.loads((folder / "rd.json").read_text()) == json.loads(json.dumps(results))
    for point in points.values():
        assert point["kbps"] == pytest.approx(sum(point["bytes"].values()) * 8 / 1000 / 0.4, abs=0.01)
        assert 5 < point["scores"]["psnr_rgb"] < 60
    for codec in ("svtav1", "svtav1-half", "x265", "vp9"):
        assert points[codec, 60]["scores"]["psnr_rgb"] > points[codec, 6]["scores"]["psnr_rgb"]
    ours, copy, oracle = (points[name, 60] for name in ("iwcodec", "copy", "oracle"))
    assert ours["bytes"].keys() == {"sources", "motion", "container"}
    assert copy["bytes"] == {"sources": ours["bytes"]["sources"]}
    assert oracle["bytes"] == ours["bytes"]
    assert ours["sources"] == copy["sources"] == oracle["sources"] >= 1
    assert results["settings"]["x265"]["options"]["6"]["tune"] == "zerolatency"


def test_pictures_are_kept(measured: tuple[Path, dict[str, Any]]) -> None:
    names = {file.name for file in (measured[0] / "pictures" / "short").iterdir()}
    assert names == {
        f"{p}-{n}.png" for n in range(3) for p in ["original", *(f"{c}-{r:g}" for c in CODECS for r in RATES)]
    }


def test_run_again_nothing_is_coded(
    short_clip: Path, measured: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, results = measured
    monkeypatch.setattr(rd, "encode_rival", None)
    monkeypatch.setattr(rd, "encode", None)
    again = rd.run([short_clip], plan(folder, pictures=True), make_scorer(["psnr"]))
    assert again["clips"] == results["clips"]
    elsewhere = rd.run([short_clip], plan(tmp_path, pictures=True), make_scorer(["psnr"]), [folder / "rd.json"])
    assert elsewhere["clips"] == results["clips"]
    assert (tmp_path / "pictures" / "short" / "vp9-6-2.png").is_file()


def test_new_weights_spare_the_rivals(
    short_clip: Path, measured: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, results = measured
    monkeypatch.setattr(rd, "encode_rival", None)
    monkeypatch.setattr(rd.experiment, "codec_digest", lambda runtime: "another codec")
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
    # The same sources were chosen, so the oracle is not drawn again; only our own pictures are new.
    assert now["oracle", 6]["scores"] == before["oracle", 6]["scores"]
    assert len(scored) == 1


def test_interrupted_runs_lose_nothing(short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = make_scorer(["psnr"])
    rd.run([short_clip], plan(tmp_path, ("x264",)), scorer)
    encode = rd.encode_rival

    def stop_at_x265(codec: str, *rest: Any) -> Any:
        if codec == "x265":
            raise KeyboardInterrupt
        return encode(codec, *rest)

    monkeypatch.setattr(rd, "encode_rival", stop_at_x265)
    with pytest.raises(KeyboardInterrupt):
        rd.run([short_clip], plan(tmp_path, ("svtav1", "x265")), scorer)
    left = points_of(json.loads((tmp_path / "rd.json").read_text()))
    assert set(left) == {("x264", 6), ("x264", 60), ("svtav1", 6)}


def test_a_further_metric_is_added(short_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = points_of(rd.run([short_clip], plan(tmp_path, ("x264",), (6.0,)), make_scorer(["psnr"])))["x264", 6]
    measured: list[Sequence[str]] = []
    measure = metrics.measure
    monkeypatch.setattr(metrics, "measure", lambda a, b, wanted: measured.append(wanted) or measure(a, b, wanted))
    results = rd.run([short_clip], plan(tmp_path, ("x264",), (6.0,)), make_scorer(["psnr", "ssim"]))
    point = points_of(results)["x264", 6]
    assert measured == [["ssim"]]
    assert point["scores"].keys() == {"psnr_rgb", "psnr_y", "ssim"}
    assert point["scores"].items() >= once["scores"].items()
    # With fewer metrics wanted, nothing is lost and nothing coded.
    monkeypatch.setattr(rd, "encode_rival", None)
    again = rd.run([short_clip], plan(tmp_path, ("x264",), (6.0,)), make_scorer(["psnr"]))
    assert points_of(again)["x264", 6] == point


def made_up(curves: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    points = [
        {"codec": codec, "asked_kbps": asked, "kbps": kbps, "scores": {"psnr_rgb": quality}}
        for codec, curve in curves.items()
        for asked, (kbps, quality) in zip((3.0, 12.0, 40.0), curve, strict=True)
    ]
    return {"metrics": ["psnr_rgb"], "clips": {"a": {"points": points}, "b": {"points": points}}}


def test_comparisons_are_bjontegaard_s() -> None:
    anchor = [(4.0, 30.0), (8.0, 33.0), (32.0, 39.0)]
    half = [(kbps / 2, quality) for kbps, quality in anchor]
    rows = comparisons(made_up({"svtav1": anchor, "x265": half}))
    everywhere, low = rows
    assert (everywhere["codec"], everywhere["anchor"], everywhere["rates"]) == ("x265", "svtav1", None)
    assert everywhere["bd_rate_percent"] == {"mean": -50, "low": -50, "high": -50, "clips": 2}
    assert low["rates"] == [3, 12]
    assert low["bd_rate_percent"]["mean"] == -50
    assert low["bd_quality"] is None
    assert low["left_out"]["no common rate"] == ["a", "b"]


def test_mean_points_need_every_clip() -> None:
    results = made_up({"x264": [(4.0, 30.0), (8.0, 33.0), (32.0, 39.0)]})
    results["clips"]["b"]["points"] = results["clips"]["b"]["points"][:1]
    assert mean_points(results, "x264", "psnr_rgb") == [(3.0, 4.0, 30.0)]


def test_words_are_checked() -> None:
    assert parse_rates("8,2,2") == (2.0, 8.0)
    assert parse_codecs("x264,iwcodec") == ("iwcodec", "x264")
    for text in ("2,x", "0"):
        with pytest.raises(CodecError, match="--rates"):
            parse_rates(text)
    with pytest.raises(CodecError, match=r"'h264'.*x264"):
        parse_codecs("x264,h264")


def test_two_clips_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="same name"):
        rd.run([tmp_path / "a.mp4", tmp_path / "b" / "a.mp4"], plan(tmp_path), make_scorer(["psnr"]))
