"""Metrics, and how far chance moves them: bootstrap intervals over groups, or over rows where there are none.

Every metric is written once, for weighted rows: a resample of the data is a count per row, so a thousand
resamples are one matrix product. The point value is the metric at all counts one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heads.head import Float
from heads.ranking import Ranking, area, average_precision, rank
from heads.ratio import mean_of_defined, ratio

Kind = Literal["classification", "regression"]
Interval = dict[str, float | None]

N_RESAMPLES = 1000
COVERAGE_PERCENT = (2.5, 97.5)
P_MIN = float(np.finfo(np.float32).eps)  # a probability of 0 costs as much as float32 can tell from 0
N_BINS = 15  # of confidence; Guo et al. 2017, section 4
CELLS_AT_ONCE = 2_000_000  # resamples x rows held in memory at a time


@dataclass(frozen=True)
class Scored:
    """Predictions for m rows, and the truth.

    Attributes:
        kind: Classification or regression.
        y: int64 ``(m,)`` class indices, or float64 ``(m, t)``.
        predicted: float64 ``(m, c)`` probabilities, or ``(m, t)`` values.
        fold: int64 ``(m,)``: rows of one fold were predicted by one model.
        unit: int64 ``(m,)``: what is resampled, a group's or a row's number, counted from 0.
        weights: ``(t,)`` one weight per output; ``(1,)`` for classification.
        row: int64 ``(m,)``: rows of the dataset; empty where nobody asks which.
    """

    kind: Kind
    y: NDArray[np.int64] | Float
    predicted: Float
    fold: NDArray[np.int64]
    unit: NDArray[np.int64]
    weights: Float
    row: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def take(self, places: NDArray[np.int64]) -> "Scored":
        """Return the rows at some places; units are numbered anew, folds keep their numbers."""
        unit = np.unique(self.unit[places], return_inverse=True)[1]
        y, predicted, fold = self.y[places], self.predicted[places], self.fold[places]
        return Scored(self.kind, y, predicted, fold, unit, self.weights, self.row[places])

    @cached_property
    def true_and_predicted(self) -> tuple[Float, Float]:
        """The labels and the likeliest classes as indicators, ``(m, c)`` each."""
        n_classes = self.predicted.shape[1]
        return _one_hot(self.y, n_classes), _one_hot(self.predicted.argmax(axis=1), n_classes)  # type: ignore[arg-type]

    @cached_property
    def rankings(self) -> list[Ranking]:
        """The rows by what the second of two classes scores, or by what each of several does."""
        n_classes = self.predicted.shape[1]
        classes = range(1, 2) if n_classes == 2 else range(n_classes)
        return [rank(self.predicted[:, c], self.y == c, self.fold) for c in classes]


@dataclass(frozen=True)
class Metric:
    """A metric of weighted rows: ``score(scored, counts (r, m))`` gives ``(r,)``, or ``(r, t)`` for regression.

    Attributes:
        has_interval: False for one that resampling shifts: its percentiles need not even hold its own value.
    """

    kind: Kind
    is_better_higher: bool
    score: Callable[[Scored, Float], Float]
    has_interval: bool = True


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its values on r resamples, per output.

    Attributes:
        value: ``(t,)``.
        samples: ``(r, t)``; the same seed and units give the same resamples, so two estimates can be paired.
        weights: ``(t,)`` for the mean over outputs.
    """

    value: Float
    samples: Float
    weights: Float

    @property
    def mean(self) -> "Estimate":
        """The weighted mean over the outputs, as an estimate of one output."""
        share = self.weights / self.weights.sum()
        return Estimate((self.value @ share)[None], (self.samples @ share)[:, None], np.ones(1))

    def interval(self, output: int = 0) -> Interval:
        """Return the value and its 95 % percentile interval; None stands for "not defined here"."""
        samples = self.samples[:, output]
        samples = samples[np.isfinite(samples)]
        low, high = np.percentile(samples, COVERAGE_PERCENT) if len(samples) else (np.nan, np.nan)
        return {"value": _or_none(self.value[output]), "low": _or_none(low), "high": _or_none(high)}


