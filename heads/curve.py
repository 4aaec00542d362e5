"""Would more labels help? The best entry of a task, fitted on ever more of its labelled rows."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from heads.comparison import gain_words
from heads.entry import bootstrapped
from heads.leaderboard import Entry, best
from heads.matrix import FeatureMatrix
from heads.metrics import METRICS, Estimate, Scored, difference, side_of_zero
from heads.sweep import Sweep
from heads.unlabelled import label_spread, self_trained, unlabelled, with_more
from store import InputError, Rows, counted

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the labelled training rows
N_DRAWS = 5  # subsets per share; the whole has but one
MIN_ROWS = 10

Pair = tuple[Rows, Rows]


def learning_curves(
    sweep: Sweep, entries: Iterable[Entry], *, more: FeatureMatrix | None = None
) -> list[dict[str, Any]]:
    """Score each task's best entry against the number of labelled rows it is fitted on.

    Subsets are whole groups, drawn anew in every outer training part; all are scored on the same rows.

    Args:
        sweep: What was run.
        entries: What its `run` gave.
        more: Rows of no split and without labels, in the layout of the sweep's matrix; classifications learn from them
            as from their own rows without a label.

    Returns:
        JSON values, one per task: ``points`` with ``n_rows`` (mean over draws and folds) and the headline metric,
        ``gain`` from half of the rows to all of them, ``words``, and where there are rows without a label
        ``self_training``: the same head with those rows labelled by itself, and ``label_spreading``: labels spread
        over nearest neighbours instead of a head; each beside the supervised one.

    Raises:
        InputError: There are more rows, and nothing but numbers to predict.
    """
    if more is not None and all(sweep.dataset.tasks[task].kind == "regression" for task in sweep.task_names):
        raise InputError("rows without a label teach classifications alone, and every task here is a regression")
    if more is not None and dict(more.blocks) != dict(sweep.matrix.blocks):
        raise ValueError("the rows without a label have other columns")
    return [_curve(sweep, task, entry, more) for task, entry in best(entries).items()]


def _curve(sweep: Sweep, task: str, entry: Entry, more: FeatureMatrix | None) -> dict[str, Any]:
    draws = _draws(sweep, task)
    pairs = [pair for _, parts in draws for pair in parts]
    plan = sweep.plan(task, pairs)
    blocks, metric = tuple(entry["blocks"]), entry["headline"]
    [heads] = sweep.fit([plan], blocks, entry["head"])
    X = sweep.columns(blocks, plan.rows)
    scored = plan.scored(heads, X)
    sizes = np.array([len(job.train) for job in plan.jobs])
    by_share: dict[float, list[tuple[float, Estimate]]] = {}
    start = 0
    for share, parts in draws:
        folds = np.arange(start, start := start + len(parts))
        found = bootstrapped(scored.take(np.flatnonzero(np.isin(scored.fold, folds))), metric)
        by_share.setdefault(share, []).append((float(sizes[folds].mean()), found))
    points = {share: _mean(found) for share, found in by_share.items()}
    document = {"task": task, "blocks": entry["blocks"], "head": entry["head"], "metric": metric}
    document |= {"baseline": entry["baseline"][metric]} | _described(points, metric)
    whole = plan.part(range(start - len(draws[-1][1]), start))
    spare = unlabelled(sweep, whole)
    if more is not None and whole.task.kind == "classification":
        whole, X, spare = with_more(whole, X, more.X[more.complete][:, more.select(blocks)], spare=spare)
    if not spare:
        return document
    trained = self_trained(sweep, whole, heads[-len(whole.jobs) :], X, spare=spare, head=entry["head"])
    tried = {"self_training": trained, "label_spreading": label_spread(whole, X, spare=spare)}
    n_unlabelled = len(np.unique(np.concatenate(spare)))
    return document | {
        name: _beside(name.replace("_", "-"), found, points[1.0][1], n_unlabelled=n_unlabelled, metric=metric)
        for name, found in tried.items()
    }


def _draws(sweep: Sweep, task: str) -> list[tuple[float, list[Pair]]]:
    """Return (share of the labelled rows, one pair per outer fold) for every draw, the whole last."""
    usable = sweep.dataset.tasks[task].labelled & sweep.matrix.complete
    pairs = [(train, score) for train, score in sweep.pairs if usable[score].any()]
    fewest = min(int(usable[train].sum()) for train, _ in pairs)
    needed = max(MIN_ROWS, 2 * len(sweep.dataset.tasks[task].classes))
    rng = np.random.default_rng(sweep.seed)
    found = []
    for share in SHARES:
        if share < 1 and share * fewest >= needed:
            for _ in range(N_DRAWS):
                found.append((share, [(_subset(sweep, train[usable[train]], share, rng), s) for train, s in pairs]))
    return [*found, (1.0, pairs)]


def _subset(sweep: Sweep, rows: Rows, share: float, rng: np.random.Generator) -> Rows:
    """Return about a share of some rows, whole groups, at least two of them."""
    groups = sweep.dataset.groups
    unit = rows if groups is None else np.unique(groups[rows], return_inverse=True)[1]
    drawn = rng.permutation(np.unique(unit))
    counts = np.cumsum([(unit == one).sum() for one in drawn]) if groups is not None else np.arange(1, len(drawn) + 1)
    n_units = max(2, 1 + int(np.abs(counts - share * len(rows)).argmin()))
    return rows[np.isin(unit, drawn[:n_units])]


def _mean(found: Sequence[tuple[float, Estimate]]) -> tuple[float, Estimate]:
    """Mean over draws, value by value and resample by resample."""
    value = np.mean([one.value for _, one in found], axis=0)
    samples = np.mean([one.samples for _, one in found], axis=0)
    return float(np.mean([n_rows for n_rows, _ in found])), Estimate(value, samples, found[0][1].weights)


def _described(points: dict[float, tuple[float, Estimate]], metric: str) -> dict[str, Any]:
    listed = [{"n_rows": round(n_rows), **found.interval()} for n_rows, found in points.values()]
    if 0.5 not in points:
        return {"points": listed, "gain": None, "words": "too few labelled rows for a learning curve: label more"}
    (n_half, half), (n_all, whole) = points[0.5], points[1.0]
    gain = difference(whole, half, is_better_higher=METRICS[metric].is_better_higher).interval()
    step = f"from {n_half:.0f} to {n_all:.0f} labelled rows {gain_words(gain, metric)}"
    side = side_of_zero(gain)
    if side is None:
        words = f"{step}; no interval, too few groups were scored"
    elif side == 1:
        words = f"more labels would help: {step}"
    else:
        words = f"no sign that more labels would help: {step}, which includes 0"
    return {"points": listed, "gain": gain, "words": words}


def _beside(
    name: str, used: tuple[float, Scored], whole: Estimate, *, n_unlabelled: int, metric: str
) -> dict[str, Any]:
    n_used, scored = used
    found = bootstrapped(scored, metric)
    gap = difference(found, whole, is_better_higher=METRICS[metric].is_better_higher).interval()
    verdict = {None: "no interval", 1: "helps"}.get(side_of_zero(gap), "does not help")
    rows = f"{counted(n_unlabelled, 'row')} without a label, {n_used:.0f} used"
    words = f"{rows}: {gain_words(gap, metric)}: {name} {verdict}"
    counts = {"n_unlabelled": n_unlabelled, "n_used": n_used}
    return counts | {"score": found.interval(), "difference": gap, "verdict": verdict, "words": words}
