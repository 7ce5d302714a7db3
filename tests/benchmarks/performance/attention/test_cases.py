"""Implementations of attention agree with each other and with the network they are taken from."""

import numpy as np
import pytest
import torch

from iwcodec.benchmarks.performance.attention import cases
from iwcodec.models.network.config import TINY


def test_the_clip_gives_sources_and_frames_between_them(pictures) -> None:
    assert len(pictures) == cases.SOURCES + 2
    assert all(picture.shape == (64, 64, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


@torch.inference_mode()
def test_a_case_is_what_the_network_attends_to(network, pictures) -> None:
    case = cases.make_case(network, pictures[:3], pictures[3])
    sources = torch.from_numpy(np.stack(pictures[:4])).permute(0, 3, 1, 2).float() / 255
    keypoints = network.detect(sources)
    expected = network.generate(
        keypoints[3:], network.encode_sources(sources[None, :3], keypoints[None, :3]), dense=True
    )
    attentions = cases.implementations(network, 1)
    decoded = case.finish(network, attentions["dense"][0](case, 0))
    difference = decoded.astype(float) / 255 - expected.picture[0].clamp(0, 1).permute(1, 2, 0).numpy()
    assert np.abs(difference).max() < 0.01


@torch.inference_mode()
def test_implementations_agree_where_they_must(network, pictures) -> None:
    case = cases.make_case(network, pictures[:2], pictures[3])
    attentions = cases.implementations(network, 1)
    dense = attentions["dense"][0](case, 0)
    everything = case.keys.shape[1]
    assert cases.difference(attentions["dense, fused fp16 (PyTorch SDPA)"][0](case, 0), dense) < 1e-2
    for name, k in (("dense, fused (PyTorch SDPA)", 0), ("top-k", everything), ("hierarchical", everything // 4)):
        assert cases.difference(attentions[name][0](case, k), dense) < 1e-3, name
    onnx = pytest.importorskip("onnx")
    assert onnx
    kept = TINY.top_k
    for count in (1, 3):  # the graph was exported with two
        case = cases.make_case(network, pictures[:count], pictures[3])
        exported, plain = (attentions[name][0](case, kept) for name in ("hierarchical, ONNX Runtime", "hierarchical"))
        assert cases.difference(exported, plain) < 1e-3
        attend, everything = cases.onnx_attention(network, 1, dense=True)
        assert everything == 0
        assert cases.difference(attend(case, 0), attentions["dense"][0](case, 0)) < 1e-3
        with pytest.raises(ValueError, match="keeps all"):
            attend(case, kept)
