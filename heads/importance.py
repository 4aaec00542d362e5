"""Which block a fitted head leans on: what its score loses when a block's rows are shuffled, and LightGBM's gain."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.boosted import BoostedHead
from heads.calibration import CalibratedHead, calibrated
from heads.entry import bootstrapped
from heads.metrics import METRICS, Estimate, difference
from heads.plan import Plan
from heads.sweep import Sweep

N_SHUFFLES = 5

Importance = dict[str, Any]


def block_importance(sweep: Sweep, chosen: Iterable[Mapping[str, Any]]) -> list[Importance]:
    """Fit what was chosen along the sweep's folds, and measure each of its blocks on rows the models have not seen.

    Permutation importance (Breiman 2001, "Random forests", 10.1023/A:1010933404324) of whole blocks: the block's rows
    are shuffled among the scored rows of a fold. Two blocks that say the same share what they are worth between them,
    so neither looks important alone; `compare_blocks` fits anew without a block and answers whether it helps.

    Args:
        sweep: Its dataset, matrix and split.
        chosen: Entries, or as much of them: ``task``, ``head``, ``blocks``, ``headline``.

    Returns:
        JSON values by task and block: by how much the headline metric falls, with its interval over groups (above 0:
        the head leans on it), and ``gain``, the block's share of LightGBM's gain; None for other heads.
    """
    return [row for entry in chosen for row in _importance(sweep, entry)]


def _importance(sweep: Sweep, entry: Mapping[str, Any]) -> list[Importance]:
    plan, blocks, headline = sweep.plan(entry["task"], sweep.pairs), tuple(entry["blocks"]), entry["headline"]
    [heads] = sweep.fit([plan], blocks, entry["head"])
    X = sweep.columns(blocks, plan.rows)
    columns, places = sweep.matrix.select(blocks), sweep.matrix.blocks
    parts = {name: (columns >= places[name].start) & (columns < places[name].stop) for name in blocks}
    whole, gain = _score(plan, heads, X, headline), _gain(heads, parts)
    falls = {
        name: difference(
            whole, _shuffled(plan, heads, X, part, headline), is_better_higher=METRICS[headline].is_better_higher
        )
        for name, part in parts.items()
    }
    about = {"task": entry["task"], "head": entry["head"], "metric": headline}
    return [about | {"block": name, **fall.interval(), "gain": gain.get(name)} for name, fall in falls.items()]


def _shuffled(
    plan: Plan, heads: Sequence[CalibratedHead], X: NDArray[np.float32], part: NDArray[np.bool_], headline: str
) -> Estimate:
    """Return the mean over shuffles of the score with one block's rows exchanged among each fold's scored rows."""
    found = []
    for seed in range(N_SHUFFLES):
        rng, mixed = np.random.default_rng(seed), X.copy()
        for rows in plan.score:
            mixed[np.ix_(rows, part)] = X[np.ix_(rng.permutation(rows), part)]
        found.append(_score(plan, heads, mixed, headline))
    return replace(
        found[0],
        value=np.mean([one.value for one in found], axis=0),
        samples=np.mean([one.samples for one in found], axis=0),
    )


def _score(plan: Plan, heads: Sequence[CalibratedHead], X: NDArray[np.float32], headline: str) -> Estimate:
    scored = calibrated(plan.scored([head.head for head in heads], X), [head.calibration for head in heads])
    return bootstrapped(scored, headline)


def _gain(heads: Sequence[CalibratedHead], parts: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Return each block's share of the gain of all splits, for boosted trees."""
    boosted = [head.head for head in heads if isinstance(head.head, BoostedHead)]
    if not boosted:
        return {}
    gain = np.sum([head.gain for head in boosted], axis=0)
    return {name: float(gain[part].sum() / max(gain.sum(), np.finfo(float).tiny)) for name, part in parts.items()}
