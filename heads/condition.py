"""Does a conditional task apply to a row? A classifier beside the task's own, fitted where the answer is known."""

from collections.abc import Mapping, Sequence

import numpy as np

from heads.bundle import Model
from heads.entry import SCORES
from heads.leaderboard import Entry
from heads.plan import Plan, make_plan
from heads.registry import PRIOR
from heads.scoring import Scoring
from heads.sweep import Sweep
from store import Rows, Task

CLASSES = ("no", "yes")

Pairs = Sequence[tuple[Rows, Rows]]


def condition_task(task: Task) -> Task:
    """Return the task that asks whether the condition of `task` holds; rows where nobody knows have no label."""
    known = np.ones(len(task.applies), dtype=bool) if task.is_known is None else task.is_known
    return Task(
        name=f"{task.name}.applies",
        kind="classification",
        columns=("applies",),
        classes=CLASSES,
        y=np.where(known, task.applies, -1).astype(np.int64),
        when=None,
        applies=np.ones(len(task.applies), dtype=bool),
        weights=np.ones(1),
    )


def fit_conditions(sweep: Sweep, chosen: Mapping[str, Entry], pairs: Pairs) -> dict[str, Model]:
    """Fit and score a classifier for every chosen task that has a condition, on the task's blocks with its head.

    Args:
        sweep: Its dataset, matrix, split and seed.
        chosen: The entry whose blocks and head are used, by task.
        pairs: One pair: the rows to fit on, and nothing to score.
    """
    tasks = {name: sweep.dataset.tasks[name] for name in chosen if sweep.dataset.tasks[name].when is not None}
    return {name: _fit(sweep, condition_task(task), chosen[name], pairs) for name, task in tasks.items()}


def _fit(sweep: Sweep, task: Task, entry: Entry, pairs: Pairs) -> Model:
    plan = _plan(sweep, task, pairs)
    job = plan.jobs[0]
    has_both = len(np.unique(job.y[job.train])) == len(CLASSES)
    blocks, head = (tuple(entry["blocks"]), entry["head"]) if has_both else ((), PRIOR)
    [[fitted]] = sweep.fit([plan], blocks, head)
    scoring = Scoring(sweep, sweep.role, {task.name: _plan(sweep, task, sweep.pairs)}, None, None, None)
    [scores] = scoring.entries(blocks, head, [task.name])
    return Model(task, head, blocks, fitted, {name: scores[name] for name in SCORES})


def _plan(sweep: Sweep, task: Task, pairs: Pairs) -> Plan:
    return make_plan(sweep.dataset, sweep.matrix, task, pairs=pairs, seed=sweep.seed)
