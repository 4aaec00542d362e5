"""How much of a score is recognising the group: the best entry once more under a split that ignores groups."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from heads.comparison import verdict_of
from heads.entry import BOOTSTRAP_SEED, span
from heads.leaderboard import Entry, Leaderboard, best
from heads.metrics import METRICS, Interval, Scored, difference, estimate
from heads.plan import Plan
from heads.predictions import Predictions
from heads.scoring import Scoring
from heads.sweep import Sweep
from store import Dataset, Task, make_split

ROLE = "group_blind"
"""What entries of the random split say they were scored on; nothing is ever chosen by them."""
ABOUT = "group gap of the best entry"
N_FOLDS = 5  # where the table gives train and val instead of folds


def group_gap(
    sweep: Sweep, entries: Iterable[Entry], leaderboard: Leaderboard | None, predictions: Predictions
) -> list[dict[str, Any]]:
    """Score each task's best entry under one random split too, and compare on the same rows.

    Args:
        sweep: Its dataset's groups; without any there is nothing to compare.
        entries: What its `run` gave.
        leaderboard: Gets the entries of the random split, with ``split`` = ``group_blind``.
        predictions: Gets their predictions.

    Returns:
        JSON values, one per task: the headline metric ``random`` (groups are cut) and ``grouped`` (they are kept
        together), and by how much the random split looks better: value, low, high, groups resampled (one split
        is drawn: by how much another one would differ is not in it).
    """
    groups = sweep.dataset.groups
    merged_only = sweep.dataset.spec.group is None and bool(sweep.split.merged)
    if groups is None or merged_only or len(np.unique(groups)) == len(groups):
        return []
    chosen = best(entries)
    grouped, blind = (
        Scoring(one, role, _plans(one, chosen), leaderboard, predictions, None)
        for one, role in zip(_regrouped(sweep), ("cv", ROLE), strict=True)
    )
    found = []
    for task, entry in chosen.items():
        fair, loose = (
            scoring.entries(tuple(entry["blocks"]), entry["head"], (task,))[0] for scoring in (grouped, blind)
        )
        gap = _gap(_scored(fair, predictions), _scored(loose, predictions), entry["headline"])
        found.append(_line(sweep, fair, loose, gap, constant=_is_constant(sweep.dataset.tasks[task], groups)))
    return found


def folded(sweep: Sweep) -> Sweep:
    """Return the sweep on folds of all rows that are not held out, groups kept together; itself where it has folds."""
    if sweep.split.n_folds:
        return sweep
    return replace(sweep, split=make_split(_without_val(sweep), n_folds=N_FOLDS, seed=sweep.split.seed))


def _regrouped(sweep: Sweep) -> tuple[Sweep, Sweep]:
    """Return the sweep on folds that keep groups together, and on folds that do not know of groups."""
    own, ignored = folded(sweep), replace(_without_val(sweep), groups=None)
    blind = make_split(ignored, n_folds=own.split.n_folds, seed=sweep.split.seed)
    return own, replace(sweep, dataset=ignored, split=blind)


def _without_val(sweep: Sweep) -> Dataset:
    """Return the dataset, where it gives a split, with all rows that are not held out in train."""
    dataset = sweep.dataset
    if dataset.given_split is None:
        return dataset
    fitting = np.zeros(dataset.n_rows, dtype=bool)
    fitting[sweep.split.fitting(dataset.ids)] = True
    return replace(dataset, given_split=np.where(fitting, "train", dataset.given_split))


def _plans(sweep: Sweep, tasks: Iterable[str]) -> dict[str, Plan]:
    return {task: sweep.plan(task, sweep.split.outer(sweep.dataset.ids)) for task in tasks}


def _scored(entry: Entry, predictions: Predictions) -> Scored:
    """Return an entry's predictions in the order of the dataset."""
    scored = predictions.of(entry)
    return scored.take(np.argsort(scored.row))


def _gap(fair: Scored, loose: Scored, metric: str) -> Interval:
    """By how much the random split looks better; groups are resampled on both sides."""
    sides = (loose, fair)
    loosely, fairly = (estimate(replace(side, unit=fair.unit), seed=BOOTSTRAP_SEED, names=[metric]) for side in sides)
    is_better_higher = METRICS[metric].is_better_higher
    return difference(loosely[metric].mean, fairly[metric].mean, is_better_higher=is_better_higher).interval()


def _is_constant(task: Task, groups: np.ndarray[Any, Any]) -> bool:
    """Say whether every group has one label only, and some group has several rows."""
    rows = np.flatnonzero(task.labelled)
    _, group = np.unique(groups[rows], return_inverse=True)
    columns = np.c_[group, task.y[rows].reshape(len(rows), -1)]
    n_groups = len(np.unique(group))
    return len(np.unique(columns, axis=0)) == n_groups < len(rows)


def _line(sweep: Sweep, fair: Entry, loose: Entry, gap: Interval, *, constant: bool) -> dict[str, Any]:
    name = fair["headline"]
    random, grouped = loose["metrics"][name], fair["metrics"][name]
    line = {
        "task": fair["task"],
        "blocks": fair["blocks"],
        "head": fair["head"],
        "metric": name,
        "random": random,
        "grouped": grouped,
        **gap,
        "one_label_per_group": constant,
        "n_groups": fair["n_groups"],
    }
    group = sweep.dataset.spec.group if isinstance(sweep.dataset.spec.group, str) else "group"
    return line | {"words": _words(line, str(group), leaves_signal=fair["beats_baseline"])}


def _words(line: dict[str, Any], group: str, *, leaves_signal: bool) -> str:
    random, grouped = line["random"]["value"], line["grouped"]["value"]
    if random is None or grouped is None or line["low"] is None:
        return f"{ABOUT}: no interval for {line['metric']}, too few groups were scored"
    scores = f"{line['metric']} {random:.3g} under one random split, {grouped:.3g} with each {group} kept on one side"
    by = f"{line['value']:+.3g} {span(line)}"
    if verdict_of(line) == "helps":
        text = f"{ABOUT}: {scores}; {by} of it is recognising the {group}, not predicting {line['task']}"
        if not leaves_signal:
            text += f", and for a new {group} nothing is left that is told apart from the baseline"
    else:
        text = f"{ABOUT}: none found: {scores}; {by}"
    if line["one_label_per_group"]:
        text += (
            f". Every {group} has one label only, so a random split measures recognition of the {group}: "
            f"judge by whole {group}s that were not seen"
        )
    return text
