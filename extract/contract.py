"""What every encoder offers, whether it has a network or not."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.runner import Runner
from store import FeatureSpace

BATCH_ROWS = 64
"""Rows per batch of an encoder without weights."""


class Encoder(Protocol):
    """Turns items into vectors of its space.

    Attributes:
        space: Which vectors.
        provenance: From where its weights came, recorded beside the space; None where it has none.
    """

    space: FeatureSpace
    provenance: Mapping[str, Any] | None

    @property
    def n_looks(self) -> int:
        """Vectors that one item costs: its tiles times its turns."""
        ...

    @property
    def runner(self) -> Runner | None:
        """What runs its network; None where it has none."""
        ...

    @property
    def batch_size(self) -> int:
        """Rows per batch to begin with."""
        ...

    def prepare(self, item: Any) -> Any:
        """Return what one batch element is; runs in the decode workers, keeps no state.

        Args:
            item: 8-bit pixels ``(h, w)`` or ``(h, w, 3)`` as `view.render` gives them; or a text.
        """
        ...

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Return float32 ``(b, d)`` for b prepared items; rows do not depend on each other."""
        ...
