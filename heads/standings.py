"""All stored results of a task, ranked: each beside the best one of the same rows."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heads.comparison import verdict_of
from heads.entry import bootstrapped
from heads.leaderboard import is_held_out, table
from heads.metrics import METRICS, difference
from heads.registry import PRIOR
from heads.stored import Result, Stored, Wanted
from heads.sweep import check_names
from store import InputError

Standing = dict[str, Any]


def standings(stored: Stored, tasks: Sequence[str], wanted: Wanted) -> list[Standing]:
    """Rank stored results, best first, by task and by the rows that were scored.

    Args:
        stored: The results beside a dataset.
        tasks: Names; all by default.
        wanted: Which of them; the prior and the metadata alone always stand beside them.

    Returns:
        JSON values, one per result: what `table` says of its entry, ``is_held_out`` and ``n_rows``; ``to_best``, by how
        much it is better than the best of the same rows (value, low, high, verdict; None for the best itself, and for
        other rows); and of fine-tuning ``run``, ``settings`` (those in which the task's runs differ) and ``stop``, the
        metric on the rows that chose the best epoch.

    Raises:
        InputError: There is nothing to rank, or no such task.
    """
    check_names("task", tasks, stored.dataset.tasks)
    found: list[Standing] = []
    for task in tasks or stored.dataset.tasks:
        by_rows = itertools.groupby(stored.ranked(task, wanted), key=lambda result: str(result.entry["split"]))
        for _, results in by_rows:
            found += _ranked(list(results))
    if not found:
        raise InputError(f"{stored.leaderboard.path}: no result as asked for; run heads or finetune first")
    return found


def _ranked(results: Sequence[Result]) -> Iterator[Standing]:
    best = next((result for result in results if _competes(result)), None)
    if best is None:
        return
    given = [_dotted(result.entry.get("settings") or {}) for result in results]
    differing = _differing([own for own, result in zip(given, results, strict=True) if "settings" in result.entry])
    for result, own in zip(results, given, strict=True):
        [row] = table([result.entry])
        yield row | {
            "is_held_out": is_held_out(result.entry),
            "n_rows": result.entry["n_rows"],
            "to_best": None if result is best else _to_best(result, best),
            "run": result.entry.get("run"),
            "settings": {name: own[name] for name in differing if name in own},
            "stop": result.entry.get("stop"),
        }


def _competes(result: Result) -> bool:
    return result.entry["head"] != PRIOR and not result.entry.get("is_reference", False)


def _to_best(result: Result, best: Result) -> dict[str, Any] | None:
    if result.scored.row.tolist() != best.scored.row.tolist():
        return None
    name = best.entry["headline"]
    mine, other = (bootstrapped(one.scored, name) for one in (result, best))
    gap = difference(mine, other, is_better_higher=METRICS[name].is_better_higher).interval()
    return {**gap, "verdict": verdict_of(gap)}


def _dotted(settings: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _dotted(value, f"{start}{key}.") if isinstance(value, Mapping) else {f"{start}{key}": value}
    return found


def _differing(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys, but for the blocks, that are not the same everywhere; not given is a value of its own."""
    names = dict.fromkeys(name for own in given for name in own)
    return [name for name in names if name != "blocks" and len({json.dumps(own.get(name, "")) for own in given}) > 1]
