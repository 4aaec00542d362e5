"""Processes that fit at the same time; each has its own share of the cores, so that threads never outnumber them."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, ParamSpec, TypeVar

from store import InputError, usable_cores

P = ParamSpec("P")
R = TypeVar("R")

_compute: Callable[..., Any] | None = None
"""What this process computes; set once, when it starts."""


@contextmanager
def worker_processes(compute: Callable[P, R], n_jobs: int) -> Iterator[Callable[P, "Future[R]"]]:
    """Start processes and yield a function that hands work to them; what is not begun is dropped on an error.

    Args:
        compute: Sent to every process once, with all that it holds; a bound method, or a function of a module.
        n_jobs: How many processes; never more than cores.

    Raises:
        InputError: Fewer than one.
    """
    if n_jobs < 1:
        raise InputError(f"--jobs {n_jobs}: use 1 or more")
    context = get_context("spawn")  # a fork would copy locks that threads of BLAS and OpenMP hold
    shares = _shares(n_jobs)
    queue = context.Queue()
    for share in shares:
        queue.put(share)
    pool = ProcessPoolExecutor(len(shares), mp_context=context, initializer=_start, initargs=(compute, queue))
    try:
        yield partial(_submit, pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, *args: Any, **options: Any) -> "Future[Any]":
    """Hand work over; a process that this starts has Ctrl-C blocked from its first instruction on."""
    if not hasattr(signal, "pthread_sigmask"):
        return pool.submit(_work, *args, **options)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process begins with this mask
    try:
        return pool.submit(_work, *args, **options)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shares(n_jobs: int) -> list[list[int]]:
    """Divide the cores of this process among the jobs."""
    cores = usable_cores()
    n_jobs = min(n_jobs, len(cores))
    return [cores[i::n_jobs] for i in range(n_jobs)]


def _start(compute: Callable[..., Any], queue: Any) -> None:
    global _compute
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's business
    share: Sequence[int] = queue.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    threadpool_limits(limits=len(share))
    _compute = compute


def _work(*args: Any, **options: Any) -> Any:
    if _compute is None:
        raise RuntimeError("this process was not started by worker_processes")
    return _compute(*args, **options)
