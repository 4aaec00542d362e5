"""The leaderboard: every result ever computed, one JSON line each, only ever appended to."""

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from heads.metrics import METRICS, side_of_zero
from heads.registry import PRIOR
from store import StoreError, write_error

Entry = dict[str, Any]
"""A result; its keys are listed in DESIGN.md under "What scripts rely on"."""

SCHEMA_VERSION = 1
NO_FEATURES = "(no features)"
"""What the prior's blocks are called."""
ONE_FOLD = "fold-"  # begins the split of entries that one outer fold was scored for, such as "fold-0"


class Leaderboard:
    """An append-only file of entries.

    Args:
        path: ``runs/leaderboard.jsonl``; its folder is made on the first append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line in one write, so that a killed run leaves at most one torn line, the last.

        Raises:
            InputError: The folder cannot be written to.
            StoreError: The disk is full.
        """
        line = json.dumps({"schema_version": SCHEMA_VERSION, **entry}, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(line if self._ends_whole() else "\n" + line)
        except OSError as error:
            raise write_error(self.path, error) from None

    def entries(self) -> list[Entry]:
        """Return every whole line, oldest first; a line torn by a killed run is passed over.

        Raises:
            StoreError: A line was written by another schema version.
        """
        if not self.path.exists():
            return []
        found = [_parse(line) for line in self.path.read_bytes().splitlines()]
        entries = [entry for entry in found if entry is not None]
        for entry in entries:
            if entry.get("schema_version") != SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path}: schema version {entry.get('schema_version')!r}, expected {SCHEMA_VERSION}. "
                    "Move the file away to start a new leaderboard."
                )
        return entries

    def known(self) -> dict[str, Entry]:
        """Return entries by identity, the latest of each."""
        return {entry["identity"]: entry for entry in self.entries()}

    def _write(self, text: str) -> None:
        data = text.encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(handle, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)

    def _ends_whole(self) -> bool:
        if not self.path.exists() or not self.path.stat().st_size:
            return True
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def is_held_out(entry: Mapping[str, Any]) -> bool:
    """Say whether an entry scores a held-out set: rows of any split but folds and val."""
    return entry["split"] not in ("cv", "val") and not entry["split"].startswith(ONE_FOLD)


def may_choose(entry: Mapping[str, Any]) -> bool:
    """Say whether an entry may be chosen: it scores folds or val, and is no reference."""
    return not is_held_out(entry) and not entry.get("is_reference", False)


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries by task, in order of appearance, and best first by the headline metric within a task.

    Scores of held-out rows come after all others, one set after the other: they are not comparable with them.
    """
    entries = list(entries)
    order = {task: i for i, task in enumerate(dict.fromkeys(entry["task"] for entry in entries))}
    return sorted(entries, key=lambda e: (order[e["task"]], _place(e), _badness(e), len(e["blocks"])))


def best(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return each task's best entry that looks at features.

    Ties go to fewer blocks. The prior is never best: its score stands beside the best as the baseline; nor is a
    reference. Nothing is chosen by scores of held-out rows.
    """
    found: dict[str, Entry] = {}
    for entry in ranked(e for e in entries if e["head"] != PRIOR and may_choose(e)):
        found.setdefault(entry["task"], entry)
    return found


def table(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return one row per entry for people, ranked: names, the headline with its interval, baseline, verdict."""
    return [_row(entry) for entry in ranked(entries)]


def block_words(entry: Entry, *, between: str = " + ") -> str:
    """Return an entry's blocks for people; a reference is marked as one."""
    words = between.join(entry["blocks"]) or NO_FEATURES
    return f"{words} (reference)" if entry.get("is_reference", False) else words


def _row(entry: Entry) -> dict[str, Any]:
    name = entry["headline"]
    return {
        "task": entry["task"],
        "blocks": block_words(entry),
        "head": entry["head"],
        "metric": name,
        **entry["metrics"][name],
        "baseline": entry["baseline"][name],
        "beats_baseline": entry["beats_baseline"],
        "standing": standing(entry),
        "verdict": entry["verdict"],
        "split": entry["split"],
        "seconds": entry["seconds"],
        "is_reused": entry.get("is_reused", False),
        "is_reference": entry.get("is_reference", False),
        "n_earlier": entry.get("n_earlier", 0),
    }


def standing(entry: Entry) -> str:
    """Return in a word how the features stand to the baseline, by the paired interval of the difference."""
    if entry["head"] == PRIOR:
        return ""
    return {1: "better", -1: "worse"}.get(side_of_zero(entry["difference"]) or 0, "not told apart")


def _place(entry: Entry) -> tuple[bool, bool, str]:
    """Return what orders rows that may be chosen by, then test, then other held-out sets."""
    name = entry["split"] if is_held_out(entry) else ""
    return name != "", name != "test", name


def _badness(entry: Entry) -> float:
    name = entry["headline"]
    value = entry["metrics"][name]["value"]
    if value is None:
        return float("inf")
    return -value if METRICS[name].is_better_higher else float(value)


def _parse(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
