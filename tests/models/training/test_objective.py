"""Parts of the training objective."""

import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.training.objective import (
    DROPOUT_RADIUS,
    DROPOUT_RATE,
    best_source_first,
    quantisation_noise,
    random_crop,
    semantic_dropout,
)
from support.models.training_stages import one_batch


def test_random_crop_is_the_same_for_all_pictures() -> None:
    pictures = torch.arange(64.0).view(1, 1, 8, 8)
    a, b = random_crop(3, pictures, pictures + 100)
    assert a.shape == (1, 1, 3, 3)
    torch.testing.assert_close(a + 100, b)
    assert random_crop(0, pictures)[0] is pictures


def test_semantic_dropout_hides_a_region_in_every_source_of_a_few_samples() -> None:
    torch.manual_seed(1)
    keypoints = torch.rand(200, 2, 5, 3) * 2 - 1
    hidden = semantic_dropout(keypoints, 16)
    assert hidden.shape == (200, 2, 256)
    per_source = hidden.float().mean(-1)
    assert ((per_source > 0).all(1) == (per_source > 0).any(1)).all()
    assert 0.5 * DROPOUT_RATE < (per_source > 0).any(1).float().mean() < 2 * DROPOUT_RATE
    assert per_source.max() <= 3.2 * DROPOUT_RADIUS**2 / 4 + 0.02  # at most the area of the circle


def test_source_with_the_least_flow_error_comes_first() -> None:
    batch = one_batch()
    batch["error"][:, :, 0] = 9.0
    batch["shift"][:, :, 1] = 0.25
    order, shift, error = best_source_first(batch)
    assert order.tolist() == [[1, 0]] * 4
    assert (shift[:, 0] == 0.25).all()
    assert (error[:, 0] == 3.0).all()
    assert (error[:, 1] == 9.0).all()


def test_quantisation_noise_is_larger_for_strengths() -> None:
    noise = quantisation_noise(torch.zeros(100, 20, 3), 0.01).abs()
    assert 0.0099 < noise[..., :2].max() <= 0.01
    assert 0.039 < noise[..., 2].max() <= 0.04
