"""Passes of the kernel's selection loop."""

import torch

from iwcodec.benchmarks.performance.attention import kernel


def test_selection_passes_are_counted_as_the_kernel_makes_them() -> None:
    # 64 queries, two sources of one tile each. Scores rise with the key's index, so every key of the second tile
    # beats those of the first, and the list of 5 best is filled twice.
    queries, keys = torch.ones(64, 1), torch.arange(128.0)[:, None]
    assert kernel.selection_turns(queries, keys, 5) == {"turns_per_tile": 5.0, "tiles_skipped": 0.0}
    assert kernel.selection_turns(queries, keys.flip(0), 5) == {"turns_per_tile": 2.5, "tiles_skipped": 0.5}
