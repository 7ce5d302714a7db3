"""Fitting keypoints: what moved by a known amount is found, what cannot be seen is left to the detector."""

import weakref
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from iwcodec.codec.fit.alignment import reference, small_grey, softened, unknowns, warped
from iwcodec.codec.fit.keypoint_fit import MEMORY, KeypointFit, live_fit
from iwcodec.codec.media.quality import psnr
from iwcodec.models.runtime.types import Source

SIZE, K, SIDE = 256, 20, 32
RNG = np.random.default_rng(0)
TEXTURE = cv2.GaussianBlur(RNG.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8), (0, 0), 5)
TEXTURE = cv2.normalize(TEXTURE, None, 0, 255, cv2.NORM_MINMAX)


def moved(dx: float, dy: float) -> np.ndarray:
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(TEXTURE, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)


def source(picture: np.ndarray = TEXTURE) -> Source:
    """Keypoints on a grid; every cell moves with the places of those near it, and with no strength."""
    places = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 5), np.linspace(-0.7, 0.7, 4)), -1).reshape(K, 2)
    keypoints = np.concatenate([places, np.full((K, 1), 0.5)], axis=1).astype(np.float32)
    axis = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    cells = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2)
    weights = np.exp(-np.square(cells - places).sum(-1) / 0.1)
    membership = np.concatenate([weights, np.full((SIDE**2, 1), 1e-3)], axis=1)
    membership = (membership / membership.sum(1, keepdims=True)).astype(np.float32)
    basis = np.pad(membership[:, :-1], ((0, 0), (0, 2 * K)))
    return Source(picture, keypoints, None, membership, basis)


def shifted_as_a_whole(keypoints: np.ndarray, of: Source) -> np.ndarray:
    """What a receiver makes that gets the amount wrong by an eighth."""
    move = (keypoints - of.keypoints)[:, :2].mean(0) * (SIZE / 2) * 0.875
    return moved(float(move[0]), float(move[1]))


@pytest.mark.parametrize("fit", [KeypointFit, live_fit])
def test_a_known_shift_is_found_whatever_the_detector_says(fit: Callable[[], KeypointFit]):
    found = fit().frame(moved(9, -5), source().keypoints, [source()])
    move = (found.keypoints - source().keypoints)[:, :2] * (SIZE / 2)
    assert np.abs(np.median(move, axis=0) - (9, -5)).max() < 0.5
    np.testing.assert_allclose(found.keypoints[:, 2], source().keypoints[:, 2], atol=1e-5)


def test_sources_that_are_gone_are_not_kept():
    fit = live_fit()
    gone = weakref.ref(source())
    for n in range(4):
        of = source(moved(n, 0))
        gone, last = weakref.ref(of), gone
        fit.frame(moved(3, 0), of.keypoints, [of])
        del of
        assert last() is None
    fit.frame(TEXTURE, source().keypoints, [source()])
    assert gone() is None


def test_alignment_finds_what_flow_leaves_over():
    picture, of = moved(9.4, -5.3), source()
    by_flow, aligned = (KeypointFit(steps=steps).frame(picture, of.keypoints, [of]) for steps in ((), (2.5, 1.2, 0.7)))
    assert aligned.error < by_flow.error


def test_strengths_are_found_too():
    """Cells that no place moves go to the right with one strength and down with another."""
    still = source()
    strengths = np.zeros((SIDE**2, K, 3), np.float32)  # along, right, down
    strengths[:, 3, 1], strengths[:, 7, 2] = 0.4, 0.4
    basis = strengths.transpose(0, 2, 1).reshape(SIDE**2, 3 * K)
    moving = Source(still.picture, still.keypoints, None, still.membership, basis)
    found = KeypointFit().frame(moved(10, -6), still.keypoints, [moving]).keypoints - still.keypoints
    assert found[3, 2] == pytest.approx(10 * 2 / SIZE / 0.4, abs=0.01)
    assert found[7, 2] == pytest.approx(-6 * 2 / SIZE / 0.4, abs=0.01)
    assert np.abs(found[:, :2]).max() < 1e-6


