"""Which block a fitted head leans on: what its score loses when a block's rows are shuffled, and LightGBM's gain."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.boosted import BoostedHead
from heads.bundle import Bundle
from heads.calibration import CalibratedHead, calibrated
from heads.entry import bootstrapped
from heads.held_out import predicted
from heads.matrix import FeatureMatrix
from heads.metrics import HEADLINE, METRICS, Estimate, difference
from heads.plan import Plan, make_plan
from heads.sweep import Sweep
from store import Dataset

N_SHUFFLES = 5

Importance = dict[str, Any]
See = Callable[[NDArray[np.float32]], NDArray[np.float32]]


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


def network_importance(
    bundle: Bundle,
    dataset: Dataset,
    X: NDArray[np.float32],
    *,
    parts: Mapping[str, slice],
    see: See,
    train: NDArray[np.int64],
    score: NDArray[np.int64],
    head: str,
) -> list[Importance]:
    """Measure the blocks of a network whose last layers are a bundle, as `block_importance` does those of heads.

    Args:
        bundle: Linear heads on what `see` makes of a row.
        dataset: n rows with labels.
        X: float32 ``(n, d)``: the blocks' features side by side; NaN in rows that cannot be read or are not scored.
        parts: Each block's columns.
        see: From rows of X to what the heads read.
        train: Rows that the network was trained on.
        score: Rows that it was not.
        head: What to call it.

    Returns:
        As `block_importance`; nothing for a task without a label in the rows to score.
    """
    readable = np.ones(dataset.n_rows, dtype=bool)
    readable[score] = ~np.isnan(X[score]).any(axis=1)
    matrix = FeatureMatrix(dataset.ids, X, parts, (), readable, {}, {})
    masks = {name: np.isin(np.arange(X.shape[1]), np.arange(part.start, part.stop)) for name, part in parts.items()}
    found = []
    for name, model in bundle.models.items():
        seed, task = int(bundle.about["seed"]), dataset.tasks[name]
        plan = make_plan(dataset, matrix, task, pairs=[(train, score)], seed=seed)
        if len(plan.score[0]):
            about = {"task": name, "head": head, "metric": HEADLINE[task.kind]}
            found += _falls(_Scorer(plan, [model.fitted], about["metric"], see), X[plan.rows], masks, about)
    return found


def _importance(sweep: Sweep, entry: Mapping[str, Any]) -> list[Importance]:
    plan, blocks = sweep.plan(entry["task"], sweep.pairs), tuple(entry["blocks"])
    [heads] = sweep.fit([plan], blocks, entry["head"])
    columns, places = sweep.matrix.select(blocks), sweep.matrix.blocks
    parts = {name: (columns >= places[name].start) & (columns < places[name].stop) for name in blocks}
    about = {"task": entry["task"], "head": entry["head"], "metric": entry["headline"]}
    return _falls(_Scorer(plan, heads, entry["headline"]), sweep.columns(blocks, plan.rows), parts, about)


@dataclass(frozen=True)
class _Scorer:
    """What measures heads on the rows of a plan that they have not seen; `see` comes before them."""

    plan: Plan
    heads: Sequence[CalibratedHead]
    headline: str
    see: See = np.asarray

    def __call__(self, X: NDArray[np.float32]) -> Estimate:
        """Return the headline metric of rows float32 ``(m, d)``."""
        plan, heads = self.plan, zip(self.heads, self.plan.score, strict=True)
        kind, n_classes = plan.task.kind, len(plan.task.classes)
        raw = plan.pooled([predicted(head.head, self.see(X[rows]), kind, n_classes) for head, rows in heads])
        return bootstrapped(calibrated(raw, [head.calibration for head in self.heads]), self.headline)


def _falls(
    score: _Scorer, X: NDArray[np.float32], parts: Mapping[str, NDArray[np.bool_]], about: Mapping[str, str]
) -> list[Importance]:
    """Return by how much the score falls with each block's columns shuffled."""
    whole, gain = score(X), _gain(score.heads, parts)
    is_better_higher = METRICS[score.headline].is_better_higher
    falls = {
        name: difference(whole, _shuffled(score, X, part), is_better_higher=is_better_higher)
        for name, part in parts.items()
    }
    return [{**about, "block": name, **fall.interval(), "gain": gain.get(name)} for name, fall in falls.items()]


def _shuffled(score: _Scorer, X: NDArray[np.float32], part: NDArray[np.bool_]) -> Estimate:
    """Return the mean over shuffles of the score with one block's rows exchanged among each fold's scored rows."""
    found = []
    for seed in range(N_SHUFFLES):
        rng, mixed = np.random.default_rng(seed), X.copy()
        for rows in score.plan.score:
            mixed[np.ix_(rows, part)] = X[np.ix_(rng.permutation(rows), part)]
        found.append(score(mixed))
    return replace(
        found[0],
        value=np.mean([one.value for one in found], axis=0),
        samples=np.mean([one.samples for one in found], axis=0),
    )


def _gain(heads: Sequence[CalibratedHead], parts: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Return each block's share of the gain of all splits, for boosted trees."""
    boosted = [head.head for head in heads if isinstance(head.head, BoostedHead)]
    if not boosted:
        return {}
    gain = np.sum([head.gain for head in boosted], axis=0)
    return {name: float(gain[part].sum() / max(gain.sum(), np.finfo(float).tiny)) for name, part in parts.items()}
