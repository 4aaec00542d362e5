"""What speaks against a dataset, for people: what `audit` prints, as sections."""

from collections.abc import Mapping, Sequence
from typing import Any

from heads.report import SHOWN, number
from store import Section, counted

SHOWN_CONFUSIONS = 5
ALL = f"the first {SHOWN} are shown, --json has all"
Row = Mapping[str, Any]


def audit_report(document: Mapping[str, Any]) -> list[Section]:
    """Return the first duplicates and the first doubtful labels of each task, and how many there are."""
    labels = [_labels_section(task, found) for task, found in document["labels"].items()]
    return [_pairs_section(document["duplicates"], document["thresholds"], document.get("merged")), *labels]


def _pairs_section(
    pairs: Sequence[Row], thresholds: Mapping[str, float], merged: Sequence[Sequence[str]] | None
) -> Section:
    near = f"near means a cosine above {', '.join(map(_limit, thresholds.items()))}"
    if not thresholds:
        return Section(lines=["Duplicates: not looked for, since no images and no texts are embedded", ""])
    if not pairs:
        return Section(lines=[f"Duplicates: none among rows that may be split apart; {near}", ""])
    cells = [
        [p["a"], p["b"], p["kind"], number(p["similarity"]), " ".join(p["crosses"]), " ".join(p["differs"])]
        for p in pairs[:SHOWN]
    ]
    n_leaks, n_differ = sum("split" in p["crosses"] for p in pairs), sum(bool(p["differs"]) for p in pairs)
    lines = [
        f"{counted(len(pairs), 'pair')}, {n_leaks} across the split, {n_differ} labelled differently; {near}",
        *[ALL] * (len(pairs) > SHOWN),
    ]
    if merged is not None:
        n_rows = sum(map(len, merged))
        lines.append(f"merged: {counted(n_rows, 'row')} in {counted(len(merged), 'group')}, each kept on one side")
    elif n_leaks:
        lines.append("--merge puts the rows of a pair into one group and splits anew")
    columns = ["row", "row", "kind", "cosine", "crosses", "labelled differently"]
    return Section("Duplicates", columns, cells, [*(f"  {line}" for line in lines), ""])


def _limit(threshold: tuple[str, float]) -> str:
    name, value = threshold
    return f"{number(value)} in {name}" if value < 1 else f"1 in {name} (too few rows to tell how near is too near)"


def _labels_section(task: str, found: Mapping[str, Any]) -> Section:
    labels, asked = found["labels"], f"{found['head']} on {' + '.join(found['blocks'])}"
    if not found["beats_baseline"]:
        doubt = f"nobody to ask: the best model ({asked}) is not told apart from the baseline"
        return Section(lines=[f"{task}: {doubt}; --json has its list", ""])
    if not labels:
        return Section(lines=[f"{task}: all {found['n_rows']} labels are what other rows suggest; asked: {asked}", ""])
    columns, cells = _class_cells(labels) if "p_label" in labels[0] else _number_cells(labels)
    lines = [_doubtful(found), *[ALL] * (len(labels) > SHOWN), f"asked: {asked}"]
    lines += [_confused(pair) for pair in found["confusions"][:SHOWN_CONFUSIONS]]
    return Section(task, columns, cells, [*(f"  {line}" for line in lines), ""])


def _class_cells(labels: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    cells = [
        [row["id"], row["label"], number(row["p_label"]), row["suggested"], number(row["p_suggested"])]
        for row in labels[:SHOWN]
    ]
    return ["id", "label", "probability", "suggested", "probability"], cells


def _number_cells(labels: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    cells = [
        [row["id"], row["column"], f"{row['label']:.4g}", f"{row['suggested']:.4g}", f"{row['score']:.1f}"]
        for row in labels[:SHOWN]
    ]
    return ["id", "column", "label", "suggested", "usual errors"], cells


def _doubtful(found: Mapping[str, Any]) -> str:
    """Say how many labels are doubted; of classes, of how many the model is as sure as of its class on average."""
    of, n = f"of {found['n_rows']} labels", len(found["labels"])
    if "score" in found["labels"][0]:
        return f"{counted(n, f'{of} lies', f'{of} lie')} farther from what other rows suggest than errors usually do"
    words = counted(n, f"{of} is not", f"{of} are not")
    return f"{words} what other rows suggest, {found['n_confident']} confidently (as sure as of that class on average)"


def _confused(pair: Row) -> str:
    of = f"of {round(pair['count'] / pair['share'])}"
    like = counted(pair["count"], f"{of} looks like", f"{of} look like")
    return f"labelled {pair['label']}: {like} {pair['suggested']}, {pair['n_confident']} confidently"
