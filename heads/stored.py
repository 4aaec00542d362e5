"""Results that are there already: entries of the leaderboard with what they predicted, for the dataset as it is."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heads.combination import is_meant
from heads.leaderboard import ONE_FOLD, Entry, Leaderboard, is_held_out, may_choose, ranked
from heads.matrix import METADATA
from heads.metrics import Scored
from heads.predictions import Predictions
from heads.registry import PRIOR
from heads.sweep import check_names
from store import Dataset, InputError, Split, did_you_mean


@dataclass(frozen=True)
class Wanted:
    """Which entries may be chosen; all of them by default.

    Attributes:
        backbones: Encoders; an entry reads no other.
        blocks: Combinations such as ``image+metadata``.
        heads: Names of heads, ``finetune`` among them.
        fingerprints: Of the spaces of those backbones that are folders: their encoders have the names of others.
    """

    backbones: Sequence[str] = ()
    blocks: Sequence[str] = ()
    heads: Sequence[str] = ()
    fingerprints: Mapping[str, Collection[str]] = field(default_factory=dict)

    def allows(self, entry: Entry) -> bool:
        """Say whether an entry is meant."""
        return (
            (not self.heads or entry["head"] in self.heads)
            and (not self.backbones or all(self._reads(entry, block) for block in entry["blocks"]))
            and (not self.blocks or any(is_meant(text, entry["blocks"]) for text in self.blocks))
        )

    def refers_to(self, entry: Entry) -> bool:
        """Say whether an entry is of the metadata alone, and meant but for its blocks: it stands beside those meant."""
        return entry["blocks"] == [METADATA] and not self.allows(entry) and replace(self, blocks=()).allows(entry)

    def _reads(self, entry: Entry, block: str) -> bool:
        """Say whether a block, as an entry read it, is of one of the backbones, or of none at all, as metadata are."""
        encoder, fingerprint = _encoder(block), entry["fingerprints"].get(block)
        named = set(self.backbones) - set(self.fingerprints)
        return not encoder or encoder in named or any(fingerprint in own for own in self.fingerprints.values())


@dataclass(frozen=True)
class Result:
    """An entry, and what it predicted.

    Attributes:
        entry: From the leaderboard.
        scored: Its rows, in the order of the dataset.
        prior: The entry of the baseline on the same rows, if it is there.
    """

    entry: Entry
    scored: Scored
    prior: Entry | None


@dataclass(frozen=True)
class Stored:
    """The results beside a dataset; nothing is fitted here."""

    dataset: Dataset
    split: Split
    leaderboard: Leaderboard
    predictions: Predictions

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """Entries of this split, oldest first; of an entry that was written twice the newest, at its first place."""
        known = self.leaderboard.known().values()
        return [entry for entry in known if entry["split_fingerprint"] == self.split.fingerprint]

    def best(self, tasks: Sequence[str], wanted: Wanted) -> tuple[list[Result], dict[str, str]]:
        """Return the best entry of each task, followed by the same on held-out rows where they were scored.

        An entry that scores one fold alone is chosen only where no other is.

        Args:
            tasks: Names; all by default.
            wanted: What may be chosen.

        Returns:
            Results, and for tasks without one the reason.

        Raises:
            InputError: No task has a result, or there is no such task.
        """
        check_names("task", tasks, self.dataset.tasks)
        found: list[Result] = []
        missing: dict[str, str] = {}
        for task in tasks or self.dataset.tasks:
            mine = [entry for entry in self.entries if entry["task"] == task]
            result = next(self._fitting(_by_rank(e for e in mine if wanted.allows(e))), None)
            if result is None:
                missing[task] = _reason(task, mine, wanted)
            else:
                found += [result, *self._fitting(_final(result.entry, mine))]
        if not found:
            raise InputError(next(iter(missing.values()), "the dataset has no task: add [tasks.NAME] to dataset.toml"))
        return found, missing

    def ranked(self, task: str, wanted: Wanted) -> list[Result]:
        """Return all results of a task, best first of each ``split``; held-out rows come last.

        The prior is among them, and the metadata alone with ``is_reference`` where other blocks are wanted.
        """
        held_out = self.split.held_out_names
        mine = [e for e in self.entries if e["task"] == task and (not is_held_out(e) or e["split"] in held_out)]
        some = [entry for entry in mine if entry["head"] == PRIOR or wanted.allows(entry)]
        some += [entry | {"is_reference": True} for entry in mine if wanted.refers_to(entry)]
        return list(self._fitting(sorted(ranked(some), key=lambda entry: (is_held_out(entry), str(entry["split"])))))

    def _fitting(self, entries: Iterable[Entry]) -> Iterator[Result]:
        for entry in entries:
            scored = self.predictions.find(entry["identity"])
            if scored is not None and self._fits(entry, scored):
                yield Result(entry, scored.take(np.argsort(scored.row)), self._prior(entry))

    def _fits(self, entry: Entry, scored: Scored) -> bool:
        """Say whether an entry is of these rows, all of them, of these labels, and of outputs that weigh as much."""
        task = self.dataset.tasks[entry["task"]]
        expected = np.flatnonzero(self._has_role(entry["split"]) & task.labelled)
        return (
            scored.kind == task.kind
            and scored.predicted.shape[1] == (len(task.classes) or len(task.columns))
            and bool(np.isin(scored.row, expected).all())
            and len(scored.row) >= len(expected) - entry["n_left_out"]
            and np.array_equal(task.y[scored.row], scored.y)
            and (task.kind == "classification" or np.array_equal(task.weights, scored.weights))
        )

    def _has_role(self, name: str) -> NDArray[np.bool_]:
        """Return which rows an entry's ``split`` means, bool ``(n,)``."""
        roles = [self.split.roles[row] for row in self.dataset.ids.tolist()]
        fold = name.removeprefix(ONE_FOLD)
        return np.array([role.isdecimal() if name == "cv" else role == fold for role in roles], dtype=bool)

    def _prior(self, entry: Entry) -> Entry | None:
        """Return the newest entry of the prior that has the scores which the entry names as its baseline."""
        for other in reversed(self.entries):
            is_same = other["head"] == PRIOR and all(other[key] == entry[key] for key in ("task", "split"))
            if is_same and _values(other) == entry["baseline"]:
                return other
        return None


