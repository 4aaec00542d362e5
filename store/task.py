"""What is predicted."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    """One thing to predict, in dataset order.

    Attributes:
        name: The task's name in the spec.
        kind: ``"classification"`` or ``"regression"``.
        columns: The table's columns it comes from; one for classification, t for regression.
        classes: Sorted class names (c of them); empty for regression.
        y: Classification: int64 ``(n,)``, index into `classes`, -1 where missing.
           Regression: float64 ``(n, t)``, NaN where missing.
        when: The condition under which the task exists, as written in the spec; None for always.
        applies: bool ``(n,)``: where `when` holds.
        weights: One weight per output, ``(t,)``; ones unless the spec says otherwise.
        sample_weight: float64 ``(n,)``: how much each row counts in fitting, positive where `labelled`; None for ones.
        class_weight: ``"balanced"``: every class counts the same in fitting; None for every row the same.
        is_known: bool ``(n,)``: no cell that `when` reads is missing; None for everywhere.
    """

    name: str
    kind: Literal["classification", "regression"]
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    y: NDArray[Any]
    when: str | None
    applies: NDArray[np.bool_]
    weights: NDArray[np.float64]
    sample_weight: NDArray[np.float64] | None = None
    class_weight: Literal["balanced"] | None = None
    is_known: NDArray[np.bool_] | None = None

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """bool ``(n,)``: rows to fit and score on: the condition holds and no output is missing."""
        present = self.y >= 0 if self.kind == "classification" else ~np.isnan(self.y).any(axis=1)
        return self.applies & present

    def take(self, rows: NDArray[np.int64]) -> "Task":
        """Return the same task on some rows; its classes stay, also those that none of them has."""
        weight, known = self.sample_weight, self.is_known
        return replace(
            self,
            y=self.y[rows],
            applies=self.applies[rows],
            sample_weight=None if weight is None else weight[rows],
            is_known=None if known is None else known[rows],
        )
