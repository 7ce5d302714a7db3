"""The spool of fits on disk."""

import errno
import io
import tempfile

import numpy as np
import pytest

from iwcodec.codec.errors import MediaError
from iwcodec.codec.file.fit_cache import FitCache
from iwcodec.codec.motion.types import Fit, Quadratic


def test_it_gives_back_what_it_took_as_often_as_asked():
    rng = np.random.default_rng(0)
    given = [
        Fit(Quadratic(rng.normal(size=6), rng.normal(size=(6, 6))), int(rng.integers(60_000)), n % 3 == 1)
        for n in range(7)
    ]
    with FitCache(iter(given)) as spool:
        for _ in range(2):
            messages = list(spool.messages(3))
            assert [len(message) for message in messages] == [3, 3, 1]
            for (kept, lead, still), (one, runs, lay) in zip((fit for m in messages for fit in m), given, strict=True):
                np.testing.assert_allclose(kept.target, one.target, rtol=1e-6)
                np.testing.assert_allclose(kept.gram, one.gram, rtol=1e-5)
                assert (lead, still) == (runs, lay)


def test_a_full_disk_is_said_with_the_folder(monkeypatch: pytest.MonkeyPatch):
    class Full(io.BytesIO):
        def write(self, *_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", "/somewhere")
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(MediaError, match=r"/somewhere: No space left"):
        FitCache([Fit(Quadratic(np.zeros(6), np.zeros((6, 6))), 0)])
