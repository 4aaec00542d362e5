"""Which rows are fitted on, which are scored on, and which are kept for the end."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from store.dataset import Dataset
from store.errors import InputError
from store.folds import Rows, assign_folds, label_codes
from store.keys import text_key
from store.merging import Families, merge_groups, unite

FILE_NAME = "splits.json"
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
        return cls(roles, seed, n_folds, _sha256([seed, n_folds, roles, *([merged] if merged else [])]), merged)

    @property
    def held_out_names(self) -> list[str]:
        """The held-out sets (``"test"`` and others), sorted."""
        return sorted(role for role in set(self.roles.values()) if not is_fitting(role))

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

    def held_out_pair(self, ids: Iterable[str], name: str = "test") -> tuple[Rows, Rows]:
        """Return the pair of all rows that are not held out, and the rows of one held-out set.

        Raises:
            InputError: There is no such set.
        """
        ids = list(ids)
        held = self.held_out(ids, name)
        if not len(held):
            known = ", ".join(self.held_out_names) or "no held-out set"
            raise InputError(f"no row is held out as {name!r}; there is {known}")
        return self.fitting(ids), held

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


def open_split(dataset: Dataset, *, n_folds: int | None = None, seed: int = SEED, keep: bool = True) -> Split:
    """Return the split in ``splits.json`` beside the spec; the first call makes it and writes it.

    Args:
        dataset: Rows, groups and given split have to be those that the file was made with; labels may have changed.
        n_folds: None for the file's (a new file: 5).
        seed: Of a new split; one that is there stays as it is.
        keep: False leaves the folder as it is, and a new split unwritten.

    Raises:
        InputError: Rows, groups or the number of folds do not match the file, it is damaged, or it cannot be written.
    """
    path = dataset.folder / FILE_NAME
    if path.exists():
        split = _read(path, dataset)
        _check_folds_asked(split, path, n_folds)
        return split
    split = make_split(dataset, n_folds=N_FOLDS if n_folds is None else n_folds, seed=seed)
    _check_folds_asked(split, path, n_folds)
    if keep:
        _write(path, dataset, split)
    return split


def remake_split(dataset: Dataset, families: Iterable[Sequence[str]]) -> Split:
    """Write ``splits.json`` anew, with rows that show the same thing in one group each.

    Args:
        dataset: As the table has it.
        families: Ids of rows that belong together, beside those that the file has merged already.

    Raises:
        InputError: The given split cuts a family; the file cannot be read or written.
    """
    path = dataset.folder / FILE_NAME
    old = _read(path, dataset) if path.exists() else None
    merged = unite([*families, *(old.merged if old else ())])
    n_folds, seed = (old.n_folds or N_FOLDS, old.seed) if old else (N_FOLDS, SEED)
    made = make_split(merge_groups(dataset, merged), n_folds=n_folds, seed=seed)
    split = Split.of(made.roles, seed=made.seed, n_folds=made.n_folds, merged=merged)
    _write(path, dataset, split)
    return split


def _check_folds_asked(split: Split, path: Path, n_folds: int | None) -> None:
    if split.n_folds == 0 and n_folds is not None:
        raise InputError(f"{n_folds} folds asked for, but the table gives 'train' and 'val'; leave the number out")
    if n_folds not in (None, split.n_folds):
        raise InputError(
            f"{path}: was made with {split.n_folds} folds, not {n_folds}; {_remedy('leave the option out')}"
        )


class _SplitFile(BaseModel):
    """``splits.json``: one entry per row in each list, sorted by id."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_version: Literal[1, 2]  # 1 had nothing merged
    seed: int
    n_folds: int
    digest: str
    fingerprint: str
    ids: list[str]
    roles: list[str]
    groups: list[str] | None
    given: list[str] | None
    merged: list[list[str]] = []