def estimate(scored: Scored, *, seed: int, names: Sequence[str] = ()) -> dict[str, Estimate]:
    """Return metrics of the kind with their resamples.

    Args:
        scored: m rows. With fewer than two units there is nothing to resample, and intervals are not defined.
        seed: Of the resampling.
        names: Which metrics; every one by default.
    """
    names = names or metric_names(scored.kind)
    scored = replace(scored)  # indicators and rankings, as large as the predictions, are let go of with the copy
    ones = np.ones((1, len(scored.y)))
    values = {name: _columns(METRICS[name].score(scored, ones))[0] for name in names}
    parts = [_score_all(scored, counts, names) for counts in resamples(scored.unit, seed=seed)]
    return {
        name: Estimate(value, np.concatenate([part[name] for part in parts]), scored.weights)
        for name, value in values.items()
    }


def difference(mine: Estimate, other: Estimate, *, is_better_higher: bool) -> Estimate:
    """Return by how much `mine` is better than `other`, paired resample by resample; above 0 is better."""
    sign = 1.0 if is_better_higher else -1.0
    return Estimate(sign * (mine.value - other.value), sign * (mine.samples - other.samples), mine.weights)


def side_of_zero(gap: Interval) -> int | None:
    """Return 1 where the whole interval of a difference is above 0, -1 where it is below, else 0; None without one."""
    low, high = gap["low"], gap["high"]
    if low is None or high is None:
        return None
    return 1 if low > 0 else -1 if high < 0 else 0


def metric_names(kind: Kind) -> list[str]:
    """Return the metrics of a kind of task, the headline first."""
    return [name for name, metric in METRICS.items() if metric.kind == kind]


def _score_all(scored: Scored, counts: Float, names: Sequence[str]) -> dict[str, Float]:
    undefined = np.full((len(counts), 1), np.nan)
    return {
        name: _columns(METRICS[name].score(scored, counts)) if METRICS[name].has_interval else undefined
        for name in names
    }


def resamples(unit: NDArray[np.int64], *, seed: int) -> Iterator[Float]:
    """Yield how often each row is drawn, ``(r, m)`` a piece, N_RESAMPLES in all; undefined for a single unit."""
    drawn = draws(int(unit.max()) + 1, seed)
    at_once = max(1, CELLS_AT_ONCE // len(unit))
    for start in range(0, N_RESAMPLES, at_once):
        piece = drawn[:, start : start + at_once]
        yield piece[unit].astype(np.float64).T if len(drawn) > 1 else np.full((piece.shape[1], len(unit)), np.nan)


@lru_cache(maxsize=8)
def draws(n_units: int, seed: int) -> NDArray[np.uint8]:
    """Return how often each unit is drawn in each resample, ``(n_units, N_RESAMPLES)``; the same for all of a task.

    More units than a byte can count to are never one unit drawn so often: the chance is below 1e-500.
    """
    rng = np.random.default_rng(seed)
    found = np.empty((n_units, N_RESAMPLES), np.uint8)
    at_once = max(1, CELLS_AT_ONCE // n_units)
    for start in range(0, N_RESAMPLES, at_once):
        n = min(at_once, N_RESAMPLES - start)
        found[:, start : start + n] = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n).T
    return found


def _columns(values: Float) -> Float:
    return values[:, None] if values.ndim == 1 else values


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(counts: Float, values: Float) -> Float:
    total = counts.sum(axis=1)
    return ratio(counts @ values, total if values.ndim == 1 else total[:, None])


def _one_hot(labels: NDArray[np.int64], n_classes: int) -> Float:
    return np.asarray(labels[:, None] == np.arange(n_classes), dtype=np.float64)


def _accuracy(scored: Scored, counts: Float) -> Float:
    return _mean(counts, (scored.predicted.argmax(axis=1) == scored.y).astype(np.float64))


def _balanced_accuracy(scored: Scored, counts: Float) -> Float:
    true, predicted = scored.true_and_predicted
    return mean_of_defined(ratio(counts @ (true * predicted), counts @ true))


def _macro_f1(scored: Scored, counts: Float) -> Float:
    true, predicted = scored.true_and_predicted
    return mean_of_defined(ratio(2 * (counts @ (true * predicted)), counts @ (true + predicted)))


def _log_loss(scored: Scored, counts: Float) -> Float:
    of_truth = np.take_along_axis(scored.predicted, scored.y[:, None], axis=1)[:, 0]  # type: ignore[arg-type]
    return _mean(counts, -np.log(np.clip(of_truth, P_MIN, 1.0)))


def _roc_auc(scored: Scored, counts: Float) -> Float:
    return _one_against_rest(area, scored, counts)


def _pr_auc(scored: Scored, counts: Float) -> Float:
    return _one_against_rest(average_precision, scored, counts)


def _one_against_rest(measure: Callable[[Ranking, Float], Float], scored: Scored, counts: Float) -> Float:
    """Return the measure of the second of two classes, or its mean over more."""
    columns = np.ascontiguousarray(counts.T)
    return mean_of_defined(np.stack([measure(ranking, columns) for ranking in scored.rankings], axis=1))


def _brier(scored: Scored, counts: Float) -> Float:
    """Squared distance of the probabilities from the truth, summed over classes (Brier 1950), 0 to 2."""
    return _mean(counts, ((scored.predicted - scored.true_and_predicted[0]) ** 2).sum(axis=1))


def _ece(scored: Scored, counts: Float) -> Float:
    """Expected calibration error, equal-width bins (Naeini et al. 2015; Guo et al. 2017, eq. 3).

    It has no interval. Chance in a bin counts as an error of calibration whatever its sign, so the value lies above the
    truth, the more the fewer rows there are, and a resample, which adds chance, above the value: percentiles of
    resamples may leave out the value itself, and an interval reflected about the value would leave it out on the
    other side.
    """
    confidence = scored.predicted.max(axis=1)
    surplus = (scored.predicted.argmax(axis=1) == scored.y) - confidence
    per_bin = counts @ (_one_hot(bins(confidence), N_BINS) * surplus[:, None])
    return ratio(np.abs(per_bin).sum(axis=1), counts.sum(axis=1))


def bins(confidence: Float) -> NDArray[np.int64]:
    """Return which of the N_BINS of equal width, open below, each confidence ``(m,)`` lies in."""
    return np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)


