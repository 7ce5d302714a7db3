"""SVT-AV1's habit of taking real-time priority, undone.

Where it may (as root, so in most containers), SVT-AV1 puts the thread that opens an encoder under SCHED_FIFO with
priority 99. That thread is the caller's: from then on it starves every other process on its core. Linux only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_priority() -> Iterator[None]:
    """The calling thread leaves this block under the scheduling policy it came with."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
