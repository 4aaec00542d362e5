"""What `finetune` prints for people."""

from collections.abc import Mapping
from typing import Any

from heads import best, entries_report, outputs_report
from store import Section


def finetune_report(document: Mapping[str, Any]) -> list[Section]:
    """Return a table per task, heads and fine-tuned, and under it whether fine-tuning was worth it.

    Each output of a task of several is shown for the network too, where a head is best.
    """
    entries = document["entries"]
    tuned = [entry for entry in entries if "run" in entry and entry not in best(entries).values()]
    own = [section for entry in tuned for section in outputs_report(entry, entries)]
    trained = f"best epoch {document['best_epoch']} of {document['epochs']}; {document['seconds']:.0f} s of training"
    lines = [document["summary"], f"{trained}; model: {document['bundle']}"]
    said = [*document["selection"], *document["comparisons"]]
    evaluation: dict[str, Any] = {"selection": said, "comparisons": [], "group_gap": []}
    return [*entries_report(entries, evaluation), *own, Section(lines=lines)]
