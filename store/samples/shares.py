"""Shares that are met closely at any number of rows: Kronecker sequences in place of coin tosses."""

from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from typing import TypeVar

import numpy as np

K = TypeVar("K")
_STEPS = tuple(prime**0.5 for prime in (2, 3, 5, 7, 11, 13))


def share(seed: int, row: int, which: int) -> float:
    """Return a number in [0, 1) that fills the range evenly as `row` grows.

    Args:
        seed: The sample's seed.
        row: Counted from 0.
        which: One of 6 sequences that fill their common space evenly too, 0 to 5.
    """
    return evenly((seed, which), row, _STEPS[which])


def evenly(stream: tuple[int, ...], nth: int, step: float) -> float:
    """Return a number in [0, 1) that fills the range evenly as `nth` grows.

    Args:
        stream: Numbers that the random beginning is drawn from.
        nth: Counted from 0.
        step: An irrational number, such as the root of a prime; of another prime for each thing that is drawn.
    """
    return (_begin(stream) + nth * step) % 1.0


def pick(shares: Mapping[K, float], at: float) -> K:
    """Return the name whose share of the range from 0 to 1 holds `at`."""
    bounds = list(accumulate(shares.values()))
    return list(shares)[int(np.searchsorted(bounds, at * bounds[-1], side="right"))]


@cache
def _begin(stream: tuple[int, ...]) -> float:
    return float(np.random.default_rng(stream).random())
