"""One of N parts of a dataset, told apart by content alone: N processes that share no work need not talk."""

from dataclasses import dataclass
from typing import Self

from store import InputError


@dataclass(frozen=True)
class Shard:
    """Part `number` of `total`, counted from 1.

    Every key belongs to exactly one part, whatever the dataset and its order; equal content belongs to one.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``I/N``.

        Raises:
            InputError: Not two whole numbers with 1 <= I <= N.
        """
        number, _, total = text.partition("/")
        if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
            raise InputError(f"--shard {text!r}: expected I/N with I from 1 to N, such as 2/8")
        return cls(int(number), int(total))

    def holds(self, key: str) -> bool:
        """Tell whether a content key (sha256, hex) belongs to this part."""
        return int(key[:16], 16) % self.total == self.number - 1
