"""Quality of sparse attention relative to dense attention."""

import torch

from iwcodec.benchmarks.performance.attention import cases, measures


@torch.inference_mode()
def test_error_falls_with_the_number_of_keys_kept(network, pictures) -> None:
    attentions = {name: way for name, way in cases.implementations(network, 1).items() if name in ("dense", "top-k")}
    scores = {s["k"]: s for s in measures.quality(network, pictures, attentions, lambda name, share: None)}
    assert scores[0]["against_dense_db"] == 0
    gaps = [scores[k]["rows_from_dense"] for k in cases.KEPT]
    assert gaps == sorted(gaps, reverse=True)
