"""The sweep: tasks x block combinations x heads, under one split."""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.calibration import CalibratedHead, calibrate
from heads.combination import Combination, combinations, fused_parts
from heads.entry import ENTRY_VERSION, Outcome, make_entry, note_entry
from heads.leaderboard import ONE_FOLD, Entry, Leaderboard, best
from heads.matrix import METADATA, FeatureMatrix
from heads.plan import Plan, make_plan
from heads.predictions import Predictions
from heads.registry import HEADS, PRIOR
from heads.workers import worker_processes
from store import Dataset, InputError, Split, did_you_mean, json_key

OnEntry = Callable[[Entry], None]
Trial = tuple[Combination, str]
"""Blocks, and the head that is fitted on them."""
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
        run = Run(self, self.role, plans, leaderboard, predictions, on_entry)
        entries, trials = run.entries((), PRIOR, self.task_names), [*self.trials, *self.references]
        if n_jobs != 1:
            entries += run.entries_of_processes(trials, self.task_names, n_jobs=n_jobs)
        else:
            for blocks, head in trials:
                entries += run.entries(blocks, head, self.task_names)
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
            run = Run(self, name, plans, leaderboard, predictions, on_entry)
            found += run.entries((), PRIOR, self.task_names)
            for task, entry in chosen.items():
                found += run.entries(tuple(entry["blocks"]), entry["head"], (task,))
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
        return X if len(columns) == X.shape[1] and (columns == np.arange(len(columns))).all() else X[:, columns]

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """The sha256 of every block's content and of the rows that take part: what makes a result reusable."""
        found = {name: _sha256(self.matrix.X[:, columns]) for name, columns in self.matrix.blocks.items()}
        if self.monotone.any():
            found[METADATA] += _sha256(self.monotone)
        return found | {"": _sha256(self.matrix.complete)}

    @cached_property
    def monotone(self) -> NDArray[np.int8]:
        """Which columns of the matrix outputs may only rise or fall with, ``(d,)``."""
        return self.matrix.monotone(self.dataset.metadata)


