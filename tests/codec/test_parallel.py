"""The map over two threads: order, bounded work ahead, errors."""

import threading
from collections.abc import Iterator

import cv2
import pytest

from iwcodec.codec.parallel import WORKERS, in_order, one_thread_each


def test_results_come_in_the_order_of_the_items() -> None:
    slow = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            slow.wait(10)
        elif item == 1 or WORKERS == 1:
            slow.set()
        return item * item

    if WORKERS == 1:
        slow.set()
    assert list(in_order(work, range(20))) == [item * item for item in range(20)]


def test_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items())
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 3 + WORKERS + 1
    results.close()
    assert len(taken) <= 3 + WORKERS + 1


def test_an_error_is_raised_where_its_result_is_due() -> None:
    results = in_order(lambda item: 1 / item, [2, 0, 1])
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_opencv_has_its_threads_again_afterwards() -> None:
    before = cv2.getNumThreads()
    with one_thread_each():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == before
