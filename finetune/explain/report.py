"""What `explain` found, for people."""

from collections.abc import Mapping
from typing import Any

from heads import importance_report
from store import Section


def explain_report(document: Mapping[str, Any]) -> list[Section]:
    """Return the rows with the training rows they resemble and their pictures, and what each block is worth."""
    cells = [[row["id"], _nearest(row), str(len(row["pictures"])), row["status"]] for row in document["rows"]]
    rows = Section("Rows", ["row", "most like (distance)", "pictures", "status"], cells, [""])
    return [rows, *importance_report(document["blocks"])]


def _nearest(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{one['id']} ({one['distance']:.2f})" for one in row.get("nearest", []))
