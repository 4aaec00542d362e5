"""Work is done ahead, and not too far."""

import time

from extract import ahead
from extract.ahead import in_order


def test_work_ahead_is_bounded() -> None:
    started: list[int] = []
    results = in_order((i, lambda i=i: started.append(i)) for i in range(5000))
    next(results)
    time.sleep(0.05)
    assert len(started) <= 16 * ahead.MAX_WORKERS
    results.close()
