"""The cache of fits on disk."""

import errno
import io
import tempfile

import numpy as np
import pytest

from iwcodec.codec.errors import MediaError
from iwcodec.codec.file.fit_cache import FitCache
from iwcodec.codec.motion.types import Fit, Quadratic


def test_fits_can_be_read_repeatedly() -> None:
    rng = np.random.default_rng(0)
    stored = [
        Fit(Quadratic(rng.normal(size=6), rng.normal(size=(6, 6))), int(rng.integers(60_000)), n % 3 == 1)
        for n in range(7)
    ]
    with FitCache(iter(stored)) as cache:
        for _ in range(2):
            messages = list(cache.messages(3))
            assert [len(message) for message in messages] == [3, 3, 1]
            read = [fit for message in messages for fit in message]
            for (frame, reference_source, skip), expected in zip(read, stored, strict=True):
                np.testing.assert_allclose(frame.target, expected.frame.target, rtol=1e-6)
                np.testing.assert_allclose(frame.gram, expected.frame.gram, rtol=1e-5)
                assert (reference_source, skip) == expected[1:]


def test_the_error_of_a_full_disk_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(io.BytesIO):
        def write(self, *_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", "/somewhere")
    monkeypatch.setattr(tempfile, "TemporaryFile", FullDisk)
    with pytest.raises(MediaError, match=r"/somewhere: No space left"):
        FitCache([Fit(Quadratic(np.zeros(6), np.zeros((6, 6))), 0)])
