"""Which conversion to 8 bits serves best: ranks, and paired differences to the default and to the best."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.combination import base_block
from heads.comparison import compare_entries
from heads.leaderboard import Entry, may_choose, ranked
from heads.metrics import METRICS, Scored
from heads.predictions import Predictions
from heads.registry import PRIOR
from heads.sweep import Sweep
from store import CONVERSIONS, Dataset, ImageBlock, InputError

Row = dict[str, Any]


def chosen_conversions(dataset: Dataset, deep: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the conversions to compare, those of the dataset among them.

    Args:
        dataset: Its blocks' own conversions are the default that others are compared with.
        deep: Blocks with more than 8 bits (``image:bf``).
        wanted: Conversions; all by default.

    Raises:
        InputError: There is nothing to compare.
    """
    if not deep:
        raise InputError(
            "no image has more than 8 bits, and 8-bit images pass every conversion unchanged: "
            "all scores would be the same"
        )
    own = [_convert(dataset.images[name.removeprefix("image:")]) for name in deep]
    chosen = list(dict.fromkeys([*own, *(wanted or (name for name in CONVERSIONS if name != "none"))]))
    if len(chosen) < 2:
        raise InputError(f"{chosen[0]!r} is the dataset's own conversion: give another --convert to compare it with")
    return chosen


def each_alone(sweep: Sweep, places: Iterable[str]) -> Sweep:
    """Return a sweep that tries every space of some blocks (``image:bf.log``) alone."""
    places = set(places)
    return replace(sweep, blocks=[name for name in sweep.matrix.spaces if name.partition("@")[0] in places])


def compare_conversions(
    entries: Iterable[Entry], predictions: Predictions, *, dataset: Dataset, variants: Dataset
) -> list[Row]:
    """Rank the conversions of every image block and encoder.

    Args:
        entries: Of a sweep over `variants`, one image space each; of several heads the best counts.
        predictions: What those entries predicted.
        dataset: Has each block's own conversion, the default.
        variants: The dataset with every block under every conversion.

    Returns:
        JSON values by task, block and rank: the headline metric as ``score``, ``rank`` by it, ``fold_rank`` (the mean
        of the ranks in each outer fold), and the paired differences ``to_default`` and ``to_best`` (below 0 is worse).
    """
    found: list[Row] = []
    usable = ranked(e for e in entries if e["head"] != PRIOR and may_choose(e))
    by_family: dict[tuple[str, str], dict[str, Entry]] = {}
    for entry in usable:
        name, convert = _family(entry, variants)
        by_family.setdefault((entry["task"], name), {}).setdefault(convert, entry)
    for (_, name), by_convert in by_family.items():
        default = _convert(dataset.images[name.partition("@")[0].removeprefix("image:")])
        found += _rows(name, by_convert, default, predictions)
    return found


def mean_ranks(rows: Sequence[Row]) -> list[Row]:
    """Return the mean rank of each conversion over all tasks and blocks, and per block; the best first."""
    found = []
    for convert in dict.fromkeys(row["convert"] for row in rows):
        own = [row for row in rows if row["convert"] == convert]
        blocks = dict.fromkeys(row["block"] for row in own)
        means = {block: float(np.mean([row["rank"] for row in own if row["block"] == block])) for block in blocks}
        fold_rank = float(np.mean([row["fold_rank"] for row in own]))
        rank = float(np.mean([row["rank"] for row in own]))
        found.append({"convert": convert, "rank": rank, "fold_rank": fold_rank, "blocks": means})
    return sorted(found, key=lambda row: (row["rank"], row["fold_rank"]))


def _convert(block: ImageBlock) -> str:
    """Return a block's conversion; that of a stack is its parts'."""
    return str(block.parts[0].convert if block.parts else block.convert)


def _family(entry: Entry, variants: Dataset) -> tuple[str, str]:
    """Return the block without its variant (``image:bf@texture``), and the conversion."""
    [block] = entry["blocks"]
    place, _, encoder = block.partition("@")
    convert = _convert(variants.images[place.removeprefix("image:")])
    return f"{base_block(block)}@{encoder.partition('#')[0]}", convert


def _rows(name: str, by_convert: Mapping[str, Entry], default: str, predictions: Predictions) -> list[Row]:
    """Return one row per conversion of one task, block and encoder, the best first."""
    entries = list(by_convert.values())
    metric = entries[0]["headline"]
    of_folds = np.stack([_per_fold(predictions.of(entry), metric) for entry in entries])
    fold_rank = np.stack([_rank(fold, metric) for fold in of_folds.T]).mean(axis=0)
    rank = _rank(np.array([_value(entry) for entry in entries]), metric)
    rows = []
    for i, (convert, entry) in enumerate(by_convert.items()):
        to_default = compare_entries(entry, by_convert[default], predictions)
        to_best = compare_entries(entry, entries[0], predictions)
        rows.append(
            {
                "task": entry["task"],
                "block": name,
                "head": entry["head"],
                "convert": convert,
                "is_default": convert == default,
                "metric": metric,
                "score": entry["metrics"][metric],
                "baseline": entry["baseline"][metric],
                "beats_baseline": entry["beats_baseline"],
                "rank": float(rank[i]),
                "fold_rank": float(fold_rank[i]),
                "to_default": to_default,
                "to_best": to_best,
            }
        )
    return rows


def _value(entry: Entry) -> float:
    value = entry["metrics"][entry["headline"]]["value"]
    return float("nan") if value is None else float(value)


def _per_fold(scored: Scored, metric: str) -> NDArray[np.float64]:
    """Return the metric of each outer fold, ``(f,)``."""
    share = scored.weights / scored.weights.sum()
    parts = [scored.take(np.flatnonzero(scored.fold == fold)) for fold in np.unique(scored.fold)]
    found = [METRICS[metric].score(part, np.ones((1, len(part.y)))).reshape(-1) for part in parts]
    return np.array([float(one @ share) for one in found])


def _rank(values: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """Return ranks from 1, the best first; ties share the mean of theirs."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-values if METRICS[metric].is_better_higher else values), dtype=np.float64)
