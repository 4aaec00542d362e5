"""Small calls in threads: in order, and few jobs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from store import threads


def test_results_come_in_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[int] = []
    submit = ThreadPoolExecutor.submit
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *args: jobs.append(1) or submit(*args))
    names: set[str] = set()

    def square(item: int) -> int:
        names.add(threading.current_thread().name)
        return item * item

    assert list(threads.in_threads(square, range(1000))) == [i * i for i in range(1000)]
    assert len(jobs) == 16, "a job holds 64 items"
    assert threading.current_thread().name not in names
    assert list(threads.in_threads(square, [])) == []
