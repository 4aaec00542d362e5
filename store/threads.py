"""How many cores there are for this process, and many small calls in threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

PER_JOB = 64  # a job for each item would cost more memory than a row does

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may use; fewer than the machine's under SLURM or taskset."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def in_threads(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield the results in the order of `items`; for calls that wait, or release Python's lock."""

    def run(start: int) -> list[R]:
        return [function(item) for item in items[start : start + PER_JOB]]

    with ThreadPoolExecutor() as pool:
        yield from chain.from_iterable(pool.map(run, range(0, len(items), PER_JOB)))
