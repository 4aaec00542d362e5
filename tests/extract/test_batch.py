"""The batch size: found where that pays, halved where it does not fit, fixed where the user says so."""

from collections.abc import Callable

import pytest

from extract.batch import MAX_ROWS, TRIALS, BatchSize


def search(seconds_of: Callable[[int], float], *, start: int = 32, fits: int = 10_000, grows: bool = True) -> list[int]:
    """Return the sizes of the first 60 batches on a device of this speed and memory."""
    size, seen = BatchSize(start, grows=grows), []
    for _ in range(60):
        rows = size.rows
        seen.append(rows)
        if rows > fits:
            size.refuse(rows)
        else:
            size.ran(rows, seconds_of(rows))
    return seen


def gpu(rows: int) -> float:
    """Time grows with the rows only from 256 on."""
    return max(256, rows) / 1000


def test_it_doubles_while_that_is_faster_and_remembers() -> None:
    seen = search(gpu)
    assert seen[: 5 * TRIALS : TRIALS] == [32, 64, 128, 256, 512]
    assert set(seen[5 * TRIALS :]) == {256}, "512 rows were no faster"


def test_it_stays_where_memory_ends() -> None:
    seen = search(gpu, fits=200)
    assert seen[: 4 * TRIALS : TRIALS] == [32, 64, 128, 256]
    assert set(seen[3 * TRIALS + 1 :]) == {128}


def test_it_never_exceeds_a_chunk_of_the_store() -> None:
    assert max(search(lambda _: 1.0)) == MAX_ROWS


@pytest.mark.parametrize("seconds_of", [gpu, lambda rows: rows / 1000])
def test_a_size_that_is_given_stays(seconds_of: Callable[[int], float]) -> None:
    assert set(search(seconds_of, start=48, grows=False)) == {48}
    assert search(seconds_of, start=48, fits=20, grows=False)[:3] == [48, 24, 12]


def test_where_speed_does_not_depend_on_it_the_first_size_stays() -> None:
    seen = search(lambda rows: rows / 28)
    assert set(seen[2 * TRIALS :]) == {32}


def test_batches_of_a_former_size_and_a_slow_first_one_say_nothing() -> None:
    size = BatchSize(32, grows=True)
    for seconds in (9.0, 1.0, 1.0, 1.0):  # the first compiles
        size.ran(32, seconds)
    assert size.rows == 64
    size.ran(32, 0.001)  # was on its way
    for seconds in (9.0, 1.0, 1.0, 1.0):
        size.ran(64, seconds)
    assert size.rows == 128
