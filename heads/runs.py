"""What stands in ``runs/`` beside a dataset: sweeps begin with it and write into it."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heads.bundle_folder import bundle_kind, bundle_tasks
from heads.chart import draw_scores
from heads.combination import combinations
from heads.comparison import compare_blocks
from heads.gap import group_gap
from heads.leaderboard import Entry, Leaderboard, best
from heads.matrix import METADATA
from heads.predictions import Predictions
from heads.refit import fit_bundle
from heads.registry import HEADS
from heads.selection import score_choice
from heads.stored import Stored
from heads.sweep import Sweep, check_names
from store import (
    Dataset,
    FeatureStore,
    InputError,
    Progress,
    Split,
    block_spaces,
    counted,
    draw_subset,
    load_dataset,
    merge_groups,
    open_split,
)


def open_runs(dataset: Dataset) -> tuple[Leaderboard, Predictions]:
    """Open the leaderboard beside the dataset, and what its entries predicted."""
    folder = dataset.folder / "runs"
    return Leaderboard(folder / "leaderboard.jsonl"), Predictions(folder / "predictions")


def open_results(dataset: Dataset) -> Stored:
    """Open what was computed for a dataset as it is now; a split is not written."""
    return Stored(dataset, open_split(dataset, keep=False), *open_runs(dataset))


def run_folder(dataset: Dataset, name: str) -> Path:
    """Return ``runs/NAME`` beside the dataset, as seen from the working folder.

    Raises:
        InputError: It is no plain name.
    """
    if not name or Path(name).name != name:
        raise InputError(f"--name {name!r}: give the plain name of a folder, such as finetune")
    return Path(os.path.relpath(dataset.folder / "runs" / name))


def store_beside(bundle: Path, out: Path, url: str | None) -> FeatureStore:
    """Return the store that was asked for, or that of the dataset a bundle lies beside, or one beside what is written.

    Args:
        bundle: ``runs/NAME`` beside a dataset, or moved from there.
        out: The file or folder that is written.
        url: The store that was asked for.
    """
    beside_dataset = bundle.resolve().parent.parent / "features.zarr"
    return FeatureStore(url or (beside_dataset if beside_dataset.exists() else out.parent / "features.zarr"))


def store_of_subset(dataset: Dataset, folder: Path) -> FeatureStore:
    """Return the store in a run's folder for some rows only: they would be in the way beside the dataset.

    Spaces that lack one of these rows are of another subset, and deleted.

    Args:
        dataset: The rows.
        folder: ``runs/NAME``.
    """
    store = FeatureStore(folder / "subset.zarr")
    lacking, found = set[str](), set[str]()
    for at in block_spaces(dataset, store).values():
        is_whole = not store.missing(at.space, [key for key in at.keys if key is not None])
        (found if is_whole else lacking).add(at.space.fingerprint)
    doomed = {space.fingerprint for space in store.spaces()} - (found - lacking)
    if doomed:
        store.gc(drop=sorted(doomed))
    return store


def training_of(bundle: Path, spec: Path | None) -> tuple[Dataset, Split] | None:
    """Return the dataset that is named, or that a bundle lies beside, with its split; None without."""
    beside = bundle.resolve().parent.parent / "dataset.toml"
    if spec is None and not beside.exists():
        return None
    dataset = load_dataset(spec or beside)
    return dataset, open_split(dataset, keep=False)


def open_rows(
    dataset: Dataset,
    *,
    tasks: Sequence[str] = (),
    heads: Sequence[str] = (),
    folds: int | None = None,
    subset: int | None = None,
    final: bool = False,
    seed: int = 0,
) -> tuple[Dataset, Split]:
    """Return the rows to try something on, duplicates merged, and their split; nothing is embedded for it yet.

    Args:
        dataset: Its split is opened, or made.
        tasks: Names that have to be there.
        heads: Names that have to be there.
        folds: Of a new split.
        subset: Draw this many rows that are not held out.
        final: Held-out rows will be scored: a subset has them too.
        seed: Of a new split, and of the draw.

    Raises:
        InputError: There is no such task or head; as `open_split` and `draw_subset`.
    """
    check_names("task", tasks, dataset.tasks)
    check_names("head", heads, HEADS)
    split = open_split(dataset, n_folds=folds, seed=seed)
    dataset = merge_groups(dataset, split.merged)
    if subset is not None:
        asked = replace(dataset, tasks={name: dataset.tasks[name] for name in tasks or dataset.tasks})
        dataset = dataset.take(draw_subset(asked, split, subset, held_out=final, seed=seed).tolist())
    return dataset, split


def check_combinations(dataset: Dataset, encoders: Mapping[str, str], wanted: Sequence[str]) -> None:
    """Raise for wanted combinations that a sweep will not have, before anything is embedded.

    Args:
        dataset: Whose blocks.
        encoders: What each image and text block will be embedded by.
        wanted: As `Sweep` takes its blocks.

    Raises:
        InputError: As `combinations`.
    """
    names = [f"{block}@{encoder}" for block, encoder in encoders.items()]
    combinations([*names, *[METADATA] * bool(dataset.metadata)], wanted=wanted)


def sweep_warnings(sweep: Sweep) -> list[str]:
    """Say which rows are left out, and which features flatter cross-validated scores."""
    lacking: dict[tuple[str, int], list[str]] = {}  # one line for all encoders of an image that cannot be read
    for name, n_rows in sweep.matrix.without_vector().items():
        lacking.setdefault((name.partition("@")[0], n_rows), []).append(name)
    lines = [f"left out: {counted(n, 'row')} without a vector in {', '.join(own)}" for (_, n), own in lacking.items()]
    tuned = [
        f"the encoder of {block} was fine-tuned on rows that are scored here, so its scores are too good: believe "
        "those of held-out test rows (--final), or of finetune itself"
        for block in sweep.matrix.provenance
        if sweep.fold is None and sweep.knows_labels(block)
    ]
    return lines + tuned


def run_sweep(sweep: Sweep, *, final: bool = False, n_jobs: int = 1, progress: Progress | None = None) -> list[Entry]:
    """Fit and score everything, best entries also on held-out rows; results go to the leaderboard.

    Args:
        sweep: Beside whose dataset they are kept.
        final: Score held-out rows too, once.
        n_jobs: Processes that fit at the same time.
        progress: Called after each entry.

    Raises:
        InputError: `final`, and no row is held out: before anything is fitted.
    """
    if final:
        sweep.held_out_pairs()
    leaderboard, predictions = open_runs(sweep.dataset)
    done = itertools.count(1)
    tell = None if progress is None else lambda _: progress(next(done), sweep.n_entries)
    entries = sweep.run(leaderboard, predictions=predictions, on_entry=tell, n_jobs=n_jobs)
    return entries + (sweep.final(entries, leaderboard, predictions=predictions) if final else [])


def evaluate(sweep: Sweep, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what entries say beyond their scores: which blocks help, what choosing is worth, what groups give away."""
    leaderboard, predictions = open_runs(sweep.dataset)
    return {
        "comparisons": compare_blocks(entries, predictions),
        "selection": score_choice(entries, predictions),
        "group_gap": group_gap(sweep, entries, leaderboard, predictions),
    }


