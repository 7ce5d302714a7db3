"""The library of sources: order by pose, and eviction."""

import numpy as np

from iwcodec.codec.sources.library import Library, pose_distance
from iwcodec.models.runtime.types import Source


def source(x: float, strength: float = 0.5) -> Source:
    keypoints = np.full((4, 3), x, np.float32)
    keypoints[:, 2] = strength
    return Source(
        np.zeros((8, 8, 3), np.uint8), keypoints, None, np.zeros((4, 21), np.float32), np.zeros((4, 60), np.float32)
    )


def test_pose_distance_weights_positions_more_than_strengths() -> None:
    resting, moved, stronger = source(0).keypoints, source(0.5).keypoints, source(0, 1.0).keypoints
    assert pose_distance(resting, resting) == 0
    assert pose_distance(resting, moved) > pose_distance(resting, stronger) > 0
    assert pose_distance(np.stack([resting, moved]), resting).shape == (2,)


def test_nearest_sources_are_ordered_and_limited() -> None:
    library = Library()
    assert library.nearest(source(0).keypoints) == []
    for slot, x in enumerate((0.9, 0.1, -0.5, 0.2)):
        library.add(slot, source(x))
    found = [s.keypoints[0, 0] for s in library.nearest(source(0).keypoints, 3)]
    np.testing.assert_allclose(found, [0.1, 0.2, -0.5], atol=1e-6)


def test_only_the_reference_source_is_attended_and_the_nearest_are_kept() -> None:
    library = Library(capacity=4)
    for slot, x in enumerate((0.9, 0.1, -0.5, 0.2)):
        library.add(slot, source(x))
    pose = source(0).keypoints
    assert library.attended(pose) == library.attended(pose, reference_source=9) == library.nearest(pose)
    assert library.attended(pose, reference_source=0) == [library.at(0)]
    library.add(4, source(-0.8))
    assert set(library.slots()) == {0, 1, 3, 4}  # the reference source and the nearest


def test_a_full_library_drops_the_least_recently_used() -> None:
    library = Library(capacity=2)
    library.add(0, source(0.0))
    library.add(1, source(0.8))
    library.attended(source(0.1).keypoints, reference_source=0)
    library.add(2, source(-0.8))
    assert set(library.slots()) == {1, 2}  # both were among the nearest: the one added first is dropped


def test_queries_do_not_count_as_use() -> None:
    library = Library(capacity=4)
    for slot in range(4):
        library.add(slot, source(slot / 10))
    library.nearest(source(0.0).keypoints, 1, reference_source=0)
    library.candidates(source(0.0).keypoints)
    library.add(4, source(0.9))
    assert set(library.slots()) == {1, 2, 3, 4}


def test_a_slot_in_use_is_replaced() -> None:
    library = Library(capacity=2)
    library.add(0, source(0.0))
    library.add(0, source(0.5))
    assert len(library) == 1
    assert library.nearest(source(0).keypoints)[0].keypoints[0, 0] == 0.5


def with_variant() -> Library:
    """Sources in slots 0 and 2, and a variant of the first in slot 1."""
    library = Library(capacity=3)
    for slot, x in ((0, 0.0), (1, 0.0), (2, 0.8)):
        library.add(slot, source(x), variant=slot == 1)
    return library


def test_variants_are_never_in_attention() -> None:
    library, pose = with_variant(), source(0.1).keypoints
    base, other = library.at(0), library.at(2)
    assert library.at(1) is not None
    assert library.sources() == library.candidates(pose) == library.nearest(pose) == [base, other]
    assert library.attended(pose) == [base, other]
    assert set(library.use(pose)) == {0, 2}


def test_a_variant_is_no_reference_source() -> None:
    library, pose = with_variant(), source(0.7).keypoints
    assert library.nearest(pose, reference_source=1) == library.nearest(pose) == [library.at(2), library.at(0)]
    assert library.attended(pose, reference_source=1) == library.attended(pose)


def test_variants_take_slots_and_are_evicted_like_others() -> None:
    library = with_variant()
    assert len(library) == 3
    assert set(library.slots()) == {0, 1, 2}
    assert library.slot(library.at(1)) == 1
    library.use(source(0.0).keypoints)
    library.add(3, source(-0.8))
    assert set(library.slots()) == {0, 2, 3}  # a frame used the others
    library.add(1, source(0.3))
    assert library.nearest(source(0.3).keypoints, 1) == [library.at(1)]  # the slot is no variant's any more


def test_a_slot_changes_between_source_and_variant() -> None:
    library, pose = with_variant(), source(0.0).keypoints
    library.add(1, source(0.0))
    assert len(library.sources()) == 3
    library.add(0, source(0.0), variant=True)
    assert library.nearest(pose) == [library.at(1), library.at(2)]
    alone = Library()
    alone.add(0, source(0.0), variant=True)
    assert alone.nearest(pose) == alone.attended(pose, reference_source=0) == alone.candidates(pose) == []
