"""The sweep: tasks x block combinations x heads, under one split."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from heads.calibration import CalibratedHead, calibrate
from heads.combination import Combination, combinations, fused_parts
from heads.leaderboard import ONE_FOLD, Entry, Leaderboard, best
from heads.matrix import METADATA, FeatureMatrix
from heads.plan import Plan, make_plan
from heads.predictions import Predictions
from heads.registry import HEADS, PRIOR
from heads.scoring import OnEntry, Scoring, Trial, digest
from store import Dataset, InputError, Split, did_you_mean

WHOLE = "+all"
"""Ends `tuned_on` in an encoder's provenance, where it has learned from every row of the split that is not held out."""


@dataclass(frozen=True)
class Sweep:
    """What is tried; every score is of rows that the model has not seen.

    Attributes:
        dataset: n rows with their tasks.
        matrix: Their features, same order.
        split: Outer folds, or train and val; held-out sets stay untouched here.
        tasks: Task names; all by default.
        heads: Names in `HEADS`; the prior always stands beside them.
        blocks: Combinations to keep, such as ``image+metadata``; all by default. The metadata alone stand beside them.
        seed: Of inner folds, resampling, and heads that draw.
        fold: Score this outer fold alone, for a comparison with a model that costs too much to fit for every one;
            without meaning where the table gives train and val.
    """

    dataset: Dataset
    matrix: FeatureMatrix
    split: Split
    tasks: Sequence[str] = ()
    heads: Sequence[str] = tuple(name for name in HEADS if name != PRIOR)
    blocks: Sequence[str] = ()
    seed: int = 0
    fold: int | None = None

    def __post_init__(self) -> None:
        if self.matrix.ids.tolist() != self.dataset.ids.tolist():
            raise ValueError("matrix and dataset have other rows")
        check_names("task", self.tasks, self.dataset.tasks)
        check_names("head", self.heads, HEADS)
        if not self.dataset.tasks:
            raise InputError("the dataset has no task: add [tasks.NAME] to dataset.toml")

    @cached_property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, in the dataset's order."""
        return tuple(name for name in self.dataset.tasks if not self.tasks or name in self.tasks)

    @cached_property
    def combinations(self) -> tuple[Combination, ...]:
        """The block combinations."""
        return tuple(combinations(list(self.matrix.blocks), wanted=self.blocks))

    @property
    def role(self) -> str:
        """What `run` scores: ``val``, ``cv`` for all folds, or ``fold-0`` for one."""
        if "val" in self.split.roles.values():
            return "val"
        return "cv" if self.fold is None else f"{ONE_FOLD}{self.fold}"

    def knows_labels(self, block: str) -> bool:
        """Say whether a block's encoder was, or may have been, fine-tuned on rows that `run` scores."""
        tuned_on, split = self.matrix.provenance.get(block, {}).get("tuned_on"), self.split.fingerprint
        return tuned_on == f"{split}{WHOLE}" or (self.role != "val" and tuned_on == split)

    @cached_property
    def pairs(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(training rows, rows to score) of `run`."""
        return self.split.outer(self.dataset.ids, fold=self.fold)

    @property
    def n_entries(self) -> int:
        """How many entries `run` gives."""
        return len(self.task_names) * (1 + len(self.trials) + len(self.references))

    @cached_property
    def trials(self) -> list[Trial]:
        """The block combinations with the heads that are fitted on them; a head asked for alone, on every one."""
        return self._trials(self.combinations)

    @cached_property
    def references(self) -> list[Trial]:
        """The heads on the metadata alone where `blocks` leaves that out: scored beside the trials, never chosen."""
        alone = (METADATA,)
        return self._trials([alone] if METADATA in self.matrix.blocks and alone not in self.combinations else [])

    def _trials(self, found: Iterable[Combination]) -> list[Trial]:
        heads = [name for name in self.heads if name != PRIOR]
        return [(blocks, head) for blocks in found for head in heads if len(heads) == 1 or HEADS[head].adds_to(blocks)]

    def run(
        self,
        leaderboard: Leaderboard | None = None,
        *,
        predictions: Predictions | None = None,
        on_entry: OnEntry | None = None,
        n_jobs: int = 1,
    ) -> list[Entry]:
        """Fit and score everything; each result is on the leaderboard as soon as it exists.

        Args:
            leaderboard: Results that stand there already, of the same data, split, seed and versions, are not
                computed again; they come back with ``is_reused``.
            predictions: Keeps what every entry predicted; an entry whose predictions it lacks is computed again.
            on_entry: Called with each entry as it comes.
            n_jobs: Processes that fit at the same time; the numbers are the same for any.

        Returns:
            Entries, the prior first; `references` last, with ``is_reference``.
        """
        plans = {name: self.plan(name, self.pairs) for name in self.task_names}
        scoring = Scoring(self, self.role, plans, leaderboard, predictions, on_entry)
        entries, trials = scoring.entries((), PRIOR, self.task_names), [*self.trials, *self.references]
        if n_jobs != 1:
            entries += scoring.entries_of_processes(trials, self.task_names, n_jobs=n_jobs)
        else:
            for blocks, head in trials:
                entries += scoring.entries(blocks, head, self.task_names)
        return [entry | {"is_reference": True} if self._is_reference(entry) else entry for entry in entries]

    def _is_reference(self, entry: Entry) -> bool:
        return (tuple(entry["blocks"]), entry["head"]) in self.references

    def final(
        self,
        entries: Iterable[Entry],
        leaderboard: Leaderboard | None = None,
        *,
        predictions: Predictions | None = None,
        on_entry: OnEntry | None = None,
    ) -> list[Entry]:
        """Score each task's best entry, and the prior, once on every held-out set; fitted on all rows not held out.

        Leaderboard and predictions are used as in `run`.

        Raises:
            InputError: No row is held out.
        """
        found: list[Entry] = []
        chosen = best(entries)
        for name, pair in self.held_out_pairs().items():
            plans = {task: self.plan(task, [pair]) for task in self.task_names}
            scoring = Scoring(self, name, plans, leaderboard, predictions, on_entry)
            found += scoring.entries((), PRIOR, self.task_names)
            for task, entry in chosen.items():
                found += scoring.entries(tuple(entry["blocks"]), entry["head"], (task,))
        return found

    def held_out_pairs(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return for each held-out set the pair of all rows that are not held out, and its rows.

        Raises:
            InputError: No row is held out.
        """
        return self.split.held_out_pairs(self.dataset.ids)

    def plan(self, task: str, pairs: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Plan:
        """Cut one task along pairs of (training rows, rows to score)."""
        return make_plan(self.dataset, self.matrix, self.dataset.tasks[task], pairs=pairs, seed=self.seed)

    def fit(self, plans: Sequence[Plan], blocks: Combination, head: str) -> list[list[CalibratedHead]]:
        """Fit all jobs of some plans on one combination in one call; return the calibrated heads of each plan."""
        X = self.columns(blocks, plans[0].rows)
        monotone = self.monotone[self.matrix.select(blocks)]
        jobs = [(plan, replace(job, monotone=monotone)) for plan in plans for job in plan.jobs]
        fit = HEADS[head].fit
        if (by_block := HEADS[head].fit_parts) is not None:
            fit = partial(by_block, parts=fused_parts(self.matrix.blocks, blocks))
        fitted = fit(X, [job for _, job in jobs], seed=self.seed)
        held_out = HEADS[head].predict_inner(X, [job for _, job in jobs], fitted)
        found = zip(fitted, jobs, held_out, strict=True)
        heads = (calibrate(one, job, inner, plan.groups) for one, (plan, job), inner in found)
        return [[next(heads) for _ in plan.jobs] for plan in plans]

    def columns(self, blocks: Combination, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows of some blocks, raw, float32 ``(m, d)``; nothing is copied where that is everything."""
        X, columns = self.matrix.X, self.matrix.select(blocks)
        if len(rows) < len(X):
            return X[np.ix_(rows, columns)]
        return X if np.array_equal(columns, np.arange(X.shape[1])) else X.take(columns, axis=1)

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """The sha256 of every block's content and of the rows that take part: what makes a result reusable."""
        found = {name: digest(self.matrix.X[:, columns]) for name, columns in self.matrix.blocks.items()}
        if self.monotone.any():
            found[METADATA] += digest(self.monotone)
        return found | {"": digest(self.matrix.complete)}

    @cached_property
    def monotone(self) -> NDArray[np.int8]:
        """Which columns of the matrix outputs may only rise or fall with, ``(d,)``."""
        return self.matrix.monotone(self.dataset.metadata)


def check_names(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Raise an `InputError` for the first of `names` that is not known, with the nearest that is."""
    known = list(known)
    for name in names:
        if name not in known:
            raise InputError(f"there is no {what} {name!r}; there is {', '.join(known)}.{did_you_mean(name, known)}")
