"""A map over items that uses two cores. The libraries that do the work let go of the interpreter's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import cv2

WORKERS = min(2, os.cpu_count() or 1)
"""Threads: more gain little, since half of the work holds the lock."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of a function, in the order of the items, of which WORKERS + 1 are taken ahead.

    The first exception is raised where its result is due; then, and when the iterator is closed, nothing further is
    started.
    """
    coming = iter(items)
    with ThreadPoolExecutor(WORKERS) as pool:
        running: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(coming, WORKERS + 1))
        try:
            while running:
                result = running.popleft().result()
                running.extend(pool.submit(function, item) for item in islice(coming, 1))
                yield result
        finally:
            for future in running:
                future.cancel()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep OpenCV from using threads of its own beside those of `in_order`."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
