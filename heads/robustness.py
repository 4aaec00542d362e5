"""Scores under perturbations: fitted on clean training rows, scored on disturbed copies of rows that are held out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heads.calibration import CalibratedHead
from heads.entry import bootstrapped
from heads.leaderboard import Entry, may_choose, ranked
from heads.matrix import FeatureMatrix, load_matrix_like
from heads.metrics import METRICS, Estimate, Interval, Scored, difference, side_of_zero
from heads.plan import Plan
from heads.predictions import Predictions
from heads.registry import PRIOR
from heads.sweep import Sweep
from store import (
    Dataset,
    FeatureStore,
    InputError,
    StoreError,
    find_block,
    hash_files,
    parse_view,
    view_settings,
    with_variants,
)

SAME = 1e-3  # of a probability, or of the spread of a regression's truth: no change


@dataclass(frozen=True)
class Fitted:
    """An entry's heads, fitted again on clean rows, and what they are compared with.

    Attributes:
        entry: What was chosen.
        plan: Its outer folds.
        heads: One per fold.
        clean: Predictions of clean rows.
        score: Of the clean rows, the headline metric.
        baseline: Of the same rows without features.
    """

    entry: Entry
    plan: Plan
    heads: Sequence[CalibratedHead]
    clean: Scored
    score: Estimate
    baseline: Estimate


def check_plain(sweep: Sweep) -> None:
    """Refuse a dataset whose images cannot be disturbed.

    Raises:
        InputError: There are none, or a spectrum stands where a perturbation would.
    """
    images = sweep.dataset.images
    if not any(name.startswith("image:") for name in sweep.matrix.spaces):
        raise InputError("robustness disturbs images, and no image is extracted: run extract with an image encoder")
    for name, block in images.items():
        if not block.parts and block.view != "plain":
            raise InputError(
                f"[images.{name}] has view = {block.view!r}, which a perturbation would replace. "
                "Use a dataset.toml without this block."
            )


def disturbed(sweep: Sweep, store: FeatureStore, views: Sequence[str]) -> Iterator[tuple[str, FeatureMatrix]]:
    """Yield each view and the sweep's matrix with all images seen so; one matrix is in memory at a time.

    Raises:
        InputError: Something is not extracted yet.
    """
    matrix = sweep.matrix
    hashes = hash_files([*sweep.dataset.images.values()])
    for view in views:
        dataset = _seen_under(view, sweep.dataset)
        spaces = {
            name: replace(space, **view_settings(find_block(dataset, name.partition("@")[0])))
            if space.modality == "image"
            else space
            for name, space in matrix.spaces.items()
        }
        yield view, load_matrix_like(dataset, store, spaces=spaces, columns=matrix.columns, hashes=hashes)


def _seen_under(view: str, dataset: Dataset) -> Dataset:
    """Return the dataset with its images disturbed, under the names that they have undisturbed."""
    variants = with_variants(dataset, views=[view])
    return replace(variants, images=dict(zip(dataset.images, variants.images.values(), strict=True)))


def robustness(
    sweep: Sweep,
    entries: Iterable[Entry],
    predictions: Predictions,
    seen: Iterable[tuple[str, FeatureMatrix]],
) -> list[dict[str, Any]]:
    """Score the best entry of each task and set of image blocks on disturbed copies of the rows it has not seen.

    Args:
        sweep: What was run, on clean rows.
        entries: What its `run` gave.
        predictions: What those entries predicted.
        seen: Views, and the matrix of each in the layout of the sweep's.

    Returns:
        JSON values, one per task and set of image blocks: ``clean`` and ``baseline``, and ``points``, one per view,
        with the headline metric, its paired ``difference`` to clean (below 0 is worse) and what that says.
    """
    fitted = [_fit(sweep, entry, prior, predictions) for entry, prior in _chosen(entries)]
    points: list[list[dict[str, Any]]] = [[] for _ in fitted]
    for view, matrix in seen:
        if dict(matrix.blocks) != dict(sweep.matrix.blocks):
            raise ValueError("the disturbed matrix has other columns")
        for one, listed in zip(fitted, points, strict=True):
            listed.append(_point(one, view, replace(sweep, matrix=matrix)))
    return [_document(one, listed) for one, listed in zip(fitted, points, strict=True)]


def _chosen(entries: Iterable[Entry]) -> list[tuple[Entry, Entry]]:
    """Return the best entry of each task and set of image blocks, each with the task's prior."""
    entries = [entry for entry in ranked(entries) if may_choose(entry)]
    priors = {entry["task"]: entry for entry in entries if entry["head"] == PRIOR}
    found: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        images = [block for block in entry["blocks"] if block.startswith("image:")]
        if images:
            found.setdefault((entry["task"], *images), entry)
    return [(entry, priors[entry["task"]]) for entry in found.values()]


