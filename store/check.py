"""What is wrong, or looks wrong, with a dataset, found without decoding an image."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.dataset import Dataset, hash_files
from store.split import Split, is_fitting
from store.task import Task
from store.telltale import rows_named

MIN_LABELS = 50
"""With fewer, the 95 % interval of an accuracy of 0.8 is wider than 0.2 (Wilson 1927, 10.2307/2276774)."""
_SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """One kind of problem in a dataset.

    Attributes:
        kind: A key of `PROBLEMS`, which says what it means and what to do.
        count: How often it was found.
        examples: The first five, one line each.
    """

    kind: str
    count: int
    examples: list[str]


class Repeat(NamedTuple):
    """One content that stands in several rows of one image block."""

    block: str
    rows: list[int]


class Facts:
    """A dataset, its split, and the content of its images, hashed once."""

    def __init__(self, dataset: Dataset, split: Split | None) -> None:
        self.dataset, self.split = dataset, split
        self.ids: list[str] = dataset.ids.tolist()
        self.roles = None if split is None else [split.roles[id_] for id_ in self.ids]

    @cached_property
    def keys(self) -> dict[str, list[str | None]]:
        """Content keys by image block; None where there is no file that can be read."""
        hashes = hash_files(self.dataset.images.values())
        return {name: block.keys(hashes) for name, block in self.dataset.images.items()}

    @cached_property
    def repeats(self) -> list[Repeat]:
        """Every content that stands in several rows, in the order of the first of them."""
        found = []
        for block, keys in self.keys.items():
            rows: dict[str, list[int]] = defaultdict(list)
            for row, key in enumerate(keys):
                if key is not None:
                    rows[key].append(row)
            found += [Repeat(block, same) for same in rows.values() if len(same) > 1]
        return found

    def names(self, rows: Sequence[int]) -> str:
        """Return the ids of some rows, the first five of them."""
        shown = ", ".join(repr(self.ids[row]) for row in rows[:_SHOWN])
        return f"{shown}, …" if len(rows) > _SHOWN else shown


def missing_files(facts: Facts) -> Iterator[str]:
    """Rows whose image has a path at which no file can be read; of a stack, its parts are named."""
    for name, block in facts.dataset.images.items():
        if block.parts:
            continue
        for id_, ref, key in zip(facts.ids, block.refs, facts.keys[name], strict=True):
            if ref is not None and key is None:
                yield f"row {id_!r}, image {name!r}: {ref.path}"


def rows_without_image(facts: Facts) -> Iterator[str]:
    """Rows that name no file for an image block."""
    for name, block in facts.dataset.images.items():
        yield from (f"row {id_!r}, image {name!r}" for id_, ref in zip(facts.ids, block.refs, strict=True) if not ref)


def rows_without_text(facts: Facts) -> Iterator[str]:
    """Rows that have no text in a text block."""
    for name, block in facts.dataset.texts.items():
        yield from (f"row {id_!r}, text {name!r}" for id_, text in zip(facts.ids, block.texts, strict=True) if not text)


def duplicate_content(facts: Facts) -> Iterator[str]:
    """The same bytes in several rows."""
    for block, rows in facts.repeats:
        yield f"image {block!r}: rows {facts.names(rows)}"


def label_conflicts(facts: Facts) -> Iterator[str]:
    """The same bytes under several labels of one task."""
    for block, rows in facts.repeats:
        for task in facts.dataset.tasks.values():
            labels = {_label(task, row): row for row in reversed(rows) if task.labelled[row]}
            if len(labels) > 1:
                shown = ", ".join(f"{facts.ids[row]!r} is {label}" for label, row in reversed(labels.items()))
                yield f"task {task.name!r}, image {block!r}: {shown}"


def duplicates_across_groups(facts: Facts) -> Iterator[str]:
    """The same bytes in several groups."""
    groups = facts.dataset.groups
    for block, rows in facts.repeats if groups is not None else []:
        if groups is not None and len(names := dict.fromkeys(groups[rows].tolist())) > 1:
            yield f"image {block!r}: rows {facts.names(rows)} are in groups {', '.join(map(repr, names))}"


def duplicates_across_split(facts: Facts) -> Iterator[str]:
    """The same bytes where a head is fitted and where it is scored."""
    for block, rows in facts.repeats:
        if sides := _sides(facts, rows):
            yield f"image {block!r}: {sides}"


def groups_across_split(facts: Facts) -> Iterator[str]:
    """Groups of which a part is fitted on and another part scored on."""
    if facts.dataset.groups is not None and facts.split is not None:
        order = np.argsort(facts.dataset.groups, kind="stable")
        names, first = np.unique(facts.dataset.groups[order], return_index=True)
        for name, rows in zip(names.tolist(), np.split(order, first[1:]), strict=True):
            if sides := _sides(facts, rows.tolist()):
                yield f"group {name!r}: {sides}"


def classes_in_texts(facts: Facts) -> Iterator[str]:
    """Text blocks of which most texts name the class that is to be predicted."""
    for task in facts.dataset.tasks.values():
        for name, block in facts.dataset.texts.items() if task.kind == "classification" else ():
            rows, n_rows = rows_named(block, task)
            if rows:
                first = f"{facts.ids[rows[0]]!r} is {_label(task, rows[0])} and has the text {block.texts[rows[0]]!r}"
                yield f"task {task.name!r}, text {name!r}: {len(rows)} of {n_rows} texts; {first}"


def rare_classes(facts: Facts) -> Iterator[str]:
    """Classes that cannot stand on both sides of every fold."""
    if facts.split is not None:
        roles = np.array(facts.roles)
        groups = facts.dataset.ids if facts.dataset.groups is None else facts.dataset.groups
        for task in facts.dataset.tasks.values():
            for c, name in enumerate(task.classes):
                members = np.flatnonzero(task.labelled & (task.y == c))
                if lack := _lack(roles[members], groups[members], facts.split.n_folds):
                    yield f"task {task.name!r}, class {name!r}: {lack}"


def few_labels(facts: Facts) -> Iterator[str]:
    """Tasks with so few labelled rows that every score is vague."""
    for task in facts.dataset.tasks.values():
        if (n := int(task.labelled.sum())) < MIN_LABELS:
            yield f"task {task.name!r}: {n} labelled rows"


def constant_tasks(facts: Facts) -> Iterator[str]:
    """Tasks in which an output has one value only."""
    for task in facts.dataset.tasks.values():
        columns = task.y[task.labelled].reshape(-1, len(task.columns))
        for name, values in zip(task.columns, columns.T, strict=True):
            if len(values) and (values == values[0]).all():
                yield f"task {task.name!r}, column {name!r}: always {_word(task, values[0])}"


def constant_metadata(facts: Facts) -> Iterator[str]:
    """Metadata columns with at most one value."""
    for name, column in facts.dataset.metadata.items():
        values = set(column.values[~column.is_missing].tolist())
        if len(values) < 2:
            yield f"metadata {name!r}: " + (f"always {next(iter(values))}" if values else "no value at all")


def missing_metadata(facts: Facts) -> Iterator[str]:
    """Metadata columns with empty cells."""
    for name, column in facts.dataset.metadata.items():
        if len(rows := np.flatnonzero(column.is_missing)):
            yield f"metadata {name!r}: {len(rows)} of {len(facts.ids)} rows ({facts.names(rows.tolist())})"


class Kind(NamedTuple):
    """What a kind of problem means, what to do about it, and the function that finds it."""

    meaning: str
    remedy: str
    find: Callable[[Facts], Iterator[str]]


PROBLEMS: dict[str, Kind] = {
    "missing_file": Kind(
        "the table names a file that is not there or cannot be opened",
        "Correct the path, the root or the file's permissions; until then the row is left out.",
        missing_files,
    ),
    "row_without_image": Kind(
        "the table names no file for this image",
        "Fill in the path, or leave the image block out of the comparison; until then the row is left out.",
        rows_without_image,
    ),
    "row_without_text": Kind(
        "the table has no text for this row", "Fill it in; until then the row is left out.", rows_without_text
    ),
    "label_conflict": Kind(
        "one and the same image has several labels of a task, so at most one can be right",
        "Look at the image and correct the table.",
        label_conflicts,
    ),
    "duplicate_across_split": Kind(
        "one and the same image is fitted on and scored on, which flatters the score",
        "Give its rows one group (group = …), or remove all but one, and delete splits.json.",
        duplicates_across_split,
    ),
    "group_across_split": Kind(
        "a group is fitted on and scored on, which flatters the score",
        "Correct the split column, or delete splits.json.",
        groups_across_split,
    ),
    "class_in_text": Kind(
        "most texts name the class that is to be predicted, so that it is read off instead of learned",
        "Take the class out of the text or the file names, or leave this text out (--blocks): where new texts do not "
        "name the class, such a score means nothing.",
        classes_in_texts,
    ),
    "duplicate_across_groups": Kind(
        "one and the same image stands in several groups, so groups do not keep like things together",
        "Merge these groups, or remove all but one of the rows.",
        duplicates_across_groups,
    ),
    "duplicate_content": Kind(
        "several rows have the same file content",
        "Nothing, where one image serves several rows on purpose; otherwise remove all but one.",
        duplicate_content,
    ),
    "rare_class": Kind(
        "a class has too few rows, or groups, to be fitted on and scored on in every fold",
        "Add rows, merge it with another class, or use fewer folds; its score means little until then.",
        rare_classes,
    ),
    "constant_task": Kind(
        "there is one value only, so nothing to learn", "Check the column, or remove the task.", constant_tasks
    ),
    "few_labels": Kind(
        f"a task has fewer than {MIN_LABELS} labelled rows, so its scores have wide intervals",
        "Label more rows, and judge by the interval, not by the score.",
        few_labels,
    ),
    "constant_metadata": Kind(
        "a metadata column has at most one value, so it says nothing",
        "Check the column or the pattern, or remove it from the spec.",
        constant_metadata,
    ),
    "missing_metadata": Kind(
        "a metadata column has empty cells",
        "Fill them in where you can; heads get the mean and a mark that the value is missing.",
        missing_metadata,
    ),
}


def check_dataset(dataset: Dataset, split: Split | None) -> list[Problem]:
    """Look for every kind of problem in `PROBLEMS`; reads the bytes of each image once and decodes none.

    Args:
        dataset: A loaded dataset.
        split: None leaves out what depends on it.

    Returns:
        The problems found, in the order of `PROBLEMS`; empty when there are none.
    """
    facts = Facts(dataset, split)
    found = {name: list(kind.find(facts)) for name, kind in PROBLEMS.items()}
    return [Problem(name, len(lines), lines[:_SHOWN]) for name, lines in found.items() if lines]


def problem_rows(problems: Iterable[Problem], unreadable: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Return all problems as JSON values, unreadable images first.

    Args:
        problems: As `check_dataset` gives them.
        unreadable: (row id, image block, reason) of each.
    """
    examples = [f"row '{row}', image '{block}': {reason}" for row, block, reason in unreadable]
    first = [Problem("unreadable_image", len(examples), examples)] if examples else []
    return [asdict(problem) for problem in (*first, *problems)]


