"""What each entry predicted, kept so that entries can be compared row by row, also those that are reused."""

import os
from pathlib import Path
from typing import get_args
from zipfile import BadZipFile

import numpy as np

from heads.leaderboard import Entry
from heads.metrics import Kind, Scored
from store import write_error

SCHEMA_VERSION = 1


class Predictions:
    """Predictions of scored rows by the identity of their entry, in memory and on disk.

    Args:
        folder: ``runs/predictions``, one ``.npz`` per entry; None keeps them in memory alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._held: dict[str, Scored] = {}

    def keep(self, identity: str, scored: Scored) -> None:
        """Keep one entry's predictions; a file appears whole or not at all.

        Raises:
            InputError: The folder cannot be written to.
            StoreError: The disk is full.
        """
        self._held[identity] = scored
        if self.folder is not None:
            _write(self.folder / f"{identity}.npz", scored)

    def find(self, identity: str) -> Scored | None:
        """Return an entry's predictions; None where they are not kept, or by another version, or damaged."""
        if identity not in self._held and self.folder is not None:
            found = _read(self.folder / f"{identity}.npz")
            if found is not None:
                self._held[identity] = found
        return self._held.get(identity)

    def of(self, entry: Entry) -> Scored:
        """Return the predictions of an entry that was run with these."""
        scored = self.find(entry["identity"])
        if scored is None:
            raise ValueError(f"no predictions are kept of entry {entry['identity']}")
        return scored


def _write(path: Path, scored: Scored) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                schema_version=np.array(SCHEMA_VERSION),
                kind=np.array(scored.kind),
                y=scored.y,
                predicted=scored.predicted,
                fold=scored.fold,
                unit=scored.unit,
                weights=scored.weights,
                row=scored.row,
            )
        partial.replace(path)
    except OSError as error:
        raise write_error(path, error) from None


def _read(path: Path) -> Scored | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["schema_version"]) != SCHEMA_VERSION:
                return None
            [kind] = [kind for kind in get_args(Kind) if kind == str(arrays["kind"])]
            names = ("y", "predicted", "fold", "unit", "weights", "row")
            return Scored(kind, **{name: arrays[name] for name in names})
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
