"""How many rows one forward pass takes."""

TRIALS = 4  # full batches of one size; the first warms up
GAIN = 1.05  # a doubling that gains less than 5 % is not worth its memory
MAX_ROWS = 1024  # one chunk of the store


class BatchSize:
    """Rows per batch: as given; halved where memory runs out; and found by doubling where that pays.

    It pays on a GPU, which small batches leave idle. On a CPU it does not: with OpenVINO convnext_tiny embeds 26 to 29
    images/s on two cores for any batch from 1 to 32, because a batch is divided into small parts that fill the cores
    one by one. Vectors do not depend on it, as rows do not depend on each other.

    Attributes:
        rows: How many the next batch takes.
    """

    def __init__(self, rows: int, *, grows: bool) -> None:
        self.rows = rows
        self._grows = grows
        self._rates: list[float] = []
        self._before: float | None = None

    def ran(self, n_rows: int, seconds: float) -> None:
        """Note how long a batch took, rows and seconds; those of another size, still on their way, say nothing."""
        if not self._grows or n_rows != self.rows:
            return
        self._rates.append(n_rows / max(seconds, 1e-9))
        if len(self._rates) == TRIALS:
            self._decide(max(self._rates[1:]))

    def refuse(self, n_rows: int) -> None:
        """Note that so many rows did not fit into memory: from now on it is at most half of them."""
        self.rows, self._grows = min(self.rows, n_rows // 2), False

    def _decide(self, rate: float) -> None:
        """Double the size while that makes it faster; else go back."""
        if self._before is not None and rate < GAIN * self._before:
            self.rows, self._grows = self.rows // 2, False
        elif 2 * self.rows > MAX_ROWS:
            self._grows = False
        else:
            self.rows, self._rates, self._before = 2 * self.rows, [], rate
