"""The motion basis before training."""

import torch

from iwcodec.models.network.motion_basis import COMMON_SCALE, strength_cosines


def test_common_basis_starts_as_cosines_of_both_axes() -> None:
    start = strength_cosines(20, 8).unflatten(0, (3, 20)).flatten(2) / COMMON_SCALE
    along, right, down = start
    assert along.abs().max() == 0
    assert not (right.abs().sum(1) * down.abs().sum(1)).any()  # each strength moves cells along one axis
    fields = right[:10]
    gram = fields @ fields.T
    torch.testing.assert_close(gram, gram.diag().diag(), atol=1e-4, rtol=0)
    torch.testing.assert_close(down[10:], fields)
