"""Measurements of the GPU, on the CPU and with a small network."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.performance import gpu_sections as sections
from iwcodec.benchmarks.performance.attention.cases import SOURCES, clip_pictures
from iwcodec.models.export.export import save_weights
from iwcodec.models.network.config import TINY
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.runtime.cuda import CudaRuntime


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    target = tmp_path_factory.mktemp("weights")
    save_weights(ImplicitWarp(TINY), target / "tiny.safetensors")
    return target


def test_a_case_that_fails_leaves_the_others() -> None:
    def fail() -> dict[str, float]:
        raise RuntimeError("out of registers\nand more")

    rows = list(sections.rows(iter([({"k": 1}, fail), ({"k": 2}, lambda: {"ms": 1.0})])))
    assert rows == [{"k": 1, "error": "RuntimeError: out of registers"}, {"k": 2, "ms": 1.0}]


def test_runtimes_are_compared_in_db(folder: Path) -> None:
    pair = [CudaRuntime("tiny", "cpu", folder) for _ in range(2)]
    pictures = clip_pictures(TINY.size, 1)
    sources = [[runtime.prepare(picture) for picture in pictures[:SOURCES]] for runtime in pair]
    assert sections.keypoint_difference(pair, pictures[SOURCES:]) == {"largest_keypoint_difference": 0}
    same = sections.picture_difference(pair, sources, pictures[SOURCES:], 0.0)
    assert same["psnr_to_onnx_db"] == same["worst_db"] >= 60
    assert same["psnr_db"] == same["onnx_psnr_db"]
    other = sections.picture_difference(pair, [sources[0][:1], sources[1][2:]], pictures[SOURCES:], 0.0)
    assert other["worst_db"] <= other["psnr_to_onnx_db"] < 40


def test_frames_of_a_batch_are_timed_and_counted(folder: Path) -> None:
    runtime = CudaRuntime("tiny", "cpu", folder)
    figures = sections.batch(runtime, clip_pictures(TINY.size, 1), callers=2, sources=1)
    assert figures["latency_ms"]["repeats"] >= 1
    assert figures["latency_ms"]["min"] <= figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"]
    with torch.inference_mode():
        assert 0 < sections.arithmetic(runtime)["gflop"] < 0.1


def test_a_section_yields_cases_without_measuring_them() -> None:
    labels = [label for label, _ in sections.limits("cpu")]
    assert {"limit": "product", "dtype": "bf16"} in labels