def _mae(scored: Scored, counts: Float) -> Float:
    return _mean(counts, np.abs(scored.predicted - scored.y))


def _rmse(scored: Scored, counts: Float) -> Float:
    return np.sqrt(_mean(counts, (scored.predicted - scored.y) ** 2))


def _r2(scored: Scored, counts: Float) -> Float:
    centred = scored.y - scored.y.mean(axis=0)
    spread = _mean(counts, centred**2) - _mean(counts, centred) ** 2
    return 1 - ratio(_mean(counts, (scored.predicted - scored.y) ** 2), np.maximum(spread, 0.0))


def _mape(scored: Scored, counts: Float) -> Float:
    """Mean of |error| / |truth|, a fraction; rows whose truth is 0 have none and stand aside."""
    nonzero = scored.y != 0
    relative = np.abs(scored.predicted - scored.y) / np.where(nonzero, np.abs(scored.y), 1.0)
    return ratio(counts @ np.where(nonzero, relative, 0.0), counts @ nonzero.astype(np.float64))


def _median_ae(scored: Scored, counts: Float) -> Float:
    error = np.abs(scored.predicted - scored.y)
    return np.stack([_weighted_median(error[:, j], counts) for j in range(error.shape[1])], axis=1)


def _weighted_median(values: Float, counts: Float) -> Float:
    order = np.argsort(values)
    passed = np.cumsum(counts[:, order], axis=1)
    half = passed[:, -1:] / 2
    lower, upper = (passed >= half).argmax(axis=1), (passed > half).argmax(axis=1)
    middle: Float = (values[order][lower] + values[order][upper]) / 2
    return np.where(np.isfinite(half[:, 0]), middle, np.nan)


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("classification", True, _accuracy),
    "balanced_accuracy": Metric("classification", True, _balanced_accuracy),
    "macro_f1": Metric("classification", True, _macro_f1),
    "log_loss": Metric("classification", False, _log_loss),
    "roc_auc": Metric("classification", True, _roc_auc),
    "pr_auc": Metric("classification", True, _pr_auc),
    "brier": Metric("classification", False, _brier),
    "ece": Metric("classification", False, _ece, has_interval=False),
    "mae": Metric("regression", False, _mae),
    "rmse": Metric("regression", False, _rmse),
    "r2": Metric("regression", True, _r2),
    "mape": Metric("regression", False, _mape),
    "median_ae": Metric("regression", False, _median_ae),
}

HEADLINE: Mapping[str, str] = {"classification": "accuracy", "regression": "mae"}
"""What entries are ranked by, and what has to beat the baseline."""
