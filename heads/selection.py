"""The best of many scores on the same rows is flattered: what choosing gives on rows that chose nothing.

The best entry of each resample of the groups is scored on the groups that were not drawn, and the mean is taken over
the resamples; no model is fitted again: bootstrap bias corrected cross-validation (Tsamardinos, Greasidou and
Borboudakis 2018, 10.1007/s10994-018-5714-4).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from heads.entry import BOOTSTRAP_SEED
from heads.head import Float
from heads.leaderboard import Entry, may_choose, ranked
from heads.metrics import METRICS, Scored, resamples
from heads.predictions import Predictions
from heads.registry import PRIOR

HANDFUL = 5
"""Up to so many entries of a task, the choice among them is not spoken of."""


LAST = "--final scores held-out rows once"


def flattered(n: int, what: str) -> str:
    """Return the words for the best of `n` scores on the same rows."""
    return f"the best of {n} {what} on the same rows is flattered"


def score_choice(entries: Iterable[Entry], predictions: Predictions) -> list[dict[str, Any]]:
    """Say what each task's choice of an entry is worth on rows that took no part in it.

    Args:
        entries: What `Sweep.run` gave.
        predictions: What those entries predicted.

    Returns:
        JSON values, one per task of more than HANDFUL entries: ``n_entries``, the headline metric, its ``value`` where
        the choice is scored too (None where fewer than two groups are), and ``words``.
    """
    tasks: dict[str, list[Entry]] = {}
    for entry in ranked(e for e in entries if e["head"] != PRIOR and may_choose(e)):
        tasks.setdefault(entry["task"], []).append(entry)
    return [_line(own, [predictions.of(entry) for entry in own]) for own in tasks.values() if len(own) > HANDFUL]


def choice_score(scored: Sequence[Scored], metric: str) -> float | None:
    """Return a metric of the best of several entries, chosen by resampled units and scored on the units left out.

    Args:
        scored: What each entry predicted, of the same rows in the same order.
        metric: Which one; also what is chosen by.
    """
    sign = 1.0 if METRICS[metric].is_better_higher else -1.0
    found = []
    for counts in resamples(scored[0].unit, seed=BOOTSTRAP_SEED):
        chosen = np.nan_to_num([sign * _score(one, counts, metric) for one in scored], nan=-np.inf).argmax(axis=0)
        left_out = np.where(np.isnan(counts), np.nan, counts == 0)
        found += [_score(one, left_out[chosen == place], metric) for place, one in enumerate(scored)]
    values = np.concatenate(found)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _score(scored: Scored, counts: Float, metric: str) -> Float:
    """Return a metric of counted rows ``(r, m)``, its weighted mean over the outputs: ``(r,)``."""
    values = METRICS[metric].score(scored, counts)
    return values if values.ndim == 1 else values @ (scored.weights / scored.weights.sum())


def _line(entries: Sequence[Entry], scored: Sequence[Scored]) -> dict[str, Any]:
    metric, n = entries[0]["headline"], len(entries)
    value = choice_score(scored, metric)
    worth = "" if value is None else f": chosen on some of them and scored on the others it has {metric} {value:.3g}"
    words = f"{flattered(n, 'entries')}{worth}; {LAST}"
    return {"task": entries[0]["task"], "metric": metric, "n_entries": n, "value": value, "words": words}
