"""Measurements of `bench attention`: quality and time of every implementation, and the effect of rounding."""

from typing import Any

import numpy as np

from iwcodec.benchmarks.performance.attention.cases import SOURCES, difference, make_case, timed
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture


def quality(network: Any, pictures: list[Picture], attentions: dict[str, Any], progress: Any) -> list[dict[str, Any]]:
    """PSNR against the original and against the picture from dense attention, mean over the driving frames."""
    sources, driving = pictures[:SOURCES], pictures[SOURCES:]
    scores_of: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for n, original in enumerate(driving):
        progress("quality", n / len(driving))
        case = make_case(network, sources, original)
        reference = attentions["dense"][0](case, 0)
        picture = case.finish(network, reference)
        for name, (attend, kept) in attentions.items():
            for k in kept:
                attended = reference if name == "dense" else attend(case, k)
                other = picture if name == "dense" else case.finish(network, attended)
                gap = difference(attended, reference)
                scores_of.setdefault((name, k), []).append((psnr(other, original), psnr(other, picture), gap))
    dense_db = float(np.mean([score[0] for score in scores_of["dense", 0]]))
    return [
        {
            "implementation": name,
            "k": k,
            "psnr_db": round(float(np.mean([s[0] for s in scores])), 3),
            "against_dense_db": round(float(np.mean([s[0] for s in scores])) - dense_db, 3),
            "psnr_to_dense_picture_db": round(float(np.mean([s[1] for s in scores])), 2),
            "rows_from_dense": round(max(s[2] for s in scores), 6),
        }
        for (name, k), scores in scores_of.items()
    ]


def times(network: Any, pictures: list[Picture], attentions: dict[str, Any], progress: Any) -> list[dict[str, Any]]:
    """Median, minimum and maximum in ms of the repeats after a warm-up, with 1, 3 and 8 sources."""
    results = []
    for n, count in enumerate((1, 3, 8)):
        sources = [pictures[i % len(pictures)] for i in range(count)]
        case = make_case(network, sources, pictures[-1])
        for m, (name, (attend, kept)) in enumerate(attentions.items()):
            progress("times", (n + m / len(attentions)) / 3)
            for k in kept:
                spent = timed(lambda attend=attend, case=case, k=k: attend(case, k))  # type: ignore[misc]
                ms = {"p50": np.median(spent), "min": min(spent), "max": max(spent)}
                ms = {key: round(float(value), 3) for key, value in ms.items()}
                results.append({"implementation": name, "k": k, "sources": count, "repeats": len(spent), **ms})
    return results


def precision(network: Any, pictures: list[Picture], progress: Any) -> list[dict[str, Any]]:
    """Effect of rounding on logits and picture: exact top-k on rounded vectors, accumulated in fp32.

    "geometry as halves" is what the kernel does: content in the type, each geometry value as a sum of two fp16 values.
    """
    import torch

    from iwcodec.models.network.attention import Extras, topk_attention
    from iwcodec.models.network.geometry import PRIOR_DIMS

    def everything(x: Any, dtype: Any) -> Any:
        return x.to(dtype).float()

    def content(x: Any, dtype: Any) -> Any:
        geometry = x[..., -PRIOR_DIMS:]
        high = geometry.half().float()
        return torch.cat([everything(x[..., :-PRIOR_DIMS], dtype), high + (geometry - high).half().float()], -1)

    case = make_case(network, pictures[:SOURCES], pictures[-1])
    kept = 4 * (network.config.top_k or 8)
    exact = topk_attention(case.queries, case.keys, case.rows, case.extras, kept)
    original, picture = pictures[-1], case.finish(network, exact)
    near = (case.queries @ case.keys.transpose(1, 2)).topk(kept, -1).indices  # the logits that matter
    results: list[dict[str, Any]] = []
    for dtype in (torch.float16, torch.bfloat16):
        for name, rounded in (("everything", everything), ("content, geometry as halves", content)):
            progress("precision", len(results) / 4)
            queries, keys = rounded(case.queries, dtype), rounded(case.keys, dtype)
            extras = Extras(rounded(case.extras.keys, dtype), case.extras.rows)
            attended = topk_attention(queries, keys, case.rows, extras, kept)
            gap = (queries.double() @ keys.double().transpose(1, 2)).gather(-1, near)
            gap = gap - (case.queries.double() @ case.keys.double().transpose(1, 2)).gather(-1, near)
            other = case.finish(network, attended)
            results.append(
                {
                    "rounded": name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "largest_logit_error": round(float(gap.abs().max()), 5),
                    "mean_logit_error": round(float(gap.abs().mean()), 6),
                    "psnr_db": round(psnr(other, original) - psnr(picture, original), 3),
                    "psnr_to_exact_picture_db": round(psnr(other, picture), 2),
                }
            )
    return results
