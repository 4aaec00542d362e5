"""Entries of models that were fitted elsewhere, such as fine-tuned networks: measured as every head is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.calibration import Calibration, fit_calibration
from heads.combination import Combination
from heads.entry import Outcome
from heads.head import Float
from heads.leaderboard import Entry, Leaderboard
from heads.metrics import Scored
from heads.plan import Plan
from heads.predictions import Predictions
from heads.scoring import Scoring
from heads.sweep import Sweep
from store import inner_folds

N_PARTS = 4  # of the rows kept out of training: a temperature has to help on one when fitted on the others


@dataclass(frozen=True)
class Given:
    """What one model predicted for one task.

    Attributes:
        predicted: Probabilities ``(n, c)`` or outputs ``(n, t)``, a row per row of the dataset; NaN where it was not
            asked.
        kept_out: Training rows that it was not trained on, int64 ``(m,)``: calibration is fitted on them.
    """

    predicted: Float
    kept_out: NDArray[np.int64]


def given_entry(
    sweep: Sweep,
    task: str,
    models: Sequence[Given],
    *,
    head: str,
    blocks: Combination,
    identity: str,
    seconds: float,
    about: Mapping[str, Any] = MappingProxyType({}),
    held_out: str | None = None,
    beside: Iterable[Entry] = (),
    leaderboard: Leaderboard | None = None,
    predictions: Predictions | None = None,
) -> tuple[Entry, list[Calibration]]:
    """Return the entry of a task, on the very rows that the sweep's own heads are scored on, and each calibration.

    Args:
        sweep: Says which rows are fitted on and scored; its prior is the baseline.
        task: A task's name.
        models: One per pair of the sweep; one alone for a held-out set.
        head: What to call it.
        blocks: What it reads, sorted.
        identity: A digest of all that decides the numbers.
        seconds: Fitting and predicting.
        about: What else the entry says, JSON values.
        held_out: The held-out set that is scored, instead of the sweep's own rows.
        beside: What is scored on it at the same time, which is no earlier look at it.
        leaderboard: Gets the entry.
        predictions: Gets the predictions.

    Raises:
        ValueError: A row that is scored was not predicted.
    """
    plan = sweep.plan(task, sweep.pairs if held_out is None else [sweep.held_out_pairs()[held_out]])
    calibrations = [calibration_of(plan, model, number, seed=sweep.seed) for number, model in enumerate(models)]
    raw = _scored(plan, models)
    if not np.isfinite(raw.predicted).all():
        raise ValueError(f"task {task!r}: a row that is scored was not predicted")
    outcome = Outcome(raw, calibrations, seconds, [], 0)
    now = [entry["identity"] for entry in beside if not entry.get("is_reused")]
    scoring = Scoring(sweep, held_out or sweep.role, {task: plan}, leaderboard, predictions, None, now)
    return scoring.keep(task, outcome, blocks=blocks, head=head, identity=identity, about=about), calibrations


def calibration_of(plan: Plan, model: Given, number: int, *, seed: int) -> Calibration:
    """Return what the rows kept out of training say of the model of the plan's job of that number."""
    job = plan.jobs[number]
    place = np.full(len(model.predicted), -1)
    place[plan.rows] = np.arange(len(plan.rows))
    rows = np.intersect1d(place[model.kept_out], job.train)
    parts = inner_folds([], plan.groups, rows, n_folds=N_PARTS, seed=seed)
    return fit_calibration(job, [(part, model.predicted[plan.rows[part]]) for _, part in parts], plan.groups)


def _scored(plan: Plan, models: Sequence[Given]) -> Scored:
    parts = [model.predicted[plan.rows[rows]] for model, rows in zip(models, plan.score, strict=True)]
    return plan.pooled(parts)
