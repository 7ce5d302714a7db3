"""Nearest plane: sequential quantisation with compensation has exactly the error of the quadratic form."""

import numpy as np
import pytest

from iwcodec.codec.motion.nearest_plane import nearest_plane_factor

RNG = np.random.default_rng(0)
N = 12


def gram() -> np.ndarray:
    rows = RNG.normal(size=(50, N)) * np.geomspace(0.3, 3, N)
    return rows.T @ rows


@pytest.mark.parametrize("order", [None, np.roll(np.arange(N), 5)])
def test_the_squared_misses_sum_to_the_quadratic_error(order: np.ndarray | None) -> None:
    form, target = gram(), RNG.normal(size=N)
    factor = nearest_plane_factor(form, order)
    np.testing.assert_allclose(factor, np.triu(factor), atol=1e-12)
    indices = np.arange(N) if order is None else order
    shifted, values, cost = target[indices].copy(), np.zeros(N), 0.0
    for i in range(N):
        values[i] = np.rint(shifted[i])
        miss = (shifted[i] - values[i]) / factor[i, i]
        shifted[i + 1 :] -= miss * factor[i, i + 1 :]
        cost += miss**2
    off = values - target[indices]
    assert cost == pytest.approx(off @ form[np.ix_(indices, indices)] @ off, rel=1e-2)


def test_a_singular_form_is_factored() -> None:
    assert np.isfinite(nearest_plane_factor(np.diag([1.0, 0.0]))).all()
