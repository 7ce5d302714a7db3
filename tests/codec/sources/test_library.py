import numpy as np

from iwcodec.codec.sources.library import Library, pose_distance
from iwcodec.models.runtime.types import Source


def source(x: float, strength: float = 0.5) -> Source:
    keypoints = np.full((4, 3), x, np.float32)
    keypoints[:, 2] = strength
    return Source(
        np.zeros((8, 8, 3), np.uint8), keypoints, None, np.zeros((4, 21), np.float32), np.zeros((4, 60), np.float32)
    )


def test_pose_distance_counts_places_more_than_strengths():
    still, moved, stronger = source(0).keypoints, source(0.5).keypoints, source(0, 1.0).keypoints
    assert pose_distance(still, still) == 0
    assert pose_distance(still, moved) > pose_distance(still, stronger) > 0
    assert pose_distance(np.stack([still, moved]), still).shape == (2,)


def test_nearest_come_in_order_and_no_more_than_asked():
    library = Library()
    assert library.nearest(source(0).keypoints) == []
    for slot, x in enumerate((0.9, 0.1, -0.5, 0.2)):
        library.add(slot, source(x))
    found = [s.keypoints[0, 0] for s in library.nearest(source(0).keypoints, 3)]
    np.testing.assert_allclose(found, [0.1, 0.2, -0.5], atol=1e-6)


def test_the_source_that_leads_enters_alone_and_the_nearest_stay():
    library = Library(capacity=4)
    for slot, x in enumerate((0.9, 0.1, -0.5, 0.2)):
        library.add(slot, source(x))
    pose = source(0).keypoints
    assert library.entering(pose) == library.entering(pose, reference_source=9) == library.nearest(pose)
    assert library.entering(pose, reference_source=0) == [library.at(0)]
    library.add(4, source(-0.8))
    assert set(library.slots()) == {0, 1, 3, 4}  # what leads and what is nearest


def test_a_full_library_forgets_what_was_not_used():
    library = Library(capacity=2)
    library.add(0, source(0.0))
    library.add(1, source(0.8))
    library.entering(source(0.1).keypoints, reference_source=0)
    library.add(2, source(-0.8))
    assert set(library.slots()) == {1, 2}  # both were among the nearest: the one added first leaves


def test_what_is_only_looked_at_leaves_in_the_order_of_its_coming():
    library = Library(capacity=4)
    for slot in range(4):
        library.add(slot, source(slot / 10))
    library.nearest(source(0.0).keypoints, 1, reference_source=0)
    library.candidates(source(0.0).keypoints)
    library.add(4, source(0.9))
    assert set(library.slots()) == {1, 2, 3, 4}


def test_a_slot_sent_again_replaces_its_source():
    library = Library(capacity=2)
    library.add(0, source(0.0))
    library.add(0, source(0.5))
    assert len(library) == 1
    assert library.nearest(source(0).keypoints)[0].keypoints[0, 0] == 0.5
