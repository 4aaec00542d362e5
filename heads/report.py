"""What is found beside scores, for people: what commands print, as sections; `cli.show_report` prints them."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heads.selection import flattered
from store import Section, counted

SHOWN = 20  # rows of a long list; --json has all


def curve_report(curves: Iterable[Mapping[str, Any]]) -> list[Section]:
    """Return scores against the number of labelled rows, and what they say."""
    return [_curve_section(curve) for curve in curves]


def robustness_report(found: Iterable[Mapping[str, Any]]) -> list[Section]:
    """Return the score under each perturbation beside the clean one."""
    return [_robustness_section(one) for one in found]


def predictions_report(document: Mapping[str, Any]) -> list[Section]:
    """Return how many rows were predicted and, where copies were asked for, drawn; and which rows were not, and why."""
    failed = f", {document['failed']} of them without a prediction" if document["failed"] else ""
    lines = [f"{document['out']}: {counted(document['rows'], 'row')}{failed}"]
    if (drawn := document.get("drawn")) is not None:
        left_out = drawn["left_out"]
        without = f", {counted(len(left_out), 'row')} without" if left_out else ""
        lines.append(f"{drawn['folder']}: {counted(drawn['images'], 'image')}{without}")
        lines += [f"  row '{row}': {reason}" for row, reason in list(left_out.items())[:SHOWN]]
        lines += [f"  and {n_more} more; --json names them all"] if (n_more := len(left_out) - SHOWN) > 0 else []
    return [Section(lines=lines)]


def importance_report(found: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return, by task, what the score loses without what each block says."""
    sections = []
    for task, group in itertools.groupby(found, key=lambda row: str(row["task"])):
        rows = list(group)
        cells = [[r["block"], interval(r), "" if r["gain"] is None else f"{r['gain']:.0%}"] for r in rows]
        columns = ["block", f"{rows[0]['metric']} lost when shuffled", "share of gain"]
        sections.append(Section(f"{task}: {rows[0]['head']}", columns, cells, [""]))
    return sections


def conversions_report(rows: Sequence[Mapping[str, Any]], ranks: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return one table per task, block and encoder, the best conversion first, and the mean ranks over several."""
    by_family = itertools.groupby(rows, key=lambda row: (row["task"], row["block"]))
    tables = [_conversions_section(f"{task}: {block}", list(found)) for (task, block), found in by_family]
    blocks = list(ranks[0]["blocks"]) if len(ranks[0]["blocks"]) > 1 else []
    cells = [
        [row["convert"], f"{row['rank']:.1f}", f"{row['fold_rank']:.1f}", *(f"{row['blocks'][b]:.1f}" for b in blocks)]
        for row in ranks
    ]
    columns = ["conversion", "mean rank", "mean rank of folds", *blocks]
    return [*tables, *[Section("Over all tasks", columns, cells)] * (len(tables) > 1)]


def interval(found: Mapping[str, Any]) -> str:
    """Return a score with its interval for people."""
    return f"{number(found['value'])} [{number(found['low'])}, {number(found['high'])}]"


def signed(gap: Mapping[str, Any]) -> str:
    """Return a paired difference with its interval for people."""
    return "-" if gap["low"] is None else f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"


def number(value: float | None) -> str:
    """Return a score for people; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def _robustness_section(found: Mapping[str, Any]) -> Section:
    columns = ["seen", found["metric"], "better than clean by", "verdict"]
    cells = [
        [point["view"], interval(point["score"]), signed(point["difference"]), point["verdict"]]
        for point in found["points"]
    ]
    line = f"  {found['words']}; without features {number(found['baseline'])}"
    title = f"{found['task']}: {' + '.join(found['blocks'])}, {found['head']}"
    return Section(title, columns, [["clean", interval(found["clean"]), "", ""], *cells], [line, ""])


def _conversions_section(title: str, rows: Sequence[Mapping[str, Any]]) -> Section:
    columns = ["rank", "conversion", rows[0]["metric"], "better than the default by", "than the best by", "fold rank"]
    cells = [
        [
            f"{row['rank']:g}",
            row["convert"] + (" (default)" if row["is_default"] else ""),
            interval(row["score"]),
            "" if row["is_default"] else signed(row["to_default"]),
            "" if row is rows[0] else signed(row["to_best"]),
            f"{row['fold_rank']:.1f}",
        ]
        for row in rows
    ]
    lines = [_best_words(rows), f"without features {number(rows[0]['baseline'])}"]
    return Section(f"{title}, {rows[0]['head']}", columns, cells, [*(f"  {line}" for line in lines), ""])


def _best_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what the best conversion is worth, and that choosing it among several flatters it."""
    first, default = rows[0], next(row for row in rows if row["is_default"])
    worse = [row for row in rows if row["to_best"]["verdict"] == "hurts"]
    others = f"of the other {len(rows) - 1}"
    told = f"{counted(len(worse), f'{others} is', f'{others} are')} worse than the best"
    if first is default:
        return f"the default {first['convert']} scores best; {told}"
    is_better = first["to_default"]["verdict"] == "helps"
    verdict = "better than" if is_better else "not told apart from"
    doubt = f", though {flattered(len(rows), 'conversions')}" if is_better else ""
    return f"best: {first['convert']}, {verdict} the default {default['convert']}{doubt}; {told}"


def _curve_section(curve: Mapping[str, Any]) -> Section:
    cells = [[str(point["n_rows"]), interval(point)] for point in curve["points"]]
    lines = [f"{curve['words']}; without features {number(curve['baseline'])}"]
    n_rows = cells[-1][0]
    for name, words in (("self_training", "self-trained"), ("label_spreading", "labels spread")):
        if name in curve:
            cells.append([f"{n_rows}, {words}", interval(curve[name]["score"])])
            lines.append(curve[name]["words"])
    title = f"{curve['task']}: {' + '.join(curve['blocks'])}"
    return Section(title, ["labelled rows", curve["metric"]], cells, [*(f"  {line}" for line in lines), ""])
