"""Scores on what was never seen, for people: what `transfer` prints, as sections."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heads.leaderboard import Entry, ranked
from heads.metrics import side_of_zero
from heads.registry import PRIOR
from heads.report import SHOWN, interval, number
from heads.selection import flattered
from heads.transfer import MIN_ROWS
from store import Section

Part = Mapping[str, Any]
EXAMPLES = 3


def transfer_report(entries: Iterable[Entry]) -> list[Section]:
    """Return, for the best entry of each task, its score on held-out parts; of many, those where it does worst."""
    tasks: dict[str, list[Entry]] = {}
    for entry in ranked(e for e in entries if e["head"] != PRIOR):
        tasks.setdefault(entry["task"], []).append(entry)
    return [_section(task, own[0], len(own)) for task, own in sorted(tasks.items())]


def _section(task: str, entry: Entry, n_entries: int) -> Section:
    parts, metric = entry["parts"], entry["headline"]
    title = f"{task}: {' + '.join(entry['blocks'])}, {entry['head']}"
    shown = _shown(parts)
    cells = [
        [part["held_out"], str(part["n_rows"]), interval(part["score"]), number(part["baseline"]), part["verdict"]]
        for part in shown
    ]
    lines = _counted(parts, len(shown)) if len(shown) < len(parts) else []
    if any(part["resampled"] == "rows" for part in shown) and entry["n_groups"] is not None:
        lines.append("the interval of a single group is over its rows: it says nothing of other groups")
    if len(parts) > 1 or entry["metrics"][metric]["low"] is not None:
        lines.append(f"all together: {interval(entry['metrics'][metric])}; {entry['verdict']}")
    lines += [f"{flattered(n_entries, 'entries')}: --blocks and --head name one"] if n_entries > 1 else []
    lines = [*(f"  {line}" for line in lines), ""]
    if not shown:
        return Section(lines=[title, *lines])
    return Section(title, ["never seen", "rows", metric, "without features", "verdict"], cells, lines)


def _shown(parts: Sequence[Part]) -> Sequence[Part]:
    """Return all parts where they are few; otherwise those with a verdict, the worst beside the baseline first."""
    if len(parts) <= SHOWN:
        return parts
    return sorted(_judged(parts), key=lambda part: float(part["difference"]["value"]))[:SHOWN]


def _judged(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if part["n_rows"] >= MIN_ROWS]


def _counted(parts: Sequence[Part], n_shown: int) -> list[str]:
    """Say how many parts there are of each verdict, and which are too small for one."""
    judged = _judged(parts)
    lines = []
    if judged:
        sides = [side_of_zero(part["difference"]) or 0 for part in judged]
        found = f"is better than the baseline on {sides.count(1)}, worse on {sides.count(-1)}"
        which = f"; above are the worst {n_shown}" if n_shown < len(judged) else ""
        lines.append(f"of {len(judged)} parts it {found}, not told apart on {sides.count(0)}{which}")
    small = [f"{part['held_out']} ({part['n_rows']})" for part in parts if part["n_rows"] < MIN_ROWS]
    if small:
        more, which = ", …" if len(small) > EXAMPLES else "", f"{len(small)} of" if judged else "all"
        lines.append(
            f"{which} {len(parts)} parts have fewer than {MIN_ROWS} rows, too few for a verdict each: "
            f"{', '.join(small[:EXAMPLES])}{more}"
        )
    return [*lines, "--json has every part"]
