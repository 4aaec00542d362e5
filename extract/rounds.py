"""Who embeds what when several processes fill one store: claims, run by run, and rounds until nothing is lacking."""

import time
from collections.abc import Iterator, Sequence

from extract.lane import Lane

MAX_RUN = 1024  # units claimed at once; asking what others have done meanwhile costs milliseconds
MIN_RUN = 8
RUNS_LEFT = 16  # fewer units are claimed at once towards the end, so that processes end together
WAIT_SECONDS = 0.1
PATIENCE_SECONDS = 600.0  # without any news from those who claimed: a suspended process holds nobody up for ever

Unit = Sequence[str]
"""Keys of what is decoded together."""


def rounds(units: Sequence[Unit], lanes: Sequence[Lane]) -> Iterator[Sequence[Unit]]:
    """Yield all units, then, again and again, those that other processes had claimed and have not finished.

    After each round all is written, so that nobody waits for what this process has done.
    """
    heard = time.monotonic()
    while units:
        yield units
        for lane in lanes:
            lane.encode()
        for lane in lanes:
            lane.write()
        left = [unit for unit in units if any(key in lane.missing for key in unit for lane in lanes)]
        if len(left) < len(units):
            heard = time.monotonic()
        elif time.monotonic() - heard > PATIENCE_SECONDS:
            for lane in lanes:
                lane.is_patient = False
        else:
            time.sleep(WAIT_SECONDS)
        units = left


def claimed(units: Sequence[Unit], lanes: Sequence[Lane]) -> Iterator[Unit]:
    """Claim a run of units at a time, and yield those that are this process's to embed, or done by now."""
    start = 0
    while start < len(units):
        run = units[start : start + max(MIN_RUN, min(MAX_RUN, (len(units) - start) // RUNS_LEFT))]
        start += len(run)
        for lane in lanes:
            lane.claim([key for unit in run for key in unit])
        for unit in run:
            mine = [key in lane.claimed for lane in lanes for key in unit if key in lane.missing]
            if any(mine) or not mine:
                yield unit
