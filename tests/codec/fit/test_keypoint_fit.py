"""Keypoint fit: known motion is found, and without visible motion the detected keypoints are kept."""

import weakref
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from iwcodec.codec.fit.alignment import (
    alignment_equations,
    as_keypoints,
    blur_levels,
    reference,
    small_grey,
    unknowns,
    warped,
)
from iwcodec.codec.fit.keypoint_fit import CORRECTION_DECAY, LIVE_SHEAR, KeypointFit, live_fit
from iwcodec.codec.media.quality import psnr
from iwcodec.models.runtime.types import Source
from support.codec.textured_source import SIDE, SIZE, TEXTURE, K, moved, textured_source


def shifted_as_a_whole(keypoints: np.ndarray, of: Source) -> np.ndarray:
    """A receiver that renders 7/8 of every shift."""
    move = (keypoints - of.keypoints)[:, :2].mean(0) * (SIZE / 2) * 0.875
    return moved(float(move[0]), float(move[1]))


@pytest.mark.parametrize("fit", [KeypointFit, live_fit])
def test_a_known_shift_is_found(fit: Callable[[], KeypointFit]) -> None:
    found = fit().frame(moved(9, -5), textured_source().keypoints, [textured_source()])
    move = (found.keypoints - textured_source().keypoints)[:, :2] * (SIZE / 2)
    assert np.abs(np.median(move, axis=0) - (9, -5)).max() < 0.5
    np.testing.assert_allclose(found.keypoints[:, 2], textured_source().keypoints[:, 2], atol=1e-5)


def test_dropped_sources_are_released() -> None:
    fit = live_fit()
    gone = weakref.ref(textured_source())
    for n in range(4):
        of = textured_source(moved(n, 0))
        gone, last = weakref.ref(of), gone
        fit.frame(moved(3, 0), of.keypoints, [of])
        del of
        assert last() is None
    fit.frame(TEXTURE, textured_source().keypoints, [textured_source()])
    assert gone() is None


def test_alignment_lowers_the_error_left_by_flow() -> None:
    picture, of = moved(9.4, -5.3), textured_source()
    by_flow, aligned = (KeypointFit(steps=steps).frame(picture, of.keypoints, [of]) for steps in ((), (2.5, 1.2, 0.7)))
    assert aligned.error < by_flow.error


def test_strengths_are_fitted() -> None:
    """One strength moves all cells to the right, another moves them down, and positions move none."""
    still = textured_source()
    strengths = np.zeros((SIDE**2, K, 3), np.float32)  # along, right, down
    strengths[:, 3, 1], strengths[:, 7, 2] = 0.4, 0.4
    basis = strengths.transpose(0, 2, 1).reshape(SIDE**2, 3 * K)
    moving = Source(still.picture, still.keypoints, None, still.membership, basis)
    found = KeypointFit().frame(moved(10, -6), still.keypoints, [moving]).keypoints - still.keypoints
    assert found[3, 2] == pytest.approx(10 * 2 / SIZE / 0.4, abs=0.01)
    assert found[7, 2] == pytest.approx(-6 * 2 / SIZE / 0.4, abs=0.01)
    assert np.abs(found[:, :2]).max() < 1e-6