def _reason(task: str, entries: Sequence[Entry], wanted: Wanted) -> str:
    """Say why a task has no result: nothing was run, nothing is as asked for, or all of it is out of date."""
    known = _by_rank(entries)
    if not known:
        return f"task {task!r}: nothing is stored yet: run heads --task {task}, or finetune, first"
    if any(map(wanted.allows, known)):
        why = "stored results are of other rows, labels or weights, or what they predicted is gone"
        return f"task {task!r}: {why}: run heads --task {task}, or finetune, again"
    heads = sorted({entry["head"] for entry in known})
    encoders = sorted({name for entry in known for name in _encoders(entry)})
    hints = {did_you_mean(word, [*heads, *encoders]) for word in (*wanted.heads, *wanted.backbones)}
    there = f"the heads {', '.join(heads)}" + (f" and the encoders {', '.join(encoders)}" if encoders else "")
    return f"task {task!r}: no stored result is as asked for; there are {there}.{''.join(sorted(hints))}"


def _encoders(entry: Entry) -> list[str]:
    """Return the encoders that an entry's blocks come from."""
    return [one for block in entry["blocks"] if (one := _encoder(block))]


def _encoder(block: str) -> str:
    return block.partition("@")[2].partition("#")[0]


def _values(entry: Entry) -> Mapping[str, float | None]:
    return {name: found["value"] for name, found in entry["metrics"].items()}


def _by_rank(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries that may be chosen, best first; those of one fold last."""
    some = ranked(entry for entry in entries if entry["head"] != PRIOR and may_choose(entry))
    return sorted(some, key=lambda entry: entry["split"].startswith(ONE_FOLD))


def _final(entry: Entry, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the entries of the same model, fitted once more, on each held-out set.

    They are the next ones of the same head, blocks and seed; a model of other settings in between ends the search.
    """
    place = next(i for i, other in enumerate(entries) if other is entry)
    seen = {entry["split"]}
    for other in entries[place + 1 :]:
        if all(other[key] == entry[key] for key in ("head", "blocks", "seed")):
            if other["split"] in seen:
                return
            if is_held_out(other):
                yield other
            seen.add(other["split"])
