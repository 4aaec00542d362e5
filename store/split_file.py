"""The split of a dataset in ``splits.json`` beside its spec: made once, kept, and refused where it no longer fits."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from store.dataset import Dataset
from store.errors import InputError
from store.merging import merge_groups, unite
from store.section import counted
from store.split import N_FOLDS, SEED, Split, digest_of, first_few, make_split

FILE_NAME = "splits.json"


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
        digest=digest_of([ids, groups, given]),
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
    if content.digest != digest_of(identity):
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
    return f"{counted(len(ids), 'row')} {what} ({first_few(ids)})" if ids else ""


def _remedy(otherwise: str = "correct the table") -> str:
    return f"{otherwise}, or delete {FILE_NAME} to make a new one (its scores are not comparable with the old)"