def test_live_fits_leave_faces_whole() -> None:
    """A source that is stretched a lot."""
    axis = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    still = textured_source()
    basis = np.zeros((SIDE**2, 3 * K), np.float32)
    basis[:, 0], basis[:, 1] = np.tile(axis, SIDE), np.repeat(axis, SIDE)
    wide = Source(still.picture, still.keypoints, None, still.membership, basis)
    stretch = np.array([[1.4, 0, -0.2 * SIZE], [0, 1, 0]])
    picture = cv2.warpAffine(still.picture, stretch, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
    free, whole = (fit().frame(picture, still.keypoints, [wide]) for fit in (KeypointFit, live_fit))
    shears = [reference(wide).shear(unknowns(fitted.keypoints)) for fitted in (free, whole)]
    assert shears[0] > 0.15
    assert 0.05 < shears[1] <= LIVE_SHEAR + 1e-6


def test_the_source_with_the_least_error_is_the_reference_source() -> None:
    """Here it is the one farther in pose."""
    near, far = textured_source(moved(3, 0)[:, ::-1].copy()), textured_source()
    found = KeypointFit().frame(moved(9, -5), near.keypoints, [near, far])
    assert found.source is far
    assert found.error < KeypointFit().frame(moved(9, -5), near.keypoints, [near]).error


def test_the_reference_source_stays_if_another_is_hardly_better() -> None:
    first, second = textured_source(), textured_source(moved(2, 0))
    fit = KeypointFit()
    assert fit.frame(moved(0.2, 0), first.keypoints, [first, second]).source is first
    assert fit.frame(moved(1.0, 0), first.keypoints, [second, first]).source is first


def test_a_frame_without_fit_gets_the_decayed_correction() -> None:
    fit, detected, of = KeypointFit(), textured_source().keypoints, textured_source()
    assert fit.predict(detected).keypoints is detected
    found = fit.frame(moved(9, -5), detected, [of]).keypoints
    skipped = fit.predict(detected + np.float32(0.01))
    held = skipped.keypoints
    assert skipped.source is of
    np.testing.assert_allclose(
        held[:, :2], detected[:, :2] + 0.01 + CORRECTION_DECAY * (found - detected)[:, :2], atol=1e-5
    )
    assert np.abs(fit.predict(detected).keypoints - detected).max() < np.abs(held - detected).max()


def test_without_sources_the_detected_keypoints_are_returned() -> None:
    found = KeypointFit().frame(TEXTURE, textured_source().keypoints, [])
    np.testing.assert_array_equal(found.keypoints, textured_source().keypoints)
    assert (found.source, found.gram) == (None, None)


@pytest.mark.parametrize("fit", [KeypointFit, live_fit])
def test_an_unrelated_picture_changes_the_keypoints_little(fit: Callable[[], KeypointFit]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, TEXTURE.shape).astype(np.uint8)
    found = fit().frame(noise, textured_source().keypoints, [textured_source()])
    assert np.abs(found.keypoints - textured_source().keypoints).mean() < 0.03


def test_the_gram_matrix_predicts_the_error_of_a_change() -> None:
    """As a fraction of the remaining error."""
    picture, of = moved(9, -5), textured_source()
    best = KeypointFit().frame(picture, of.keypoints, [of])
    gram = best.gram()
    assert np.linalg.eigvalsh(gram).min() > 0
    off = np.repeat([0.02, 0, 0], K)  # all keypoints to the right
    grey = blur_levels(small_grey(picture))[0.7]
    worse = warped(reference(of), unknowns(best.keypoints) + off).error(grey) / best.error - 1
    assert off @ gram @ off == pytest.approx(worse, rel=0.5)
    assert worse > 0.1


def test_synthesis_iterations_raise_the_psnr() -> None:
    picture, of = moved(12, 4), textured_source()
    found = [
        KeypointFit(iterations).frame(picture, of.keypoints, [of], shifted_as_a_whole).keypoints
        for iterations in (0, 3)
    ]
    without, with_synthesis = (psnr(shifted_as_a_whole(keypoints, of), picture) for keypoints in found)
    assert with_synthesis > without + 1


def test_a_synthesis_iteration_is_an_alignment_step_from_the_fit() -> None:
    """Its penalty on displacements starts at the fitted keypoints, not where the fit started."""
    picture, of = moved(12, 4), textured_source()
    fits = [KeypointFit(iterations) for iterations in (0, 1)]
    fitted, corrected = (fit.frame(picture, of.keypoints, [of], shifted_as_a_whole).keypoints for fit in fits)
    ref, values = reference(of), unknowns(fitted)
    grey, rebuilt = (blur_levels(small_grey(shown))[0.7] for shown in (picture, shifted_as_a_whole(fitted, of)))
    view = replace(warped(ref, values), grey=rebuilt)
    step = alignment_equations(ref, view, grey, np.zeros_like(values))
    expected = as_keypoints(values + np.linalg.solve(step.gram, step.right))
    np.testing.assert_allclose(corrected, expected, atol=1e-6)
    assert np.abs(corrected - fitted).max() > 1e-3


@pytest.mark.parametrize("iterations", [0, 1])
def test_keypoints_are_clipped_to_the_picture(iterations: int) -> None:
    found = (
        KeypointFit(iterations)
        .frame(moved(60, 60), textured_source().keypoints, [textured_source()], shifted_as_a_whole)
        .keypoints
    )
    assert np.abs(found[:, :2]).max() <= 1
    assert found.dtype == np.float32


def test_the_reference_source_is_fitted_even_if_others_are_nearer() -> None:
    """It is fitted in addition to the nearest candidates, and stays while it is as good."""
    reference_source, others = textured_source(), [textured_source(moved(40, 40)) for _ in range(3)]
    fit = KeypointFit(candidates=1)
    assert fit.frame(moved(3, 0), reference_source.keypoints, [reference_source, *others]).source is reference_source
    for shift in range(4, 16):
        assert (
            fit.frame(moved(shift, 0), reference_source.keypoints, [*others, reference_source]).source
            is reference_source
        )
