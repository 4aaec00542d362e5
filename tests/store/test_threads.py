"""Small calls in threads: in order, and few jobs."""

import os
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


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2}, raising=False)
    assert threads.usable_cores() == [2, 5]
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert threads.usable_cores() == [0, 1, 2]
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.usable_cores() == [0]
