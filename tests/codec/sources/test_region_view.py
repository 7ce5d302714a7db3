"""Regions of frames and sources, as they would look in one source."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from iwcodec.codec.sources import region_view
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.region_signature import SIGNATURE_SIZE, Signature, signature_errors
from iwcodec.codec.sources.region_view import MIN_GAIN, Looks, RegionView, errors_by_source, looks
from iwcodec.codec.sources.regions import EYES, MOUTH, REGIONS, Compositor, region_box, region_mask
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Source
from support.codec.face_landmarks import face
from support.codec.stub_runtime import StubRuntime
from support.codec.textured_source import SIZE, moved, textured_source

HOME = textured_source()


def view_of(home: Source = HOME) -> RegionView:
    return RegionView(home, Compositor(StubRuntime()))


def shifted(dx: float, dy: float) -> np.ndarray:
    """Keypoints that move the whole picture by pixels."""
    return HOME.keypoints + np.array([dx, dy, 0], np.float32) * (2 / SIZE)


def looks_of(view: RegionView, frame: np.ndarray, keypoints: np.ndarray, source: Source) -> Looks:
    return looks(frame, view.in_frame(keypoints, source))


def errors_of(view: RegionView, frame: np.ndarray, source: Source, library: Library) -> list[dict[int | None, float]]:
    of_frame = looks_of(view, frame, HOME.keypoints, source)
    return errors_by_source(of_frame, view.of_library(library), library.slot(source))


def rms(a: Signature, b: Signature) -> float:
    return float(np.sqrt(signature_errors(a[None], b[None]))[0, 0])


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (8, -4), (-5, 11)])
def test_a_moved_frame_looks_like_the_home(dx: int, dy: int) -> None:
    """Seen without the motion, it does not."""
    view, frame = view_of(), moved(dx, dy)
    own = view.of_source(HOME)
    for region, found in enumerate(looks_of(view, frame, shifted(dx, dy), HOME)):
        assert found.shape == (SIGNATURE_SIZE + 2,)
        assert rms(found, own[region]) < 5
    if dx:
        assert all(rms(a, b) > 15 for a, b in zip(looks_of(view, frame, shifted(0, 0), HOME), own, strict=True))


def test_a_frame_of_another_reference_source_looks_like_the_home() -> None:
    """It moves from the home to that source, and on to the frame."""
    view = view_of()
    other = replace(textured_source(moved(8, -4)), keypoints=shifted(8, -4))
    assert all(
        rms(a, b) < 8
        for a, b in zip(looks_of(view, moved(13, 2), shifted(13, 2), other), view.of_source(HOME), strict=True)
    )


def test_a_whole_frame_is_brought_into_the_home() -> None:
    whole = view_of().whole(moved(8, -4), shifted(8, -4), HOME)
    assert (whole.dtype, whole.shape) == (np.uint8, HOME.picture.shape)
    inner = slice(24, -24)
    assert np.abs(whole[inner, inner].astype(int) - HOME.picture[inner, inner]).mean() < 4


def test_sources_are_looked_at_in_their_own_pose() -> None:
    view = view_of()
    other = replace(textured_source(moved(8, -4)), keypoints=shifted(8, -4))
    for a, b in zip(view.of_source(other), view.of_source(HOME), strict=True):
        assert rms(a, b) < 5
    assert view.of_source(other)[0] is view.of_source(other)[0]  # computed once


def test_a_variant_differs_in_its_region() -> None:
    view, picture = view_of(), HOME.picture.copy()
    box = region_box(HOME.keypoints, MOUTH, SIZE)
    cv2.circle(picture, (round(box.centre[0]), round(box.centre[1])), round(box.height / 4), (255, 255, 255), -1)
    variant, own = view.of_source(replace(HOME, picture=picture)), view.of_source(HOME)
    assert rms(variant[MOUTH], own[MOUTH]) > 20
    assert rms(variant[EYES], own[EYES]) < rms(variant[MOUTH], own[MOUTH]) / 2


def test_sources_that_left_the_library_are_forgotten() -> None:
    view, library = view_of(), Library(capacity=2)
    for slot in range(5):
        library.add(slot, textured_source())
        found = view.of_library(library)
        assert [set(of_region) for of_region in found] == [set(library.slots())] * len(REGIONS)
        assert len(view._of_sources) <= 2


def test_a_variant_is_looked_at_too() -> None:
    """Slots, not the sources in attention."""
    library = Library()
    library.add(0, HOME)
    library.add(7, replace(HOME, picture=HOME.picture[::-1].copy()), variant=True)
    assert [set(of_region) for of_region in view_of().of_library(library)] == [{0, 7}] * len(REGIONS)


def with_region(level: int, region: int) -> np.ndarray:
    """The home's picture with a region in one grey."""
    mask = region_mask(HOME.keypoints, region, SIZE, pixel_grid(SIZE)) > 0
    return np.where(mask[..., None], np.uint8(level), HOME.picture)


