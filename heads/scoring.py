"""One pass over a sweep's plans: what the leaderboard has is reused, the rest is fitted, scored and written."""

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heads.combination import Combination
from heads.entry import ENTRY_VERSION, Outcome, make_entry, note_entry
from heads.leaderboard import Entry, Leaderboard
from heads.plan import Plan
from heads.predictions import Predictions
from heads.registry import HEADS, PRIOR
from heads.workers import worker_processes
from store import json_key

if TYPE_CHECKING:
    from heads.sweep import Sweep

OnEntry = Callable[[Entry], None]
Trial = tuple[Combination, str]
"""Blocks, and the head that is fitted on them."""


@dataclass(frozen=True)
class Scoring:
    """One pass over the plans of a sweep.

    Attributes:
        sweep: What is tried.
        role: What is scored: ``cv``, ``val``, or a held-out set's name.
        plans: By task.
        leaderboard: Where entries are kept, if anywhere.
        predictions: Where predictions are kept, if anywhere.
        on_entry: Called with each entry.
        beside: Identities of entries that are scored at the same time: no earlier look at held-out rows.
    """

    sweep: "Sweep"
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

    @cached_property
    def inner(self) -> Mapping[str, list[list[str]]]:
        """The sha256 of the other part of every inner fold, per job, by task: other tasks' labels decide these too."""
        return {
            name: [[digest(rows) for _, rows in job.inner] for job in plan.jobs] for name, plan in self.plans.items()
        }

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
            "weights": [target.class_weight, None if weight is None else ["mean 1", digest(weight)]],
            "entry": ENTRY_VERSION,
            "labels": [digest(target.y), digest(target.applies)],
            "blocks": [[name, sweep.digests[name]] for name in ("", *blocks)],
            "head": [head, HEADS[head].version],
            "split": [self.role, sweep.split.fingerprint],
            "seed": sweep.seed,
            "inner": self.inner[task],
        }
        return json_key(parts)


def digest(values: NDArray[Any]) -> str:
    """Return the sha256 of an array's content, hex."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
