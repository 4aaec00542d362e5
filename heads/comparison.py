"""Does a block earn its place? Scores with it and without it, on the same rows, resample by resample."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from heads.combination import Combination
from heads.entry import FEW_GROUPS, bootstrapped, span
from heads.leaderboard import Entry, is_held_out, ranked
from heads.metrics import METRICS, Estimate, Interval, difference, side_of_zero
from heads.predictions import Predictions
from heads.registry import PRIOR
from store import counted

Comparison = dict[str, Any]
Key = tuple[Combination, str]

VERDICTS = {None: "no interval", 1: "helps", 0: "not told apart", -1: "hurts"}
ALIKE = 2
"""Up to so many comparisons that tell nothing apart have a line each."""


def compare_blocks(entries: Iterable[Entry], predictions: Predictions) -> list[Comparison]:
    """Compare every combination with the same one without a block, or without a modality, under the same head.

    Args:
        entries: What `Sweep.run` gave.
        predictions: What those entries predicted.

    Returns:
        JSON values, by task: ``block`` is what is added, ``beside`` the blocks it is added to, and value, low and
        high say by how much the headline metric gets better (above 0 helps). ``is_main`` marks one comparison per
        block: beside what scores best without it. That choice favours the side without the block, so a block
        that is said to help does.
    """
    found: list[Comparison] = []
    tasks: dict[str, dict[Key, Entry]] = {}
    for entry in ranked(e for e in entries if e["head"] != PRIOR and not is_held_out(e)):
        tasks.setdefault(entry["task"], {})[tuple(entry["blocks"]), entry["head"]] = entry
    for by_key in tasks.values():
        estimates = {key: _headline(entry, predictions) for key, entry in by_key.items()}
        place = {key: i for i, key in enumerate(by_key)}
        pairs = sorted(_pairs(by_key), key=partial(_order, place))
        mains: set[str] = set()
        for name, beside, (blocks, head) in pairs:
            gap = _gap(estimates[blocks, head], estimates[beside, head], by_key[blocks, head]["headline"])
            made = _comparison(by_key[blocks, head], gap, block=name, beside=beside)
            found.append(made | {"is_main": name not in mains})
            mains.add(name)
    return found


def comparison_lines(found: Iterable[Comparison]) -> list[str]:
    """Return comparisons of one task in words: what helps, the most first, what hurts, then what is not told apart."""
    by_gain = sorted(found, key=lambda line: -(line["value"] or 0.0))
    told = [line["words"] for line in by_gain if line["verdict"] != VERDICTS[0]]
    alike = [line for line in by_gain if line["verdict"] == VERDICTS[0]]
    return [*told, *([_alike(alike)] if len(alike) > ALIKE else [line["words"] for line in alike])]


def compare_entries(mine: Entry, other: Entry, predictions: Predictions) -> Comparison:
    """Say by how much one entry is better than another of the same task, on the same rows, resample by resample.

    Returns:
        JSON values: the metric, value, low and high (above 0: `mine` is better), and the verdict in a word.

    Raises:
        ValueError: They predicted other rows.
    """
    sides = [predictions.of(entry) for entry in (mine, other)]
    if sides[0].row.tolist() != sides[1].row.tolist():
        raise ValueError(f"{mine['head']} and {other['head']} were scored on other rows")
    gap = _gap(_headline(mine, predictions), _headline(other, predictions), mine["headline"])
    return {"task": mine["task"], "metric": mine["headline"], **gap, "verdict": verdict_of(gap)}


def verdict_of(gap: Interval) -> str:
    """Return in a word what a paired difference says."""
    return VERDICTS[side_of_zero(gap)]


def gain_words(gap: Interval, metric: str) -> str:
    """Return a difference with its interval and the metric: ``+0.126 [+0.05, +0.21] accuracy``."""
    value = "-" if gap["value"] is None else f"{gap['value']:+.3g}"
    interval = "" if gap["low"] is None else f" {span(gap)}"
    return f"{value}{interval} {_signed(metric)}"


def _signed(metric: str) -> str:
    """Return a metric's name as it stands behind a difference."""
    return metric if METRICS[metric].is_better_higher else f"{metric} (+ is less, so better)"


Pair = tuple[str, Combination, Key]


def _order(place: Mapping[Key, int], pair: Pair) -> tuple[int, int]:
    """Where the side without the block stands among all entries, best first."""
    _, beside, key = pair
    return place[beside, key[1]], place[key]


def _pairs(by_key: Mapping[Key, Entry]) -> Iterator[Pair]:
    """Yield what is added, what it is added to, and the entry that has both."""
    for blocks, head in by_key:
        for name, added in _parts(blocks).items():
            beside = tuple(block for block in blocks if block not in added)
            if (beside, head) in by_key:
                yield name, beside, (blocks, head)


def _parts(blocks: Combination) -> dict[str, set[str]]:
    """Return each block of a combination, and each modality of which it has several blocks."""
    modalities: dict[str, set[str]] = {}
    for block in blocks:
        modalities.setdefault(block.partition(":")[0], set()).add(block)
    return {block: {block} for block in blocks} | {name: own for name, own in modalities.items() if len(own) > 1}


def _alike(lines: Sequence[Comparison]) -> str:
    """Say in one line which blocks make no difference that is told apart, and how large one may be."""
    within = span({"value": 0.0, "low": min(c["low"] for c in lines), "high": max(c["high"] for c in lines)})
    blocks, metric = ", ".join(line["block"] for line in lines), _signed(lines[0]["metric"])
    return f"not told apart, each beside the best without it: {blocks}; intervals within {within} {metric}"


def _headline(entry: Entry, predictions: Predictions) -> Estimate:
    name = entry["headline"]
    return bootstrapped(predictions.of(entry), name)


def _gap(mine: Estimate, other: Estimate, metric: str) -> Interval:
    return difference(mine, other, is_better_higher=METRICS[metric].is_better_higher).interval()


def _comparison(entry: Entry, gap: Interval, *, block: str, beside: Combination) -> Comparison:
    few = entry["n_groups"] is not None and entry["n_groups"] < FEW_GROUPS
    doubt = f" (only {counted(entry['n_groups'], 'group')}, so the interval is too narrow)" if few else ""
    verdict, gain = verdict_of(gap), gain_words(gap, entry["headline"])
    return {
        "task": entry["task"],
        "block": block,
        "beside": list(beside),
        "head": entry["head"],
        "metric": entry["headline"],
        **gap,
        "verdict": verdict,
        "words": f"{block} beside {' + '.join(beside)}, {entry['head']}: {gain}: {verdict}{doubt}",
    }
