"""Was it worth it? Fine-tuned and best head, paired, on the same rows, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from heads import PRIOR, Entry, Predictions, best, compare_entries, gain_words, is_held_out

WORDS = {"helps": "worth it", "hurts": "not worth it", "not told apart": "not told apart", "no interval": "no interval"}


def compare_with_heads(
    tuned: Sequence[Entry], heads: Sequence[Entry], predictions: Predictions
) -> list[dict[str, Any]]:
    """Compare each task's fine-tuned entries with the best head, resample by resample.

    The head is the best of all on these very rows, which favours the heads: what is said to be worth it, is. On
    held-out rows it is that same head, fitted once more: nothing is chosen there.

    Args:
        tuned: One entry per task, and one more for each held-out set.
        heads: Those of the sweep on the same rows.
        predictions: What all of them predicted.

    Returns:
        JSON values per entry: its ``split``; ``head`` and ``blocks`` of the best, value, low, high (above 0:
        fine-tuning is better), ``verdict`` and ``words``.
    """
    final = {(e["task"], e["split"]): e for e in heads if e["head"] != PRIOR and is_held_out(e)}
    chosen = {(e["task"], e["split"]): e for e in best(heads).values()}
    pairs = ((entry, (chosen | final).get((entry["task"], entry["split"]))) for entry in tuned)
    return [_compared(entry, head, predictions) for entry, head in pairs if head is not None]


def verdict(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence or two what the comparisons say: of the rows that were chosen by, and of held-out rows."""
    splits = list(dict.fromkeys(str(one["split"]) for one in comparisons))
    first, *held_out = ([one for one in comparisons if one["split"] == split] for split in splits or [""])
    more = (f"On held-out {split}: {_lower(summary(found))}" for split, found in zip(splits[1:], held_out, strict=True))
    return " ".join([summary(first), *more])


def summary(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence what the comparisons say."""
    by_verdict: dict[str, list[str]] = {}
    for one in comparisons:
        by_verdict.setdefault(one["verdict"], []).append(one["task"])
    better, worse = by_verdict.pop("helps", []), by_verdict.pop("hurts", [])
    open_ = [task for tasks in by_verdict.values() for task in tasks]
    if not better:
        rest = f"; it is worse for {', '.join(worse)}" if worse else ""
        return (
            f"Fine-tuning was not worth it here: nothing is sure to be better than the best head{rest}. Keep the heads."
        )
    parts = [f"Fine-tuning was worth it for {', '.join(better)}"]
    parts += [f"not told apart for {', '.join(open_)}"] * bool(open_) + [f"worse for {', '.join(worse)}"] * bool(worse)
    return "; ".join(parts) + ("." if not worse and not open_ else ". Keep the heads where it was not.")


def _compared(tuned: Entry, head: Entry, predictions: Predictions) -> dict[str, Any]:
    gap = compare_entries(tuned, head, predictions)
    named = {"split": tuned["split"], "head": head["head"], "blocks": head["blocks"]}
    where = f"{tuned['split']}: " if is_held_out(tuned) else ""
    beside = f"{head['head']} on {' + '.join(head['blocks'])}"
    words = f"{where}fine-tuned beside {beside}: {gain_words(gap, gap['metric'])}: {WORDS[gap['verdict']]}"
    return {**gap, **named, "words": words}


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