def _fit(sweep: Sweep, entry: Entry, prior: Entry, predictions: Predictions) -> Fitted:
    plan = sweep.plan(entry["task"], sweep.pairs)
    [heads] = sweep.fit([plan], tuple(entry["blocks"]), entry["head"])
    clean = plan.scored(heads, sweep.columns(tuple(entry["blocks"]), plan.rows))
    score, baseline = (bootstrapped(scored, entry["headline"]) for scored in (clean, predictions.of(prior)))
    return Fitted(entry, plan, heads, clean, score, baseline)


def _point(fitted: Fitted, view: str, sweep: Sweep) -> dict[str, Any]:
    if not sweep.matrix.complete[fitted.plan.rows].all():
        raise StoreError(f"some rows have no vector under {view}: run extract --view {view} --retry")
    metric = fitted.entry["headline"]
    scored = fitted.plan.scored(fitted.heads, sweep.columns(tuple(fitted.entry["blocks"]), fitted.plan.rows))
    found = bootstrapped(scored, metric)
    is_better_higher = METRICS[metric].is_better_higher
    gap = difference(found, fitted.score, is_better_higher=is_better_higher).interval()
    above = difference(found, fitted.baseline, is_better_higher=is_better_higher).interval()
    kind, strength = parse_view(view)
    beats_baseline = side_of_zero(above) == 1
    return {
        "view": view,
        "perturbation": kind,
        "strength": strength,
        "score": found.interval(),
        "difference": gap,
        "beats_baseline": beats_baseline,
        "verdict": "no change" if _is_same(scored, fitted.clean) else _verdict(gap, beats_baseline=beats_baseline),
    }


def _is_same(scored: Scored, clean: Scored) -> bool:
    scale = 1.0 if clean.kind == "classification" else np.maximum(clean.y.std(axis=0), np.finfo(float).tiny)
    return bool((np.abs(scored.predicted - clean.predicted) <= SAME * scale).all())


def _verdict(gap: Interval, *, beats_baseline: bool) -> str:
    if (side := side_of_zero(gap)) is None:
        return "no interval"
    word = {1: "better than clean", 0: "not told apart", -1: "worse than clean"}[side]
    return word if beats_baseline else f"{word}, and no better than the baseline"


def _document(fitted: Fitted, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    entry, metric = fitted.entry, fitted.entry["headline"]
    worse = [point["view"] for point in points if point["verdict"].startswith("worse")]
    same = [point["view"] for point in points if point["verdict"] == "no change"]
    words = [f"worse than clean under {', '.join(worse) or 'none of these'}"]
    return {
        "task": entry["task"],
        "kind": entry["kind"],
        "blocks": entry["blocks"],
        "head": entry["head"],
        "metric": metric,
        "n_rows": entry["n_rows"],
        "n_groups": entry["n_groups"],
        "clean": fitted.score.interval(),
        "baseline": fitted.baseline.interval()["value"],
        "points": points,
        "words": "; ".join([*words, *([f"no change under {', '.join(same)}"] if same else [])]),
    }
