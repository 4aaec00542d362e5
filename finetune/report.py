"""What `finetune` prints for people."""

from collections.abc import Mapping
from typing import Any

from heads import entries_report
from store import Section


def finetune_report(document: Mapping[str, Any]) -> list[Section]:
    """Return a table per task, heads and fine-tuned, and under it whether fine-tuning was worth it."""
    comparisons = [{**one, "is_main": True} for one in document["comparisons"]]
    trained = f"best epoch {document['best_epoch']} of {document['epochs']}; {document['seconds']:.0f} s of training"
    lines = [document["summary"], f"{trained}; model: {document['bundle']}"]
    return [*entries_report(document["entries"], {"comparisons": comparisons, "group_gap": []}), Section(lines=lines)]