def library_of(*pictures: np.ndarray) -> Library:
    """The home in slot 0, and variants of it with these pictures."""
    library = Library()
    library.add(0, HOME)
    for slot, picture in enumerate(pictures, 1):
        library.add(slot, replace(HOME, picture=picture), variant=True)
    return library


def test_each_region_shows_the_source_that_looks_most_like_it() -> None:
    """Their reference source by no name, whichever it is."""
    view, eyes, mouth = view_of(), with_region(0, EYES), with_region(255, MOUTH)
    library = library_of(eyes, mouth)
    both = np.where((eyes != HOME.picture).any(-1)[..., None], eyes, mouth)
    assert view.choose(both, HOME.keypoints, HOME, library) == (1, 2)
    assert view.choose(eyes, HOME.keypoints, HOME, library)[EYES] == 1
    assert view.choose(HOME.picture, HOME.keypoints, HOME, library) == (None, None)
    other = library.at(1)
    assert other is not None
    assert view.choose(both, HOME.keypoints, other, library) == (None, 2)


def test_the_reference_source_needs_no_name_and_is_preferred() -> None:
    view, library = view_of(), library_of(with_region(200, EYES))
    other = library.at(1)
    half = ((HOME.picture.astype(int) + other.picture) // 2).astype(np.uint8)
    of_home, of_other = (errors_of(view, half, source, library)[EYES] for source in (HOME, other))
    assert of_home[None] == pytest.approx(of_other[0] * (1 - MIN_GAIN))
    assert of_other[None] == pytest.approx(of_home[1] * (1 - MIN_GAIN))


def test_errors_name_the_reference_source_by_none() -> None:
    view, library = view_of(), library_of(with_region(0, EYES), with_region(255, MOUTH))
    eyes, mouth = errors_of(view, HOME.picture, HOME, library)
    assert set(eyes) == set(mouth) == {None, 1, 2}
    assert eyes[None] == pytest.approx(0)
    assert eyes[1] > mouth[1]
    assert mouth[2] > eyes[2]


def test_without_the_reference_source_and_without_any_something_is_chosen() -> None:
    """It was evicted, or the library is empty."""
    view, library = view_of(), Library()
    assert view.choose(HOME.picture, HOME.keypoints, HOME, library) == (None, None)
    library.add(5, replace(HOME, picture=with_region(0, EYES)))
    assert view.choose(HOME.picture, HOME.keypoints, HOME, library) == (5, 5)


def test_what_a_face_does_is_compared_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_view, "crop_landmarks", lambda crop: face(mouth=float(crop.mean())))
    bright = replace(HOME, picture=HOME.picture + np.uint8(9))
    plain, expressive = (RegionView(HOME, Compositor(StubRuntime()), expressive) for expressive in (False, True))
    assert rms(plain.of_source(HOME)[MOUTH], plain.of_source(bright)[MOUTH]) < 9
    assert rms(expressive.of_source(HOME)[MOUTH], expressive.of_source(bright)[MOUTH]) > 15
    assert rms(expressive.of_source(HOME)[EYES], expressive.of_source(bright)[EYES]) < 9
