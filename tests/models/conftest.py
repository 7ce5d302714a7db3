"""Fixtures shared by the tests of the runtimes and of the export."""

from dataclasses import replace
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exported_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an exported model `tiny-64`, and `tiny-128` that extends it by an up block."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from iwcodec.models.export.compare import TOLERANCE
    from iwcodec.models.export.export import export
    from iwcodec.models.network.config import TINY
    from iwcodec.models.network.network import ImplicitWarp
    from support.models.tiny_networks import randomise, with_up_block

    torch.manual_seed(6)
    network = ImplicitWarp(replace(TINY, top_k=6)).eval()
    randomise(network, 0.3, "decoder.out", "decoder.nudge")
    larger = with_up_block(network)
    randomise(larger, 0.1, "decoder.up.0.out")
    folder = tmp_path_factory.mktemp("exported")
    differences = export(network, "tiny-64", folder).differences
    assert max(differences.values()) <= TOLERANCE
    differences = export(larger, "tiny-128", folder, "tiny-64").differences
    assert max(differences.values()) <= TOLERANCE
    return folder
