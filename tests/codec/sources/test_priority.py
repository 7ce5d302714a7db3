"""Opening SVT-AV1 must not give the calling thread real-time priority."""

import os

import numpy as np
import pytest

from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.priority import kept_priority

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs Linux scheduling policies")


def test_an_encoder_keeps_the_scheduling_policy() -> None:
    SourceEncoder(64).add(np.zeros((64, 64, 3), np.uint8))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_the_policy_is_restored_after_an_error() -> None:
    def fails() -> None:
        with kept_priority():
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fails()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
