"""What `check` and `explore` found in the table, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from store.check import PROBLEMS
from store.counts import summary
from store.dataset import Dataset
from store.distribution import QUANTILES
from store.section import Section, counted
from store.vectors.names import tuned_mark

SHOWN = 20  # examples of a kind; --json has all
SHOWN_VALUES = 6  # of a categorical column
BARS = " ▁▂▃▄▅▆▇█"


def check_report(dataset: Dataset, problems: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return the counts of each task and what is wrong, with what to do.

    Args:
        dataset: n rows.
        problems: ``kind``, ``count`` and ``examples`` of each; a kind may be one that `PROBLEMS` does not know.
    """
    groups = "" if dataset.groups is None else f" in {counted(len(set(dataset.groups)), 'group')}"
    counts = [[task, ", ".join(f"{k}: {v:g}" for k, v in found.items())] for task, found in summary(dataset).items()]
    lines = [line for problem in problems for line in _lines(problem)]
    lines.append("no problems found" if not problems else f"{counted(len(problems), 'kind')} of problems found")
    return [
        Section(lines=[f"{dataset.spec.name}: {counted(dataset.n_rows, 'row')}{groups}"]),
        Section("Labels", ["task", "values"], counts, lines),
    ]


def store_report(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return a row per feature space, of what `FeatureStore.info` gives."""
    columns = ["name", "fingerprint", "dim", "rows", "bytes", "failed"]
    cells = [[_space_name(row), *(str(row[column]) for column in columns[1:])] for row in rows]
    return [Section("Feature spaces", columns, cells)]


def _space_name(row: Mapping[str, Any]) -> str:
    """Return a space's name, which says where its encoder was fine-tuned."""
    latest = row["provenance"][-1] if row["provenance"] else {}
    return f"{row['name']}{tuned_mark(row['fingerprint'], latest)}"


def damage_report(damage: Sequence[Mapping[str, str]], remedy: str) -> list[Section]:
    """Return a line for each file that is damaged, or was, and their number."""
    lines = [": ".join([_place(row), *(row[key] for key in ("reason", "done") if key in row)]) for row in damage]
    return [Section(lines=[*lines, f"{len(damage)} damaged; {remedy}" if damage else "nothing is damaged"])]


def _place(row: Mapping[str, str]) -> str:
    """Return which file of which space is damaged; the store's own has no fingerprint."""
    space = f"{row['space']} ({row['fingerprint'][:12]})" if row["fingerprint"] else row["space"]
    return f"{space}, {row['chunk']}"


def distribution_report(found: Mapping[str, Any]) -> list[Section]:
    """Return a table per task, one of the metadata, and what is missing.

    Args:
        found: What `distributions` gave.
    """
    groups = "" if found["groups"] is None else f" in {counted(found['groups'], 'group')}"
    missing = [
        f"missing: {one['what']}: {counted(one['n_missing'], 'row')} ({one['share']:.1%})" for one in found["missing"]
    ] or ["nothing is missing: no label, metadata, text or image path"]
    tasks = [(_classes if task["kind"] == "classification" else _numbers)(task, found) for task in found["tasks"]]
    cells = [[one["name"], str(one["n_rows"]), *_values(one)] for one in found["metadata"]]
    metadata = [Section("Metadata", ["column", "rows", "values", "histogram"], cells)] if cells else []
    head = Section(lines=[f"{found['name']}: {counted(found['rows'], 'row')}{groups}"])
    return [head, *tasks, *metadata, Section(lines=[*missing, ""])]


def _classes(task: Mapping[str, Any], found: Mapping[str, Any]) -> Section:
    """Return one row per class: how often it is, and in each part."""
    has_groups = found["groups"] is not None
    cells = [
        [
            one["class"],
            str(one["n_rows"]),
            f"{one['share']:.1%}",
            *([str(one["n_groups"])] * has_groups),
            *map(str, one["parts"].values()),
        ]
        for one in task["classes"]
    ]
    columns = ["class", "rows", "share", *(["groups"] * has_groups), *found["parts"]]
    return Section(_title(task), columns, cells)


def _numbers(task: Mapping[str, Any], _: Mapping[str, Any]) -> Section:
    """Return one row per column: its quantiles and a histogram from the least to the greatest value."""
    cells = [[one["column"], *_quantiles(one), _bars(one)] for one in task["columns"]]
    return Section(_title(task), ["column", *QUANTILES, "histogram"], cells)


def _title(task: Mapping[str, Any]) -> str:
    missing = f", {task['n_missing']} without a label" if task["n_missing"] else ""
    outside = f", {task['n_outside']} to which it does not apply" if task["n_outside"] else ""
    return f"{task['task']}: {counted(task['n_rows'], 'row')}{missing}{outside}"


def _quantiles(column: Mapping[str, Any]) -> list[str]:
    quantiles = column["quantiles"]
    return ["-"] * len(QUANTILES) if quantiles is None else [f"{value:.4g}" for value in quantiles.values()]


def _bars(column: Mapping[str, Any]) -> str:
    """Return a histogram in one line: a bar per bin, the highest one full, nothing where no value is."""
    counts = column["histogram"]["counts"] if column["histogram"] else [0]
    return "".join(BARS[-(-count * (len(BARS) - 1) // max(*counts, 1))] for count in counts)


def _values(column: Mapping[str, Any]) -> list[str]:
    if column["kind"] == "numeric":
        quantiles = column["quantiles"]
        words = "-" if quantiles is None else "{min:.4g} to {max:.4g}, median {median:.4g}".format(**quantiles)
        return [words, _bars(column)]
    shown = list(column["values"].items())[:SHOWN_VALUES]
    more = f", and {column['n_values'] - len(shown)} more" if column["n_values"] > len(shown) else ""
    return [", ".join(f"{name}: {n}" for name, n in shown) + more, ""]


def _lines(problem: Mapping[str, Any]) -> list[str]:
    kind = PROBLEMS.get(problem["kind"])
    words = f": {kind.meaning}. {kind.remedy}" if kind else ""
    return [f"{problem['kind']} ({problem['count']}){words}", *(f"    {one}" for one in problem["examples"][:SHOWN])]
