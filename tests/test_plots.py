"""benchmarks/plots.py: what is drawn is there to be seen, and curves differ without colour."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from iwcodec.benchmarks.plots import LOOKS, draw, draw_grid, useful
from iwcodec.benchmarks.rd import CODECS

CURVES = {codec: [(2.0 + n, 20.0 + n), (8.0 + n, 26.0 + n), (30.0 + n, 30.0 + n)] for n, codec in enumerate(CODECS)}


def ink(file: Path) -> float:
    picture = cv2.imread(str(file))
    assert picture is not None
    return float((picture < 200).any(axis=2).mean())


def test_plot_is_drawn_twice_and_named(tmp_path: Path) -> None:
    files = [tmp_path / "rd.png", tmp_path / "rd.svg"]
    draw(CURVES, "psnr_rgb", "Title", files)
    assert 0.01 < ink(files[0]) < 0.5
    text = files[1].read_text()
    for word in ("Title", "PSNR over RGB, dB", "kbps spent", *(LOOKS[codec].name for codec in CODECS)):
        assert f">{word}" in text, word


def test_the_same_plot_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(CURVES, "vmaf", "", [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"])
    for suffix in ("png", "svg"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()


def test_every_codec_looks_different_without_colour() -> None:
    assert set(CODECS) == set(LOOKS)
    assert len({(str(look.line), look.marker, look.filled) for look in LOOKS.values()}) == len(LOOKS)


def test_lines_join_what_nothing_beats() -> None:
    points = [(2.0, 10.0), (3.0, 20.0), (4.0, 12.0), (8.0, 25.0)]
    assert useful(points, "psnr_rgb") == [(2.0, 10.0), (3.0, 20.0), (8.0, 25.0)]
    assert useful(points, "lpips") == [(2.0, 10.0)]


def test_points_off_the_line_are_shown(tmp_path: Path) -> None:
    pictures = []
    for name, extra in (("with", [(5.0, 15.0)]), ("without", [])):
        draw({"x264": [(2.0, 10.0), (4.0, 20.0), *extra]}, "psnr_rgb", "", [tmp_path / f"{name}.png"])
        pictures.append(cv2.imread(str(tmp_path / f"{name}.png")))
    assert (np.asarray(pictures[0]) != np.asarray(pictures[1])).any()


@pytest.mark.parametrize("count", [1, 5])
def test_grid_has_a_field_for_each_clip(tmp_path: Path, count: int) -> None:
    file = tmp_path / "clips.svg"
    draw_grid({f"clip{n}": CURVES for n in range(count)}, "psnr_rgb", "By clip", [file])
    text = file.read_text()
    assert all(f">clip{n}<" in text for n in range(count))
    assert f">{LOOKS['svtav1-half'].name}<" in text


def test_a_single_point_can_be_drawn(tmp_path: Path) -> None:
    draw({"iwcodec": [(4.0, 30.0)]}, "psnr_rgb", "", [tmp_path / "one.png"])
    assert ink(tmp_path / "one.png") > 0.005
