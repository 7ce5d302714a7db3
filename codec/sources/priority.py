"""Protection against SVT-AV1's change of the calling thread's priority.

If permitted (as root, hence in most containers), SVT-AV1 gives the thread that opens an encoder the scheduling policy
SCHED_FIFO with priority 99. That is the caller's thread, which from then on starves other processes on its core. Linux
only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_priority() -> Iterator[None]:
    """Restore the calling thread's scheduling policy on exit."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
