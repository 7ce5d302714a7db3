"""The public API: every name can be imported, and the example of the package's docstring runs."""

import doctest
import itertools

import numpy as np
import pytest

import iwcodec
from iwcodec.codec.media.video import read_video, sample_clip


@pytest.mark.parametrize("name", iwcodec.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(iwcodec, name).__name__ == name


def test_unknown_names_raise_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = iwcodec.nonsense


def test_the_docstring_example_runs() -> None:
    """On four frames of the bundled clip, cropped to the network's size."""
    frames = itertools.islice(read_video(sample_clip()), 4)
    pictures = [np.ascontiguousarray(frame.picture[:256, 180:436]) for frame in frames]
    assert iwcodec.__doc__ is not None
    globs = {"iwcodec": iwcodec, "pictures": pictures}
    example = doctest.DocTestParser().get_doctest(iwcodec.__doc__, globs, "iwcodec", None, None)
    assert len(example.examples) == 7
    assert doctest.DocTestRunner().run(example).failed == 0
