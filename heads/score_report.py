"""Scores for people: what `heads`, `finetune` and `leaderboard` print, as sections."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heads.comparison import comparison_lines
from heads.leaderboard import Entry, best, block_words, is_held_out, ranked, table
from heads.registry import PRIOR
from heads.report import interval, number, signed
from heads.selection import HANDFUL, LAST, flattered
from store import Section, counted

SAME = 1e-9  # two means that differ by less are one


def entries_report(entries: Iterable[Entry], evaluation: Mapping[str, Any]) -> list[Section]:
    """Return the leaderboard, one table per task, best first, and under it what the evaluation says in words.

    Of the best entry it says how far its probabilities, sets and intervals can be believed. A task of several outputs
    has another table: each output's score by the best entry. Several tasks have a table of all of them at the end.

    Args:
        entries: What `Sweep.run` and `Sweep.final` gave.
        evaluation: ``comparisons``, ``selection`` and ``group_gap``.
    """
    entries = list(entries)
    found, chosen = [], best(entries)
    for task, rows in itertools.groupby(table(entries), key=lambda row: str(row["task"])):
        found.append(_task_section(task, list(rows), evaluation, chosen.get(task)))
        found += outputs_report(chosen[task], entries) if task in chosen else []
    return found if len({entry["task"] for entry in entries}) < 2 else [*found, _overview_section(entries)]


def outputs_report(entry: Entry, entries: Iterable[Entry]) -> list[Section]:
    """Return an entry's score for each output, beside the prior's of the same rows; nothing where it has one output."""
    if not entry.get("outputs"):
        return []
    priors = (e for e in entries if (e["task"], e["head"], e["split"]) == (entry["task"], PRIOR, entry["split"]))
    return [_outputs_section(entry, next(priors, None))]


def standings_report(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return one table per task and scored rows, best first; each result beside the best."""
    by_rows = itertools.groupby(rows, key=lambda row: (str(row["task"]), str(row["split"])))
    return [_standings_section(f"{task}, {split}", list(found)) for (task, split), found in by_rows]


def _task_section(
    task: str, rows: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any], chosen: Entry | None
) -> Section:
    lines = [_best_of(rows, chosen)]
    lines += [line["words"] for line in evaluation["selection"] if line["task"] == task]
    lines += [] if chosen is None else _belief(chosen)
    lines += [f"on {row['split']}: {row['verdict']}" for row in rows if row["standing"] and is_held_out(row)]
    lines += [_looked_at(row) for row in rows if row["n_earlier"]]
    lines += comparison_lines(line for line in evaluation["comparisons"] if line["task"] == task and line["is_main"])
    lines += [line["words"] for line in evaluation["group_gap"] if line["task"] == task]
    columns = ["blocks", "head", "scored on", rows[0]["metric"], "against baseline", "seconds"]
    return Section(task, columns, [_entry_cells(row) for row in rows], [*(f"  {line}" for line in lines), ""])


def _best_of(rows: Sequence[Mapping[str, Any]], chosen: Entry | None) -> str:
    """Say how the best row stands to the baseline."""
    if chosen is None:
        return "only the baseline was tried: give heads and blocks that look at features"
    first = next(row for row in rows if not row["is_reference"])
    but = "" if first is rows[0] else " but the reference"
    return f"best: {first['verdict']}" if first["standing"] else f"nothing{but} does better than the baseline"


def _overview_section(entries: Sequence[Entry]) -> Section:
    """Return the best score of every block combination, a column per task: what the bar chart shows."""
    shown = [entry for entry in ranked(entries) if not is_held_out(entry)]
    tasks = {entry["task"]: entry["headline"] for entry in shown}
    words = {tuple(entry["blocks"]): block_words(entry) for entry in shown}
    scores: dict[tuple[str, ...], dict[str, str]] = {}
    for entry in shown:
        score = number(entry["metrics"][entry["headline"]]["value"]) + ("*" if entry["beats_baseline"] else "")
        scores.setdefault(tuple(entry["blocks"]), {}).setdefault(entry["task"], score)
    names = sorted(scores, key=lambda blocks: (not blocks, len(blocks), blocks))
    cells = [[words[blocks], *(scores[blocks].get(task, "-") for task in tasks)] for blocks in names]
    columns = ["blocks", *(f"{task}\n{metric}" for task, metric in tasks.items())]
    return Section("All tasks", columns, cells, ["  * better than without features; of several heads the best", ""])