def _write(path: Path, dataset: Dataset, split: Split) -> None:
    ids, groups, given = _identity(dataset)
    content = _SplitFile(
        schema_version=2,
        seed=split.seed,
        n_folds=split.n_folds,
        digest=_sha256([ids, groups, given]),
        fingerprint=split.fingerprint,
        ids=ids,
        roles=list(split.roles.values()),
        groups=groups,
        given=given,
        merged=[list(family) for family in split.merged],
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(content.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _discard(partial)
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"{path}: cannot be written ({reason}); make its folder writable or copy the dataset"
        ) from None


def _discard(partial: Path) -> None:
    try:
        partial.unlink(missing_ok=True)
    except OSError:  # where nothing can be written nothing is left behind either
        return


def _read(path: Path, dataset: Dataset) -> Split:
    try:
        content = _SplitFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: is no split of this version ({where}: {first['msg']}); {_remedy()}") from None
    identity = _identity(dataset)
    if content.digest != _sha256(identity):
        raise InputError(f"{path}: no longer fits the dataset: {_differences(content, identity)}; {_remedy()}")
    roles = dict(zip(content.ids, content.roles, strict=False))
    merged = tuple(tuple(family) for family in content.merged)
    split = Split.of(roles, seed=content.seed, n_folds=content.n_folds, merged=merged)
    if split.fingerprint != content.fingerprint or content.ids != identity[0]:
        raise InputError(f"{path}: is damaged or was changed by hand; {_remedy()}")
    return split


_Identity = tuple[list[str], list[str] | None, list[str] | None]


def _identity(dataset: Dataset) -> _Identity:
    """Return ids, groups and given split, sorted by id: what has to stay for a split to stay valid."""
    order = np.argsort(dataset.ids)
    groups, given = (None if x is None else x[order].tolist() for x in (dataset.groups, dataset.given_split))
    return dataset.ids[order].tolist(), groups, given


def _differences(content: _SplitFile, identity: _Identity) -> str:
    ids, groups, given = identity
    old, new = set(content.ids), set(ids)
    notes = [_rows(sorted(new - old), "new"), _rows(sorted(old - new), "gone")]
    for what, before, now in (("group", content.groups, groups), ("given split", content.given, given)):
        if (before is None) != (now is None):
            notes.append(f"the {what} column is {'new' if before is None else 'gone'}")
        elif before is not None and now is not None:
            then = dict(zip(content.ids, before, strict=False))
            changed = [i for i, value in zip(ids, now, strict=True) if i in then and then[i] != value]
            notes.append(_rows(changed, f"of another {what}"))
    return ", ".join(note for note in notes if note) or "the file is damaged"


def _rows(ids: Sequence[str], what: str) -> str:
    return f"{len(ids)} row{'s' * (len(ids) != 1)} {what} ({_first(ids)})" if ids else ""


def _first(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _remedy(otherwise: str = "correct the table") -> str:
    return f"{otherwise}, or delete {FILE_NAME} to make a new one (its scores are not comparable with the old)"


def _given_roles(dataset: Dataset) -> NDArray[np.str_]:
    if dataset.given_split is None:
        return np.full(dataset.n_rows, "train")
    given = dataset.given_split
    for wrong in (role for role in np.unique(given).tolist() if not role or role.isdecimal()):
        raise InputError(f"split {wrong!r} is no name for a held-out set; use train, val, test or another word")
    if not (given == "train").any():
        raise InputError(f"no row is 'train' in the split, only {_first(np.unique(given).tolist())}; mark some")
    if dataset.groups is not None:
        _check_whole(dataset.groups, given)
    return given


def _check_whole(groups: NDArray[np.str_], given: NDArray[np.str_]) -> None:
    pairs = np.unique(np.stack([groups, given]), axis=1)
    names, n_sides = np.unique(pairs[0], return_counts=True)
    if cut := names[n_sides > 1].tolist():
        sides = ", ".join(pairs[1, pairs[0] == cut[0]].tolist())
        raise InputError(
            f"the given split cuts {len(cut)} group{'s' * (len(cut) != 1)} ({_first(cut)}; {cut[0]!r} is in {sides}); "
            "give all rows of a group the same split, or leave out the group column"
        )


def _check_folds(n_folds: int, seed: int, n_rows: int, groups: NDArray[np.str_] | None) -> None:
    if seed < 0:
        raise InputError(f"seed {seed} is negative; use 0 or more")
    if n_folds < 2:
        raise InputError(f"{n_folds} folds asked for; use at least 2")
    n_units, unit = (n_rows, "rows") if groups is None else (len(np.unique(groups)), "groups")
    if n_folds > n_units:
        remedy = f"use {n_units} folds or fewer" if n_units > 1 else f"add {unit}"
        raise InputError(f"{n_folds} folds asked for, but there are only {n_units} {unit} to divide; {remedy}")


def _sha256(content: Any) -> str:
    return text_key(json.dumps(content, ensure_ascii=False, separators=(",", ":")))
