"""From a sweep to a bundle: each task's best entry, fitted once more on all rows that are not held out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from heads.bundle import Bundle, Model
from heads.bundle_folder import write_bundle
from heads.calibration import CalibratedHead
from heads.columns import describe_columns
from heads.condition import fit_conditions
from heads.entry import SCORES
from heads.leaderboard import Entry, best, is_held_out
from heads.matrix import METADATA
from heads.ood import Reference, make_reference
from heads.places import portable_provenance, portable_spec
from heads.plan import Plan
from heads.sweep import Sweep
from heads.versions import versions
from store import Dataset, DatasetSpec, InputError


def fit_bundle(sweep: Sweep, entries: Iterable[Entry], folder: Path) -> Bundle:
    """Refit each task's best entry on all rows that are not held out, write it, and return it.

    Args:
        sweep: Its dataset, matrix, split and seed.
        entries: What `Sweep.run` gave; the best is chosen by the headline metric, and the prior is never saved.
        folder: Written whole or not at all; an earlier bundle of that name is replaced.

    Raises:
        InputError: No entry looks at features.
    """
    entries = list(entries)
    chosen = {task: entry for task, entry in best(entries).items() if task in sweep.task_names}
    if not chosen:
        raise InputError("there is nothing to save: no head that looks at features was run")
    pairs = [sweep.split.whole(sweep.dataset.ids)]
    plans = {task: sweep.plan(task, pairs) for task in chosen}
    bundle = _make_bundle(
        sweep, chosen, plans, _fit_together(sweep, chosen, plans), [e for e in entries if is_held_out(e)]
    )
    home, own = sweep.dataset.folder, bundle.provenance
    provenance = {name: portable_provenance(found, home, folder) for name, found in own.items()}
    bundle = replace(bundle, conditions=fit_conditions(sweep, chosen, pairs), provenance=provenance)
    check_columns(bundle)
    write_bundle(bundle, folder)
    return bundle


def _fit_together(sweep: Sweep, chosen: Mapping[str, Entry], plans: Mapping[str, Plan]) -> dict[str, CalibratedHead]:
    """Fit tasks that read the same blocks with the same head in one call."""
    batches: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for task, entry in chosen.items():
        batches.setdefault((tuple(entry["blocks"]), entry["head"]), []).append(task)
    fitted: dict[str, CalibratedHead] = {}
    for (blocks, head), tasks in batches.items():
        heads = sweep.fit([plans[task] for task in tasks], blocks, head)
        fitted |= {task: found for task, [found] in zip(tasks, heads, strict=True)}
    return fitted


def _make_bundle(
    sweep: Sweep,
    chosen: Mapping[str, Entry],
    plans: Mapping[str, Plan],
    fitted: Mapping[str, CalibratedHead],
    held_out: Sequence[Entry],
) -> Bundle:
    matrix = sweep.matrix
    used = {name for entry in chosen.values() for name in entry["blocks"]}
    blocks = [name for name in matrix.blocks if name in used]
    widths = {name: matrix.blocks[name].stop - matrix.blocks[name].start for name in blocks}
    return Bundle(
        spec=portable_spec(needed_spec(sweep.dataset, used), sweep.dataset.folder),
        blocks=widths,
        spaces={name: matrix.spaces[name] for name in blocks if name in matrix.spaces},
        provenance={name: matrix.provenance[name] for name in blocks if name in matrix.spaces},
        columns=matrix.columns if METADATA in used else (),
        models={
            task: Model(
                task=sweep.dataset.tasks[task],
                head=entry["head"],
                blocks=tuple(entry["blocks"]),
                fitted=fitted[task],
                scores=_scores(entry) | {"held_out": [_scores(e) for e in held_out if _key(e) == _key(entry)]},
            )
            for task, entry in chosen.items()
        },
        reference=_training_reference(sweep, blocks, plans),
        about={"split_fingerprint": sweep.split.fingerprint, "seed": sweep.seed, "versions": versions()},
    )


def _scores(entry: Entry) -> dict[str, Any]:
    return {name: entry[name] for name in SCORES}


def _key(entry: Entry) -> tuple[Any, ...]:
    """What two entries share that are the same head, scored on other rows."""
    return entry["task"], *entry["blocks"], entry["head"]


def check_columns(bundle: Bundle) -> None:
    """Raise InputError where two columns of predictions would have one name."""
    names = [row["column"] for row in describe_columns(bundle)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"predictions would have two columns {twice[0]!r}: give the task or the class another name")


def _training_reference(sweep: Sweep, blocks: Sequence[str], plans: Mapping[str, Plan]) -> Reference:
    rows = np.unique(np.concatenate([plan.jobs[0].train for plan in plans.values()]))
    first = next(iter(plans.values()))
    X = sweep.columns(tuple(blocks), first.rows)
    return make_reference(X, rows, groups=first.groups, seed=sweep.seed)


def needed_spec(dataset: Dataset, used: set[str]) -> DatasetSpec:
    """Return the spec without the blocks that no model reads, and without `[finetune]`: new files need not have them.

    Metadata says of what kind it was found to be, so that new tables are read as this one was.

    Args:
        dataset: Whose spec.
        used: Such as ``image:bf@texture``, ``image:bf``, ``metadata``.
    """
    spec = dataset.spec
    texts = {name: text for name, text in spec.texts.items() if f"text:{name}" in _places(used)}
    kinds = {name: dataset.metadata[name].kind for name in spec.metadata} if METADATA in used else {}
    metadata = {name: spec.metadata[name].model_copy(update={"kind": kind}) for name, kind in kinds.items()}
    named = {text.from_filename for text in texts.values()}
    for column in metadata.values():
        named |= {column.image or next(iter(spec.images))} if column.pattern is not None else set()
    named |= {name for name in spec.images if f"image:{name}" in _places(used)}
    named |= {part for name, image in spec.images.items() if name in named for part in image.stack or ()}
    images = {name: image for name, image in spec.images.items() if name in named}
    needed = {"columns": {}, "images": images, "texts": texts, "metadata": metadata, "finetune": {}}
    return spec.model_copy(update=needed)


def _places(blocks: Iterable[str]) -> set[str]:
    return {name.partition("@")[0] for name in blocks}