def _standings_section(title: str, rows: Sequence[Mapping[str, Any]]) -> Section:
    columns = ["blocks", "head", rows[0]["metric"], "against baseline", "than the best by"]
    cells = [[row["blocks"], row["head"], interval(row), row["standing"], _behind(row)] for row in rows]
    tuned, held_out = [row for row in rows if row["run"] is not None], rows[0]["is_held_out"]
    if tuned:
        columns += ["on the stop rows", "run", "settings"]
        cells = [[*own, *_run_cells(row)] for own, row in zip(cells, rows, strict=True)]
    close = sum(row["to_best"] is not None and row["to_best"]["verdict"] == "not told apart" for row in rows)
    lines = [f"{counted(close, 'of the others is', 'of the others are')} not told apart from the best"]
    n_competing = sum(row["head"] != PRIOR and not row["is_reference"] for row in rows)
    lines += _flattery(n_competing, len(tuned), held_out=held_out)
    title = f"{title}{' (held out)' * held_out}, {counted(rows[0]['n_rows'], 'row')}"
    return Section(title, columns, cells, [*(f"  {line}" for line in lines), ""])


def _flattery(n_entries: int, n_tuned: int, *, held_out: bool) -> list[str]:
    """Say what choosing among these rows of a table does to the best, and what to choose by instead."""
    if held_out:
        chosen = f"; {flattered(n_entries, 'entries')}" if n_entries > 1 else ""
        return [f"held out: to be read, not to choose by{chosen}"]
    if n_tuned > 1:
        advice = (
            "choose by the stop rows, which are not scored, and score that run with finetune --folds all or --final"
        )
        return [f"{flattered(n_tuned, 'runs')}: {advice}"]
    return [f"{flattered(n_entries, 'entries')}: heads says by how much; {LAST}"] if n_entries > HANDFUL else []


def _behind(row: Mapping[str, Any]) -> str:
    return "" if row["to_best"] is None else signed(row["to_best"])


def _run_cells(row: Mapping[str, Any]) -> list[str]:
    if row["run"] is None:
        return ["", "", ""]
    return [
        number(row["stop"]),
        row["run"],
        " ".join(f"{name}={_plain(value)}" for name, value in row["settings"].items()),
    ]


def _plain(value: Any) -> str:
    """Return a setting as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _looked_at(row: Mapping[str, Any]) -> str:
    times = "once" if row["n_earlier"] == 1 else f"{row['n_earlier']} times"
    return (
        f"{row['split']} was scored {times} before, by other blocks, heads or settings: whoever chooses by it, "
        "believes too much"
    )


def _belief(entry: Entry) -> list[str]:
    """Return how well an entry's probabilities are calibrated, and how often its sets or intervals hold the truth."""
    lines, found = [], entry["conformal"]
    if entry["kind"] == "classification":
        ece, brier = number(entry["metrics"]["ece"]["value"]), interval(entry["metrics"]["brier"])
        lines.append(f"its probabilities: expected calibration error {ece}, Brier score {brier}")
    if "coverage" in found:
        rows = "rows" if entry["n_groups"] is None else "rows, groups counted alike"
        held = f"hold the truth in {interval(found['coverage'])} of {rows}, {found['stated']:g} is stated"
        what = "sets" if entry["kind"] == "classification" else "intervals"
        lines.append(f"its {what} {held}; {_size(found)}")
    return lines


def _size(found: Mapping[str, Any]) -> str:
    """Say how large conformal sets or intervals are on average."""
    if "mean_set_size" in found:
        return f"{found['mean_set_size']:.2f} classes on average"
    return "too few groups for an end" if found["mean_width"] is None else f"{found['mean_width']:.4g} wide on average"


def _outputs_section(entry: Entry, prior: Entry | None) -> Section:
    name = entry["headline"]
    without = {} if prior is None else prior["outputs"]
    cells = []
    for output, metrics in entry["outputs"].items():
        held, base = entry["conformal"]["outputs"][output], interval(without[output][name]) if without else "-"
        cells.append([output, interval(metrics[name]), base, interval(held["coverage"]), _size(held)])
    title = f"{entry['task']}, each output: {' + '.join(entry['blocks'])}, {entry['head']}"
    return Section(
        title,
        ["output", name, "without features", "held by its interval", "interval"],
        [*cells, *_means(entry, prior)],
        [""],
    )


def _means(entry: Entry, prior: Entry | None) -> list[list[str]]:
    """Return the mean over the outputs, and where they have weights the weighted one, which is the entry's score."""
    name = entry["headline"]
    score, base = entry["metrics"][name], entry["baseline"][name]
    plain, plain_base = (_plain_mean(one, name) for one in (entry, prior))
    weighted = [interval(score), number(base), "", ""]
    if plain is None or score["value"] is None or abs(plain - score["value"]) < SAME:
        return [["mean", *weighted]]
    return [["mean", number(plain), number(plain_base), "", ""], ["mean, weighted", *weighted]]


def _plain_mean(entry: Entry | None, name: str) -> float | None:
    values = [] if entry is None else [metrics[name]["value"] for metrics in entry["outputs"].values()]
    return None if not values or None in values else sum(values) / len(values)


def _entry_cells(row: Mapping[str, Any]) -> list[str]:
    seconds = "reused" if row["is_reused"] else f"{row['seconds']:.2f}"
    return [row["blocks"], row["head"], row["split"], interval(row), row["standing"], seconds]
