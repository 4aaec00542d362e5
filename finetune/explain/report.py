"""What `explain` found, for people."""

from collections.abc import Mapping
from typing import Any

from heads import importance_report
from store import Section


def explain_report(document: Mapping[str, Any]) -> list[Section]:
    """Return the rows' predictions, their likes among the training rows and pictures; and what each block is worth."""
    cells = [
        [row["id"], _predicted(row), _nearest(row), str(len(row["pictures"])), row["status"]]
        for row in document["rows"]
    ]
    columns = ["row", "predicted (probability)", "most like (distance)", "pictures", "status"]
    return [
        Section("Rows", columns, cells, [*document["notes"], ""]),
        *importance_report(document["blocks"]),
    ]


def _predicted(row: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{one['output']} {one['value']:.4g}" if one["p"] is None else f"{one['task']} {one['value']} ({one['p']:.2f})"
        for one in row["predictions"]
    )


def _nearest(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{one['id']} ({one['distance']:.2f})" for one in row.get("nearest", []))
