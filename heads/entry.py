"""One result in numbers and in words, always beside the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from heads.calibration import Calibration, calibrated, calibration_entry
from heads.conformal import coverage_entry
from heads.metrics import HEADLINE, METRICS, Estimate, Interval, Scored, difference, estimate, side_of_zero
from heads.plan import Plan
from heads.versions import versions

BOOTSTRAP_SEED = 0  # one resampling for all entries of a task, so that they can be compared pair by pair
ENTRY_VERSION = 3  # raised when entries measure more or otherwise, so that earlier results are not reused
SCORES = (
    "metrics",
    "baseline",
    "headline",
    "beats_baseline",
    "verdict",
    "calibration",
    "conformal",
    "split",
    "n_rows",
    "n_groups",
    "n_folds",
)
"""What a bundle keeps of an entry."""
FEW_GROUPS = 10  # below, percentile intervals are too narrow


@dataclass(frozen=True)
class Outcome:
    """What fitting and predicting gave.

    Attributes:
        raw: Predictions beside the truth, before calibration.
        calibrations: One per outer fold.
        seconds: Fitting and predicting; for tasks that were fitted together, an equal share.
        chosen: What the inner folds chose, per outer fold.
        n_columns: d.
    """

    raw: Scored
    calibrations: Sequence[Calibration]
    seconds: float
    chosen: Sequence[Any]
    n_columns: int

    @cached_property
    def scored(self) -> Scored:
        """Calibrated predictions beside the truth: what is scored."""
        return calibrated(self.raw, self.calibrations)

    @cached_property
    def estimates(self) -> Mapping[str, Estimate]:
        """Every metric with its resamples, computed once: all entries of a task are compared with one prior."""
        return estimate(self.scored, seed=BOOTSTRAP_SEED)


def make_entry(plan: Plan, outcome: Outcome, prior: Outcome, *, head: str, blocks: Sequence[str]) -> dict[str, Any]:
    """Return an entry's measured part, JSON values only.

    Args:
        plan: What was fitted.
        outcome: What came out.
        prior: The same rows, predicted without features.
        head: Name of the head.
        blocks: Names of the blocks, sorted.
    """
    kind, headline = plan.task.kind, HEADLINE[plan.task.kind]
    mine, base = outcome.estimates, prior.estimates
    gap = difference(
        mine[headline].mean, base[headline].mean, is_better_higher=METRICS[headline].is_better_higher
    ).interval()
    return {
        "task": plan.task.name,
        "kind": kind,
        "blocks": list(blocks),
        "head": head,
        "metrics": {name: found.mean.interval() for name, found in mine.items()},
        "outputs": _outputs(plan, mine),
        "calibration": _calibration(outcome),
        "conformal": _coverage(plan, outcome),
        "baseline": {name: found.mean.interval()["value"] for name, found in base.items()},
        "headline": headline,
        "difference": gap,
        "beats_baseline": side_of_zero(gap) == 1,
        "n_rows": len(outcome.scored.y),
        "n_groups": None if plan.groups is None else int(outcome.scored.unit.max()) + 1,
        "n_left_out": plan.n_left_out,
        "n_folds": len(plan.jobs),
        "n_columns": outcome.n_columns,
        "chosen": list(outcome.chosen),
        "seconds": round(outcome.seconds, 4),
    }


def bootstrapped(scored: Scored, metric: str) -> Estimate:
    """Return one metric's weighted mean over outputs, with the resamples that all entries of a task share."""
    return estimate(scored, seed=BOOTSTRAP_SEED, names=[metric])[metric].mean


def note_entry(entry: dict[str, Any]) -> None:
    """Add the words, the versions and the time."""
    entry["verdict"] = verdict(entry)
    entry["versions"] = versions()
    entry["time"] = datetime.now(UTC).isoformat(timespec="seconds")


def verdict(entry: Mapping[str, Any]) -> str:
    """Return in words what the headline metric says of the features."""
    name, gap = entry["headline"], entry["difference"]
    if entry["head"] == "prior":
        return "the baseline: sees no features"
    side = side_of_zero(gap)
    if side is None:
        return f"no interval for {name}: fewer than two groups were scored"
    few = entry["n_groups"] is not None and entry["n_groups"] < FEW_GROUPS
    doubt = f"; only {entry['n_groups']} groups, so the interval is too narrow" if few else ""
    by = f"{abs(gap['value']):.3g} {span(gap)}"
    if side == 1:
        return f"{name} better than without features by {by}{doubt}"
    if side == -1:
        return f"{name} worse than without features by {by}{doubt}"
    return f"not told apart from the baseline: the {name} difference {gap['value']:+.3g} {span(gap)} includes 0{doubt}"


def span(interval: Interval) -> str:
    """Return an interval of a difference for people; both ends have to be there."""
    low, high = interval["low"], interval["high"]
    return f"[{low:+.3g}, {high:+.3g}]"


def _calibration(outcome: Outcome) -> dict[str, Any] | None:
    is_classes = outcome.raw.kind == "classification"
    return calibration_entry(outcome.raw, outcome.scored, outcome.calibrations) if is_classes else None


def _coverage(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    limits = [one.limits for one in outcome.calibrations]
    return coverage_entry(outcome.scored, limits, plan.task.columns, seed=BOOTSTRAP_SEED)


def _outputs(plan: Plan, found: Mapping[str, Estimate]) -> dict[str, dict[str, Interval]]:
    """Return each output's own metrics; empty where there is only one."""
    if len(plan.task.columns) < 2:
        return {}
    return {
        column: {name: estimated.interval(j) for name, estimated in found.items()}
        for j, column in enumerate(plan.task.columns)
    }
