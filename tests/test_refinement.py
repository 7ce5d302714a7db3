"""Fitting keypoints: what moved by a known amount is found, what cannot be seen is left to the detector."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from iwcodec.models.runtime import Source
from iwcodec.quality import psnr
from iwcodec.refinement import MEMORY, KeypointFit, live_fit, reference

SIZE, K, SIDE = 256, 20, 64
RNG = np.random.default_rng(0)
TEXTURE = cv2.GaussianBlur(RNG.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8), (0, 0), 5)
TEXTURE = cv2.normalize(TEXTURE, None, 0, 255, cv2.NORM_MINMAX)


def moved(dx: float, dy: float) -> np.ndarray:
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(TEXTURE, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)


def source() -> Source:
    """Keypoints on a grid; every cell moves with the places of those near it, and with no strength."""
    places = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 5), np.linspace(-0.7, 0.7, 4)), -1).reshape(K, 2)
    keypoints = np.concatenate([places, np.full((K, 1), 0.5)], axis=1).astype(np.float32)
    axis = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    cells = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2)
    weights = np.exp(-np.square(cells - places).sum(-1) / 0.1)
    membership = np.concatenate([weights, np.full((SIDE**2, 1), 1e-3)], axis=1)
    membership = (membership / membership.sum(1, keepdims=True)).astype(np.float32)
    basis = np.pad(membership[:, :-1], ((0, 0), (0, 2 * K)))
    return Source(TEXTURE, keypoints, None, membership, basis)


class ShiftingDecoder:
    """Rebuilds by moving its one source as a whole, and gets the amount wrong by an eighth."""

    def __init__(self) -> None:
        self.source = source()

    def nearest(self, keypoints: np.ndarray) -> list[Source]:
        return [self.source]

    def reconstruct(self, keypoints: np.ndarray) -> np.ndarray:
        move = (keypoints - self.source.keypoints)[:, :2].mean(0) * (SIZE / 2) * 0.875
        return moved(float(move[0]), float(move[1]))


@pytest.mark.parametrize("fit", [KeypointFit, live_fit])
def test_a_known_shift_is_found_whatever_the_detector_says(fit: Callable[[], KeypointFit]):
    ref = reference(source())
    found = fit().to_references(moved(9, -5), source().keypoints, [ref])
    move = (found - source().keypoints)[:, :2] * (SIZE / 2)
    assert np.abs(np.median(move, axis=0) - (9, -5)).max() < 0.5
    np.testing.assert_array_equal(found[:, 2], source().keypoints[:, 2])


def test_strengths_are_found_too():
    """Cells that no place moves go to the right with one strength and down with another."""
    still = source()
    strengths = np.zeros((SIDE**2, K, 3), np.float32)  # along, right, down
    strengths[:, 3, 1], strengths[:, 7, 2] = 0.4, 0.4
    basis = strengths.transpose(0, 2, 1).reshape(SIDE**2, 3 * K)
    moving = Source(still.picture, still.keypoints, None, still.membership, basis)
    found = KeypointFit().to_sources(moved(10, -6), still.keypoints, [moving]) - still.keypoints
    assert found[3, 2] == pytest.approx(10 * 2 / SIZE / 0.4, abs=0.01)
    assert found[7, 2] == pytest.approx(-6 * 2 / SIZE / 0.4, abs=0.01)
    assert np.abs(found[:, :2]).max() < 1e-6


def test_live_only_the_nearest_source_counts():
    """The second one shows the same further on, and would pull."""
    near, astray = source(), source()
    wrong = Source(moved(6, 0), astray.keypoints, None, astray.membership, astray.basis)
    both = KeypointFit().to_sources(moved(9, -5), near.keypoints, [near, wrong])
    live = live_fit().to_sources(moved(9, -5), near.keypoints, [near, wrong])
    alone = live_fit().to_sources(moved(9, -5), near.keypoints, [near])
    assert np.abs(live - alone).max() < 1e-6
    assert np.abs(both - alone).max() > 1e-3  # a file hears the second too, a little


def test_a_frame_without_time_keeps_what_the_last_one_needed():
    fit, detected = KeypointFit(), source().keypoints
    assert fit.skip(detected) is detected
    found = fit.to_sources(moved(9, -5), detected, [source()])
    held = fit.skip(detected + np.float32(0.01))
    np.testing.assert_allclose(held[:, :2], detected[:, :2] + 0.01 + MEMORY * (found - detected)[:, :2], atol=1e-5)
    assert np.abs(fit.skip(detected) - detected).max() < np.abs(held - detected).max()


@pytest.mark.parametrize("fit", [KeypointFit, live_fit])
def test_without_sources_or_without_likeness_the_detector_is_believed(fit: Callable[[], KeypointFit]):
    keypoints = source().keypoints
    assert fit().to_references(TEXTURE, keypoints, []) is keypoints
    noise = np.random.default_rng(1).integers(0, 256, TEXTURE.shape).astype(np.uint8)
    found = fit().to_references(noise, keypoints, [reference(source())])
    assert np.abs(found - keypoints).mean() < 0.02


def test_looking_at_what_is_rebuilt_corrects_it():
    picture, decoder = moved(12, 4), ShiftingDecoder()
    found = [KeypointFit(looks).frame(picture, decoder.source.keypoints, decoder) for looks in (0, 3)]  # type: ignore[arg-type]
    blind, looked = (psnr(decoder.reconstruct(keypoints), picture) for keypoints in found)
    assert looked > blind + 1


@pytest.mark.parametrize("looks", [0, 1])
def test_keypoints_stay_in_the_picture(looks: int):
    decoder = ShiftingDecoder()
    found = KeypointFit(looks).frame(moved(60, 60), decoder.source.keypoints, decoder)  # type: ignore[arg-type]
    assert np.abs(found[:, :2]).max() <= 1
    assert found.dtype == np.float32
