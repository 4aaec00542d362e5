"""Scores on what was never seen: a value of a column, or a group, is left out of training and scored."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.comparison import gain_words
from heads.entry import bootstrapped
from heads.leaderboard import Entry, Leaderboard
from heads.metrics import METRICS, Scored, difference, side_of_zero
from heads.predictions import Predictions
from heads.registry import PRIOR
from heads.scoring import Scoring
from heads.sweep import Sweep
from store import Dataset, InputError, Split, did_you_mean, read_column

Mask = NDArray[np.bool_]
MIN_ROWS = 10
"""Fewer rows of a part are no ground for a verdict: six right of six, where half is chance, happen once in 64 times."""


def held_out_values(dataset: Dataset, conditions: Sequence[str]) -> dict[str, Mask]:
    """Return the rows of each ``COLUMN=VALUE``, bool ``(n,)``.

    Raises:
        InputError: Not of that form, no such column, or no row with that value.
    """
    found = {}
    for condition in conditions:
        column, equals, value = (part.strip() for part in condition.partition("="))
        if not (equals and value):
            raise InputError(f"--hold-out {condition!r}: give a column and a value, such as instrument=SEM")
        try:
            cells = read_column(dataset, column)
        except InputError as error:
            raise InputError(f"--hold-out {condition!r}: {error}") from None
        if not (cells == value).any():
            known = sorted({str(cell) for cell in cells if cell is not None})
            shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
            raise InputError(f"--hold-out {condition!r}: no row has it; there is {shown}.{did_you_mean(value, known)}")
        found[f"{column}={value}"] = np.asarray(cells == value, dtype=bool)
    return found


def held_out_groups(dataset: Dataset, split: Split) -> dict[str, Mask]:
    """Return the rows of each group, bool ``(n,)``; groups that are kept whole for the final test stand aside.

    Raises:
        InputError: The dataset has no groups.
    """
    if dataset.groups is None:
        raise InputError(
            "there are no groups to leave out one by one; add group to dataset.toml, or hold rows out by a column: "
            "--hold-out COLUMN=VALUE"
        )
    groups = np.unique(dataset.groups[split.fitting(dataset.ids)])
    return {group: dataset.groups == group for group in groups.tolist()}


def transfer(
    sweep: Sweep, held_out: Mapping[str, Mask], leaderboard: Leaderboard | None, predictions: Predictions
) -> list[Entry]:
    """Score every combination and head on each held-out part, by models that saw nothing of it.

    Args:
        sweep: What is tried. Rows of held-out sets such as test take no part.
        held_out: Rows by name. A model is fitted on all other rows, less those that share a group with a held-out one.
        leaderboard: Gets the entries.
        predictions: Gets their predictions.

    Returns:
        Entries over all parts together, with ``parts`` beside: the headline metric of each part with its baseline and
        the paired difference to it. Groups are resampled; rows, where a part is a single group or there are none
        (``resampled`` says which).

    Raises:
        InputError: A part has no row to score, or leaves none to fit on.
    """
    pairs = [_pair(sweep, name, mask) for name, mask in held_out.items()]
    masks = hashlib.sha256(np.stack(list(held_out.values())).tobytes()).hexdigest()
    plans = {task: sweep.plan(task, pairs) for task in sweep.task_names}
    scoring = Scoring(sweep, f"transfer-{masks[:12]}", plans, leaderboard, predictions, None)
    entries = scoring.entries((), PRIOR, sweep.task_names)
    priors = {entry["task"]: predictions.of(entry) for entry in entries}
    for blocks, head in sweep.trials:
        entries += scoring.entries(blocks, head, sweep.task_names)
    return [
        entry | {"parts": _parts(entry, predictions.of(entry), priors[entry["task"]], list(held_out))}
        for entry in entries
    ]


def _pair(sweep: Sweep, name: str, mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    dataset = sweep.dataset
    fitting = np.zeros(dataset.n_rows, dtype=bool)
    fitting[sweep.split.fitting(dataset.ids)] = True
    score, train = fitting & mask, fitting & ~mask
    if dataset.groups is not None:
        train &= ~np.isin(dataset.groups, dataset.groups[mask])
    if not score.any():
        raise InputError(f"{name}: all of its rows are kept for the final test; hold out something else")
    if not train.any():
        why = "every row has it" if mask[fitting].all() else "every other row shares a group with one that has it"
        raise InputError(f"{name}: no row is left to fit on, since {why}; hold out something else")
    return np.flatnonzero(train), np.flatnonzero(score)


def _parts(entry: Entry, scored: Scored, prior: Scored, names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        _part(entry, name, scored.take(np.flatnonzero(scored.fold == i)), prior.take(np.flatnonzero(prior.fold == i)))
        for i, name in enumerate(names)
    ]


def _part(entry: Entry, name: str, scored: Scored, prior: Scored) -> dict[str, Any]:
    metric, n_rows = entry["headline"], len(scored.y)
    found: dict[str, Any] = {"held_out": name, "n_rows": n_rows, "metric": metric, "resampled": "rows"}
    if not n_rows:
        empty = dict.fromkeys(("value", "low", "high"))
        return found | {"score": empty, "baseline": None, "difference": empty, "verdict": "no labelled row"}
    if scored.unit.max() == 0:
        scored, prior = (replace(side, unit=np.arange(n_rows)) for side in (scored, prior))
    elif entry["n_groups"] is not None:
        found["resampled"] = "groups"
    mine, base = (bootstrapped(side, metric) for side in (scored, prior))
    gap = difference(mine, base, is_better_higher=METRICS[metric].is_better_higher).interval()
    word = {1: "better than", -1: "worse than"}.get(side_of_zero(gap) or 0, "not told apart from")
    verdict = f"{word} the baseline: {gain_words(gap, metric)}"
    return found | {
        "score": mine.interval(),
        "baseline": base.interval()["value"],
        "difference": gap,
        "verdict": verdict if n_rows >= MIN_ROWS else f"too few rows for a verdict: {MIN_ROWS} are needed",
    }
