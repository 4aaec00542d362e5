"""Which rows are fitted on, which are scored on, and which are kept for the end."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.dataset import Dataset
from store.errors import InputError
from store.folds import Rows, assign_folds, label_codes
from store.keys import text_key
from store.merging import Families
from store.section import counted

N_FOLDS = 5
SEED = 0
_SHOWN = 5


@dataclass(frozen=True)
class Split:
    """The role of every row.

    Attributes:
        roles: Row id -> ``"0"`` to ``"k-1"`` (a fold), ``"train"``, ``"val"``, or the name of a held-out set.
        seed: What the folds were drawn with.
        n_folds: k; 0 where the table itself gives train and val.
        fingerprint: sha256 (hex) of all the above, the same for every row order.
        merged: Families of row ids whose groups count as one (`merge_groups`), each sorted.
    """

    roles: Mapping[str, str]
    seed: int
    n_folds: int
    fingerprint: str
    merged: Families = ()

    @classmethod
    def of(cls, roles: Mapping[str, str], *, seed: int, n_folds: int, merged: Families = ()) -> "Split":
        """Return the split with these roles, sorted by id, and its fingerprint."""
        roles = dict(sorted(roles.items()))
        return cls(roles, seed, n_folds, digest_of([seed, n_folds, roles, *([merged] if merged else [])]), merged)

    @property
    def held_out_names(self) -> list[str]:
        """The held-out sets: ``"test"``, then others, sorted."""
        names = {role for role in self.roles.values() if not is_fitting(role)}
        return sorted(names, key=lambda name: (name != "test", name))

    def outer(self, ids: Iterable[str], *, fold: int | None = None) -> list[tuple[Rows, Rows]]:
        """Return what to fit on and what to score on: one pair per fold, or the pair train and val.

        Args:
            ids: Row ids of the dataset, all or some, in any order.
            fold: This fold alone; without meaning where the table gives train and val.

        Returns:
            (train, score) pairs of positions in `ids`, ascending. No pair has a held-out row.
        """
        roles = self._roles(ids)
        if not self.n_folds:
            return [(np.flatnonzero(roles == "train"), np.flatnonzero(roles == "val"))]
        folds = [str(number) for number in range(self.n_folds)]
        fitting = np.isin(roles, folds)
        chosen = folds if fold is None else [folds[fold]]
        return [(np.flatnonzero(fitting & (roles != one)), np.flatnonzero(roles == one)) for one in chosen]

    def whole(self, ids: Iterable[str]) -> tuple[Rows, Rows]:
        """Return the pair of all rows that are not held out, and nothing to score."""
        return self.fitting(ids), np.empty(0, dtype=np.int64)

    def held_out_pairs(self, ids: Iterable[str]) -> dict[str, tuple[Rows, Rows]]:
        """Return for each held-out set the pair of all rows that are not held out, and the rows of the set.

        Raises:
            InputError: No row is held out.
        """
        ids = list(ids)
        held = {name: self.held_out(ids, name) for name in self.held_out_names}
        if not any(map(len, held.values())):
            raise InputError(
                "no row is held out, so there is nothing to score at last: name a column of train and test as split "
                "in dataset.toml, or leave --final out"
            )
        return {name: (self.fitting(ids), rows) for name, rows in held.items() if len(rows)}

    def fitting(self, ids: Iterable[str]) -> Rows:
        """Return the positions in `ids` of all rows that are not held out: every fold, train and val."""
        return np.flatnonzero([is_fitting(role) for role in self._roles(ids)])

    def held_out(self, ids: Iterable[str], name: str = "test") -> Rows:
        """Return the positions in `ids` of one held-out set; none where the split has no such set."""
        return np.flatnonzero(self._roles(ids) == name) if not is_fitting(name) else np.empty(0, dtype=np.int64)

    def _roles(self, ids: Iterable[str]) -> NDArray[np.str_]:
        return np.array([self.roles[id_] for id_ in ids], dtype=np.str_)


def is_fitting(role: str) -> bool:
    """Say whether rows of this role may be fitted on: a fold, train or val."""
    return role in ("train", "val") or role.isdecimal()


def make_split(dataset: Dataset, *, n_folds: int = N_FOLDS, seed: int = SEED) -> Split:
    """Give every row a role: the table's, and a fold where the table says train but nowhere val.

    Folds are alike in size and in the labels of all tasks, and hold whole groups. The same ids, labels and groups give
    the same roles in every row order.

    Args:
        dataset: Its `given_split` is kept as it is; without one every row goes into a fold.
        n_folds: Without use where the table has val rows.
        seed: Another one, other folds.

    Raises:
        InputError: The given split cuts a group or has no train rows; more folds than groups.
    """
    order = np.argsort(dataset.ids)
    given = _given_roles(dataset)[order]
    groups = None if dataset.groups is None else dataset.groups[order]
    roles = given.astype(object)
    if (given == "val").any():
        return Split.of(dict(zip(dataset.ids[order].tolist(), roles, strict=True)), seed=SEED, n_folds=0)
    rows = np.flatnonzero(given == "train")
    _check_folds(n_folds, seed, len(rows), None if groups is None else groups[rows])
    tasks = [dataset.tasks[name] for name in sorted(dataset.tasks)]
    parts = [label_codes(task.y[order][rows], task.labelled[order][rows], n_folds) for task in tasks]
    codes = np.concatenate([np.empty((len(rows), 0), dtype=np.int64), *parts], axis=1)
    folds = assign_folds(codes, None if groups is None else groups[rows], n_folds, seed=seed)
    roles[rows] = folds.astype(str)
    return Split.of(dict(zip(dataset.ids[order].tolist(), roles, strict=True)), seed=seed, n_folds=n_folds)


def digest_of(content: Any) -> str:
    """Return the sha256 (hex) of JSON values, in the form that every ``splits.json`` has it."""
    return text_key(json.dumps(content, ensure_ascii=False, separators=(",", ":")))


def first_few(names: Sequence[str]) -> str:
    """Return the first five names, for a message."""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _given_roles(dataset: Dataset) -> NDArray[np.str_]:
    if dataset.given_split is None:
        return np.full(dataset.n_rows, "train")
    given = dataset.given_split
    for wrong in (role for role in np.unique(given).tolist() if not role or role.isdecimal()):
        raise InputError(f"split {wrong!r} is no name for a held-out set; use train, val, test or another word")
    if not (given == "train").any():
        raise InputError(f"no row is 'train' in the split, only {first_few(np.unique(given).tolist())}; mark some")
    if dataset.groups is not None:
        _check_whole(dataset.groups, given)
    return given


def _check_whole(groups: NDArray[np.str_], given: NDArray[np.str_]) -> None:
    pairs = np.unique(np.stack([groups, given]), axis=1)
    names, n_sides = np.unique(pairs[0], return_counts=True)
    if cut := names[n_sides > 1].tolist():
        sides = ", ".join(pairs[1, pairs[0] == cut[0]].tolist())
        raise InputError(
            f"the given split cuts {counted(len(cut), 'group')} ({first_few(cut)}; {cut[0]!r} is in "
            f"{sides}); give all rows of a group the same split, or leave out the group column"
        )


def _check_folds(n_folds: int, seed: int, n_rows: int, groups: NDArray[np.str_] | None) -> None:
    if seed < 0:
        raise InputError(f"seed {seed} is negative; use 0 or more")
    if n_folds < 2:
        raise InputError(f"{n_folds} folds cannot be both fitted and scored; use at least 2")
    n_units, unit = (n_rows, "rows") if groups is None else (len(np.unique(groups)), "groups")
    if n_folds > n_units:
        what = f"{n_folds} folds, the default," if n_folds == N_FOLDS else f"{n_folds} folds"
        remedy = f"use {n_units} or fewer (heads --folds)" if n_units > 1 else f"add {unit}"
        raise InputError(f"{what} need as many {unit}, and there are only {n_units}; {remedy}")