def _label(task: Task, row: int) -> str:
    return ", ".join(_word(task, value) for value in np.atleast_1d(task.y[row]))


def _word(task: Task, value: Any) -> str:
    return task.classes[int(value)] if task.kind == "classification" else f"{value:.15g}"


def _sides(facts: Facts, rows: Sequence[int]) -> str:
    """Say on which sides of the split rows stand, "" where no fitting row has another side beside it."""
    if facts.roles is None:
        return ""
    first = {facts.roles[row]: row for row in reversed(rows)}
    if len(first) < 2 or not any(map(is_fitting, first)):
        return ""
    shown = sorted((row, f"{'fold ' * role.isdecimal()}{role}") for role, row in first.items())
    return ", ".join(f"{facts.ids[row]!r} in {side}" for row, side in shown)


def _lack(roles: NDArray[np.str_], groups: NDArray[Any], n_folds: int) -> str:
    """Say what a class lacks, given the role and group of each of its rows; "" where nothing."""
    counts = Counter(roles.tolist())
    if not n_folds:
        return " and ".join(f"no row in {role}" for role in ("train", "val") if not counts[role])
    fitting = np.array([is_fitting(role) for role in roles], dtype=bool)
    n_rows, n_groups = int(fitting.sum()), len(np.unique(groups[fitting]))
    if n_groups >= n_folds:
        return ""
    return f"{n_rows} rows{f' in {n_groups} groups' if n_groups < n_rows else ''} for {n_folds} folds"