def bundle_folder(sweep: Sweep, name: str = "heads") -> Path:
    """Return where a sweep's bundle goes; one that is there already may lose nothing but what is saved anew.

    Raises:
        InputError: It has a task that is not swept here, or is a fine-tuned network.
    """
    folder = run_folder(sweep.dataset, name)
    if bundle_kind(folder) == "finetune":
        raise InputError(f"{folder}: holds a fine-tuned network; give --name another name than {name}")
    lost = [task for task in bundle_tasks(folder) if task in sweep.dataset.tasks and task not in sweep.task_names]
    if lost:
        raise InputError(
            f"{folder}: holds a bundle of {', '.join(lost)} too, which --save would replace by one of "
            f"{', '.join(sweep.task_names)} alone; save all tasks at once, or give --name another name than {name}"
        )
    return folder


def save_bundle(sweep: Sweep, entries: Sequence[Entry], folder: Path) -> Path:
    """Refit the best heads on all training rows, write them to where `bundle_folder` says, and return the folder."""
    fit_bundle(sweep, entries, folder)
    return folder


def save_warnings(entries: Sequence[Entry]) -> list[str]:
    """Say which tasks `save_bundle` keeps a head for that may be no better than none."""
    doubtful = [entry for entry in best(entries).values() if not entry["beats_baseline"]]
    return [
        f"{entry['task']}: the saved head is not sure to be worth more than none: {entry['verdict']}"
        for entry in doubtful
    ]


def save_chart(sweep: Sweep, entries: Sequence[Entry]) -> Path:
    """Draw the scores of all tasks beside the dataset, and return the picture's path."""
    chart = run_folder(sweep.dataset, "scores.png")
    draw_scores(entries, chart, unit_of=sweep.dataset.spec.unit_of)
    return chart