def test_the_source_leads_that_is_left_with_the_least_error():
    """The far one shows what the near one does not."""
    near, far = source(moved(3, 0)[:, ::-1].copy()), source()
    found = KeypointFit().frame(moved(9, -5), near.keypoints, [near, far])
    assert found.source is far
    assert found.error < KeypointFit().frame(moved(9, -5), near.keypoints, [near]).error


def test_a_source_that_leads_goes_on_where_another_is_hardly_better():
    first, second = source(), source(moved(2, 0))
    fit = KeypointFit()
    assert fit.frame(moved(0.2, 0), first.keypoints, [first, second]).source is first
    assert fit.frame(moved(1.0, 0), first.keypoints, [second, first]).source is first


def test_a_frame_without_time_keeps_what_the_last_one_needed():
    fit, detected, of = KeypointFit(), source().keypoints, source()
    assert fit.skip(detected).keypoints is detected
    found = fit.frame(moved(9, -5), detected, [of]).keypoints
    skipped = fit.skip(detected + np.float32(0.01))
    held = skipped.keypoints
    assert skipped.source is of
    np.testing.assert_allclose(held[:, :2], detected[:, :2] + 0.01 + MEMORY * (found - detected)[:, :2], atol=1e-5)
    assert np.abs(fit.skip(detected).keypoints - detected).max() < np.abs(held - detected).max()


def test_without_sources_the_detector_is_believed():
    found = KeypointFit().frame(TEXTURE, source().keypoints, [])
    np.testing.assert_array_equal(found.keypoints, source().keypoints)
    assert (found.source, found.gram) == (None, None)


@pytest.mark.parametrize("fit", [KeypointFit, live_fit])
def test_without_likeness_nothing_is_made_up(fit: Callable[[], KeypointFit]):
    noise = np.random.default_rng(1).integers(0, 256, TEXTURE.shape).astype(np.uint8)
    found = fit().frame(noise, source().keypoints, [source()])
    assert np.abs(found.keypoints - source().keypoints).mean() < 0.03


def test_what_errors_of_the_keypoints_cost_is_known():
    """The quadratic form says how much worse the warped source becomes, as a share of what is left."""
    picture, of = moved(9, -5), source()
    best = KeypointFit().frame(picture, of.keypoints, [of])
    assert best.gram is not None
    gram = best.gram()
    assert np.linalg.eigvalsh(gram).min() > 0
    off = np.repeat([0.02, 0, 0], K)  # all to the right
    grey = softened(small_grey(picture))[0.7]
    worse = warped(reference(of), unknowns(best.keypoints) + off).error(grey) / best.error - 1
    assert off @ gram @ off == pytest.approx(worse, rel=0.5)
    assert worse > 0.1


def test_looking_at_what_is_rebuilt_corrects_it():
    picture, of = moved(12, 4), source()
    found = [KeypointFit(looks).frame(picture, of.keypoints, [of], shifted_as_a_whole).keypoints for looks in (0, 3)]
    blind, looked = (psnr(shifted_as_a_whole(keypoints, of), picture) for keypoints in found)
    assert looked > blind + 1


@pytest.mark.parametrize("looks", [0, 1])
def test_keypoints_stay_in_the_picture(looks: int):
    found = KeypointFit(looks).frame(moved(60, 60), source().keypoints, [source()], shifted_as_a_whole).keypoints
    assert np.abs(found[:, :2]).max() <= 1
    assert found.dtype == np.float32


def test_the_source_that_leads_is_tried_though_others_are_nearer():
    """Where as many candidates are nearer in pose, it goes on leading while it does as well."""
    reference_source, others = source(), [source(moved(40, 40)) for _ in range(3)]
    fit = KeypointFit(candidates=1)
    assert fit.frame(moved(3, 0), reference_source.keypoints, [reference_source, *others]).source is reference_source
    for shift in range(4, 16):
        assert (
            fit.frame(moved(shift, 0), reference_source.keypoints, [*others, reference_source]).source
            is reference_source
        )
