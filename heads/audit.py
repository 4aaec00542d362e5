"""What stored vectors and out-of-fold predictions say against a dataset: leaks, and labels that look wrong."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.doubt import doubtful_labels
from heads.leaderboard import Entry, best
from heads.matrix import FeatureMatrix
from heads.predictions import Predictions
from heads.sweep import Sweep
from heads.twins import find_twins
from store import Dataset, Split, Task, is_fitting, remake_split


def audit_leaks(dataset: Dataset, matrix: FeatureMatrix, split: Split) -> dict[str, Any]:
    """Find rows that show the same thing, in every image space; in the text spaces where there is no image.

    Args:
        dataset: n rows. Rows of one group are kept together anyway and are no news.
        matrix: Their vectors.
        split: Says which pairs it cuts.

    Returns:
        JSON values: ``thresholds`` by space, and ``duplicates``, each with the two ids, ``kind`` (``exact`` or
        ``near``), ``crosses`` (``split`` where one row is fitted on and the other scored, ``groups``), where both
        stand, and the tasks that label them differently.
    """
    images = [name for name in matrix.spaces if name.startswith("image:")]
    thresholds: dict[str, float] = {}
    pairs: dict[tuple[int, int], dict[str, Any]] = {}
    for name in images or list(matrix.spaces):
        rows = np.flatnonzero(~np.isnan(matrix.X[:, matrix.blocks[name].start]))
        units = rows if dataset.groups is None else np.unique(dataset.groups[rows], return_inverse=True)[1]
        twins = find_twins(matrix.X[rows, matrix.blocks[name]], units)
        thresholds[name] = twins.threshold
        for (a, b), similarity, exact in zip(rows[twins.pairs], twins.similarity, twins.is_exact, strict=True):
            found = {"similarity": float(similarity), "kind": "exact" if exact else "near", "space": name}
            pairs.setdefault((int(a), int(b)), found)
    listed = [_describe(dataset, split, pair, found) for pair, found in pairs.items()]
    listed.sort(key=lambda row: ("split" not in row["crosses"], row["kind"], -row["similarity"]))
    return {"thresholds": thresholds, "duplicates": listed}


def audit_labels(sweep: Sweep, entries: Iterable[Entry], predictions: Predictions) -> dict[str, Any]:
    """Rank the labels that look wrong, by the best entry of each task; held-out rows are not looked at.

    Returns:
        By task, what `doubtful_labels` gives and the blocks and head that were asked.
    """
    found: dict[str, Any] = {}
    for task, entry in best(entries).items():
        asked = {"blocks": entry["blocks"], "head": entry["head"], "beats_baseline": entry["beats_baseline"]}
        found[task] = asked | doubtful_labels(sweep.dataset.tasks[task], predictions.of(entry), sweep.dataset.ids)
    return found


def merge_duplicates(dataset: Dataset, duplicates: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Put duplicates into one group each, make the split anew, and return the ids of all that is merged.

    Args:
        dataset: As the table has it.
        duplicates: As `audit_leaks` lists them.

    Raises:
        InputError: As `remake_split`.
    """
    split = remake_split(dataset, [(pair["a"], pair["b"]) for pair in duplicates])
    return [list(family) for family in split.merged]


def _describe(dataset: Dataset, split: Split, pair: tuple[int, int], found: dict[str, Any]) -> dict[str, Any]:
    ids = [str(dataset.ids[row]) for row in pair]
    roles = [split.roles[id_] for id_ in ids]
    crosses = ["split"] if roles[0] != roles[1] and any(map(is_fitting, roles)) else []
    groups = None if dataset.groups is None else [str(dataset.groups[row]) for row in pair]
    crosses += ["groups"] if groups is not None and groups[0] != groups[1] else []
    differs = [task.name for task in dataset.tasks.values() if _differs(task, pair)]
    return {"a": ids[0], "b": ids[1], **found, "crosses": crosses, "roles": roles, "groups": groups, "differs": differs}


def _differs(task: Task, pair: tuple[int, int]) -> bool:
    both: NDArray[Any] = task.y[list(pair)]
    return bool(task.labelled[list(pair)].all() and (both[0] != both[1]).any())
