"""What `check` found, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from store.check import PROBLEMS
from store.counts import summary
from store.dataset import Dataset
from store.section import Section

SHOWN = 20  # examples of a kind; --json has all


def check_report(dataset: Dataset, problems: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return the counts of each task and what is wrong, with what to do.

    Args:
        dataset: n rows.
        problems: ``kind``, ``count`` and ``examples`` of each; a kind may be one that `PROBLEMS` does not know.
    """
    groups = "" if dataset.groups is None else f" in {len(set(dataset.groups))} groups"
    counts = [[task, ", ".join(f"{k}: {v:g}" for k, v in found.items())] for task, found in summary(dataset).items()]
    lines = [line for problem in problems for line in _lines(problem)]
    lines.append("no problems found" if not problems else f"{len(problems)} kinds of problems found")
    return [
        Section(lines=[f"{dataset.spec.name}: {dataset.n_rows} rows{groups}"]),
        Section("Labels", ["task", "values"], counts, lines),
    ]


def _lines(problem: Mapping[str, Any]) -> list[str]:
    kind = PROBLEMS.get(problem["kind"])
    words = f": {kind.meaning}. {kind.remedy}" if kind else ""
    return [f"{problem['kind']} ({problem['count']}){words}", *(f"    {one}" for one in problem["examples"][:SHOWN])]
