"""Who hears of a run while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass

from store import Progress

Say = Callable[[str], None]


def _nobody(_: str) -> None:
    return None


@dataclass(frozen=True)
class Listener:
    """Who hears of a run.

    Attributes:
        progress: Called with (batches done, batches in all) of a fit.
        each_epoch: Called with a line per epoch.
        say: Called with what the user should know of how it is made.
    """

    progress: Progress | None = None
    each_epoch: Say = _nobody
    say: Say = _nobody


NOBODY = Listener()