@dataclass(frozen=True)
class Run:
    """One pass over the plans of a sweep: reuses what the leaderboard has, computes and writes the rest.

    Attributes:
        sweep: What is tried.
        role: What is scored: ``cv``, ``val``, or a held-out set's name.
        plans: By task.
        leaderboard: Where entries are kept, if anywhere.
        predictions: Where predictions are kept, if anywhere.
        on_entry: Called with each entry.
        beside: Identities of entries that are scored at the same time: no earlier look at held-out rows.
    """

    sweep: Sweep
    role: str
    plans: Mapping[str, Plan]
    leaderboard: Leaderboard | None
    predictions: Predictions | None
    on_entry: OnEntry | None
    beside: Collection[str] = ()

    @cached_property
    def known(self) -> Mapping[str, Entry]:
        """Earlier entries by identity."""
        return {} if self.leaderboard is None else self.leaderboard.known()

    @cached_property
    def priors(self) -> Mapping[str, Outcome]:
        """The prior's outcome for each task, always computed: others are compared with it pair by pair."""
        return self.outcomes((), PRIOR, list(self.plans))

    def entries_of_processes(self, trials: Sequence[Trial], tasks: Sequence[str], *, n_jobs: int) -> list[Entry]:
        """Return the entries of all trials, in their order; each is written as soon as those before it are."""
        alone = replace(self, leaderboard=None, predictions=None, on_entry=None)
        entries = []
        with worker_processes(alone.outcomes, n_jobs) as submit:
            begun = [(*trial, submit(*trial, self._todo(*trial, tasks))) for trial in trials]
            for blocks, head, outcomes in begun:
                entries += self.entries(blocks, head, tasks, outcomes=outcomes.result())
        return entries

    def entries(
        self,
        blocks: Combination,
        head: str,
        tasks: Sequence[str],
        *,
        outcomes: Mapping[str, Outcome] | None = None,
    ) -> list[Entry]:
        """Return the entries of some tasks for one combination and head; `outcomes` where they were computed before."""
        identities = {task: self._identity(task, blocks, head) for task in tasks}
        fresh = outcomes if outcomes is not None else self._fresh(blocks, head, self._todo(blocks, head, tasks))
        entries = []
        for task, identity in identities.items():
            if task in fresh:
                entry = self.keep(task, fresh[task], blocks=blocks, head=head, identity=identity)
            else:
                entry = {**self.known[identity], "is_reused": True}
            if self.on_entry is not None:
                self.on_entry(entry)
            entries.append(entry)
        return entries

    def _todo(self, blocks: Combination, head: str, tasks: Sequence[str]) -> list[str]:
        return [task for task in tasks if not self._is_known(self._identity(task, blocks, head))]

    def _fresh(self, blocks: Combination, head: str, tasks: Sequence[str]) -> dict[str, Outcome]:
        return {task: self.priors[task] for task in tasks} if head == PRIOR else self.outcomes(blocks, head, tasks)

    def _is_known(self, identity: str) -> bool:
        return identity in self.known and (self.predictions is None or self.predictions.find(identity) is not None)

    def keep(
        self,
        task: str,
        outcome: Outcome,
        *,
        blocks: Combination,
        head: str,
        identity: str,
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> Entry:
        """Return an outcome's entry with `about` in it, and write it and its predictions to where they are kept."""
        matrix, split = self.sweep.matrix, self.sweep.split
        entry = make_entry(self.plans[task], outcome, self.priors[task], head=head, blocks=blocks) | {
            "split": self.role,
            "seed": self.sweep.seed,
            "split_fingerprint": split.fingerprint,
            "fingerprints": {name: matrix.spaces[name].fingerprint for name in blocks if name in matrix.spaces},
            "identity": identity,
            **about,
        }
        if head != PRIOR and self.role in split.held_out_names:
            entry["n_earlier"] = self._n_earlier(task, identity)
        note_entry(entry)
        if self.predictions is not None:
            self.predictions.keep(identity, outcome.scored)
        if self.leaderboard is not None:
            self.leaderboard.append(entry)
        return entry

    def outcomes(self, blocks: Combination, head: str, tasks: Sequence[str]) -> dict[str, Outcome]:
        """Fit and score some tasks in one call."""
        if not tasks:
            return {}
        plans = [self.plans[task] for task in tasks]
        start = time.perf_counter()
        fitted = self.sweep.fit(plans, blocks, head)
        X = self.sweep.columns(blocks, plans[0].rows)
        raw = [plan.scored([h.head for h in heads], X) for plan, heads in zip(plans, fitted, strict=True)]
        seconds = (time.perf_counter() - start) / len(tasks)
        choice = HEADS[head].choice
        return {
            task: Outcome(
                raw=one,
                calibrations=[head.calibration for head in heads],
                seconds=seconds,
                chosen=[h.state()[0].get(choice) for h in heads] if choice else [],
                n_columns=X.shape[1],
            )
            for task, one, heads in zip(tasks, raw, fitted, strict=True)
        }

    def _n_earlier(self, task: str, identity: str) -> int:
        """Return how many other results are known on the same held-out rows: the more, the less they are unseen."""
        same = {"task": task, "split": self.role, "split_fingerprint": self.sweep.split.fingerprint}
        now = {identity, *self.beside}
        others = (entry for entry in self.known.values() if entry["head"] != PRIOR and entry["identity"] not in now)
        return sum(all(entry[key] == value for key, value in same.items()) for entry in others)

    def _identity(self, task: str, blocks: Combination, head: str) -> str:
        """Return a digest of all that decides the numbers."""
        sweep, target = self.sweep, self.plans[task].task
        weight = target.sample_weight
        parts: dict[str, Any] = {
            "task": [task, target.kind, target.classes, target.weights.tolist()],
            "weights": [target.class_weight, None if weight is None else ["mean 1", _sha256(weight)]],
            "entry": ENTRY_VERSION,
            "labels": [_sha256(target.y), _sha256(target.applies)],
            "blocks": [[name, sweep.digests[name]] for name in ("", *blocks)],
            "head": [head, HEADS[head].version],
            "split": [self.role, sweep.split.fingerprint],
            "seed": sweep.seed,
        }
        return json_key(parts)


def check_names(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Raise an `InputError` for the first of `names` that is not known, with the nearest that is."""
    known = list(known)
    for name in names:
        if name not in known:
            raise InputError(f"there is no {what} {name!r}; there is {', '.join(known)}.{did_you_mean(name, known)}")


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
