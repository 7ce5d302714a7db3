"""Plots: everything drawn is visible, and curves are distinguishable without colour."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from iwcodec.benchmarks.plots import CURVE_STYLES, draw, draw_grid, plain_name, spread, useful
from iwcodec.benchmarks.quality.rd_results import CODECS

CURVES = {codec: [(2.0 + n, 20.0 + n), (8.0 + n, 26.0 + n), (30.0 + n, 30.0 + n)] for n, codec in enumerate(CODECS)}


def ink(file: Path) -> float:
    picture = cv2.imread(str(file))
    return float((picture < 200).any(axis=2).mean())


def test_plot_is_written_as_png_and_svg_with_all_names(tmp_path: Path) -> None:
    files = [tmp_path / "rd.png", tmp_path / "rd.svg"]
    draw(CURVES, "psnr_rgb", "Title", files)
    assert 0.01 < ink(files[0]) < 0.5
    text = files[1].read_text()
    names = [line for codec in CODECS for line in CURVE_STYLES[codec].name.split("\n")]
    for word in ("Title", "PSNR over RGB, dB", "kbps spent", *names):
        assert f">{word}" in text, word


def test_the_same_plot_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(CURVES, "vmaf", "", [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"])
    for suffix in ("png", "svg"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()


def test_curve_styles_differ_without_colour() -> None:
    assert set(CODECS) == set(CURVE_STYLES)
    assert len({(str(style.line), style.marker, style.filled) for style in CURVE_STYLES.values()}) == len(CURVE_STYLES)


def test_lines_join_the_frontier() -> None:
    points = [(2.0, 10.0), (3.0, 20.0), (4.0, 12.0), (8.0, 25.0)]
    assert useful(points, "psnr_rgb") == [(2.0, 10.0), (3.0, 20.0), (8.0, 25.0)]
    assert useful(points, "lpips_alex") == [(2.0, 10.0)]


def test_labels_are_spread() -> None:
    assert spread([0.1, 0.5, 0.9], [0.1, 0.1, 0.1]) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5, 0.9], [0.1, 0.2, 0.1]) == pytest.approx([0.425, 0.575, 0.9])
    crowded = spread([0.94, 0.95, 0.96, 0.97], [0.1] * 4)
    assert np.diff(crowded) == pytest.approx(0.1)
    assert crowded[-1] <= 1
    assert spread([-0.1, 0.0], [0.1, 0.1]) == pytest.approx([0, 0.1])


def test_labels_do_not_overlap_and_lie_beside_the_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All curves end in one point; the labels are still separate and inside the picture."""
    from matplotlib import pyplot
    from matplotlib.text import Text

    figures: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(pyplot, "close", figures.append)
        curves = {codec: [(2.0, 20.0 + n / 100), (20.0, 30.0)] for n, codec in enumerate(CODECS)}
        draw(curves, "psnr_rgb", "", [tmp_path / "a.png"])
    (figure,) = figures
    (axes,) = figure.axes
    figure.canvas.draw()  # savefig has laid the figure out for another resolution
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # of the text alone, without the leader line
    pyplot.close(figure)
    assert len(boxes) == len(CODECS)
    for n, box in enumerate(boxes):
        assert axes.get_window_extent().x1 < box.x0 < box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[n + 1 :])


def test_dominated_point_does_not_widen_the_axes(tmp_path: Path) -> None:
    """The quality of an encoder below its lowest useful rate is arbitrary; the axes follow the frontiers."""
    curve = [(2.0, 20.0), (20.0, 30.0)]
    text = []
    for extra in ([], [(5.0, 1.0)]):
        draw({"x264": [*curve, *extra]}, "psnr_rgb", "", [tmp_path / "a.svg"])
        text.append((tmp_path / "a.svg").read_text())
    assert ">22</text>" in text[0]
    assert ">22</text>" in text[1]


def test_dominated_points_are_drawn(tmp_path: Path) -> None:
    pictures = []
    for name, extra in (("with", [(3.0, 15.0), (5.0, 15.0)]), ("without", [])):
        draw({"x264": [(2.0, 10.0), (4.0, 20.0), *extra]}, "psnr_rgb", "", [tmp_path / f"{name}.png"])
        pictures.append(cv2.imread(str(tmp_path / f"{name}.png")))
    assert (np.asarray(pictures[0]) != np.asarray(pictures[1])).any()


@pytest.mark.parametrize("count", [1, 5])
def test_grid_has_a_plot_for_each_clip(tmp_path: Path, count: int) -> None:
    file = tmp_path / "clips.svg"
    draw_grid({f"clip{n}": CURVES for n in range(count)}, "psnr_rgb", "By clip", [file])
    text = file.read_text()
    assert all(f">clip{n}<" in text for n in range(count))
    assert f">{plain_name('svtav1-half')}<" in text


def test_a_single_point_can_be_drawn(tmp_path: Path) -> None:
    draw({"iwcodec": [(4.0, 30.0)]}, "psnr_rgb", "", [tmp_path / "one.png"])
    assert ink(tmp_path / "one.png") > 0.005
