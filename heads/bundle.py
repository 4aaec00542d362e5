"""A bundle: a folder that predicts. JSON, safetensors and LightGBM's own text; never a pickle."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heads.entry import versions
from heads.files import write_error
from heads.head import Head
from heads.leaderboard import Entry, best
from heads.matrix import METADATA, FeatureMatrix, load_matrix_like
from heads.ood import Reference, make_reference
from heads.plan import Plan, predictions
from heads.registry import HEADS
from heads.sweep import Sweep
from store import Dataset, DatasetSpec, FeatureSpace, FeatureStore, InputError, StoreError, Task, parse_spec

SCHEMA_VERSION = 1
DOCUMENT = "bundle.json"
WEIGHTS = "weights.safetensors"
OOD = ".ood/"  # no task has such a name
SCORES = ("metrics", "baseline", "headline", "beats_baseline", "verdict", "split", "n_rows", "n_groups", "n_folds")

Arrays = dict[str, NDArray[Any] | str]


@dataclass(frozen=True)
class Model:
    """One task's fitted head, and the blocks that it reads.

    Attributes:
        task: Without labels: name, kind, classes and columns.
        head: Name in `HEADS`.
        blocks: Sorted; the head's columns are theirs, in this order.
        fitted: The head.
        scores: What the leaderboard said of it, baseline included.
    """

    task: Task
    head: str
    blocks: tuple[str, ...]
    fitted: Head
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """Fitted models and all that is needed to use them on new files.

    Attributes:
        spec: The dataset spec: blocks, metadata, tasks.
        blocks: Every block that a model reads, in column order, and how many columns it has.
        spaces: The space of each image and text block.
        provenance: Where each space's weights came from.
        columns: Metadata columns, in order.
        models: By task.
        reference: What training rows look like.
        about: Split, seed, versions.
    """

    spec: DatasetSpec
    blocks: Mapping[str, int]
    spaces: Mapping[str, FeatureSpace]
    provenance: Mapping[str, Any]
    columns: tuple[str, ...]
    models: Mapping[str, Model]
    reference: Reference
    about: Mapping[str, Any]

    def load_matrix(self, dataset: Dataset, store: FeatureStore) -> FeatureMatrix:
        """Return the matrix that `predict` takes, of a dataset whose contents are extracted into `store`."""
        columns = self.columns if METADATA in self.blocks else ()
        return load_matrix_like(dataset, store, spaces=self.spaces, columns=columns)

    def predict(self, matrix: FeatureMatrix) -> pd.DataFrame:
        """Predict every task for every row.

        Returns:
            Columns ``id``; per task its prediction under the task's name (``task_column`` for several outputs) and
            ``task_p_class`` per class; ``ood_distance``. A row without the vectors that a model needs stays empty.

        Raises:
            StoreError: The matrix has other spaces, or lacks a block.
        """
        X = self._aligned(matrix)
        has_vectors = {
            name: ~np.isnan(X[:, part][:, 0]) for name, part in self._slices().items() if name in self.spaces
        }
        table: dict[str, Any] = {"id": matrix.ids}
        for model in self.models.values():
            table |= _columns(model, X[:, self._select(model.blocks)], _all_of(model.blocks, has_vectors, len(X)))
        table["ood_distance"] = np.full(len(X), np.nan)
        whole = _all_of(tuple(self.blocks), has_vectors, len(X))
        table["ood_distance"][whole] = self.reference.distance(X[whole])
        return pd.DataFrame(table)

    def save(self, folder: Path) -> None:
        """Write the bundle whole: into a folder beside, which then takes the name.

        Raises:
            InputError: `folder` holds something else, or cannot be written.
            StoreError: The disk is full.
        """
        if folder.exists() and not (folder / DOCUMENT).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: holds something that is no bundle; give another name")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
                self._write(Path(made) / "new")
                if folder.exists():
                    folder.replace(Path(made) / "old")
                (Path(made) / "new").replace(folder)
        except OSError as error:
            raise write_error(folder, error) from None

    def _write(self, folder: Path) -> None:
        from safetensors.numpy import save

        folder.mkdir()
        tensors = {f"{OOD}{name}": array for name, array in self.reference.arrays().items()}
        tasks = [_model_document(model, folder, tensors) for model in self.models.values()]
        (folder / WEIGHTS).write_bytes(save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))
        document = {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.spec.model_dump(mode="json", exclude_none=True),
            "blocks": [_block_document(self, name) for name in self.blocks],
            "columns": list(self.columns),
            "tasks": tasks,
            "files": {file.name: _file_digest(file) for file in sorted(folder.iterdir())},
            **self.about,
        }
        (folder / DOCUMENT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")

    def _aligned(self, matrix: FeatureMatrix) -> NDArray[np.float32]:
        """Return the matrix's columns in the order of the bundle's blocks, float32 ``(n, d)``."""
        for name, space in self.spaces.items():
            theirs = matrix.spaces.get(name)
            if theirs is None:
                raise StoreError(
                    f"the bundle needs block {name!r}; the matrix has {', '.join(matrix.blocks) or 'none'}"
                )
            if theirs.fingerprint != space.fingerprint:
                raise StoreError(
                    f"block {name!r} is of another space than the bundle was fitted on "
                    f"({'; '.join(space.differences(theirs))}). Extract with the bundle's own encoder."
                )
        parts = [self._block_columns(matrix, name) for name in self.blocks]
        return np.concatenate(parts, axis=1)

    def _block_columns(self, matrix: FeatureMatrix, name: str) -> NDArray[np.float32]:
        if name != METADATA:
            return matrix.X[:, matrix.blocks[name]]
        absent = [column for column in self.columns if column not in matrix.columns]
        if absent:
            raise StoreError(
                f"the bundle needs metadata column {absent[0]!r}; the matrix has {', '.join(matrix.columns)}"
            )
        start = matrix.blocks[METADATA].start
        return matrix.X[:, [start + matrix.columns.index(column) for column in self.columns]]

    def _slices(self) -> dict[str, slice]:
        ends = np.cumsum([0, *self.blocks.values()])
        return {name: slice(int(a), int(b)) for name, a, b in zip(self.blocks, ends[:-1], ends[1:], strict=True)}

    def _select(self, blocks: Sequence[str]) -> NDArray[np.int64]:
        width = np.arange(sum(self.blocks.values()))
        slices = self._slices()
        return np.concatenate([width[slices[name]] for name in blocks])


def fit_bundle(sweep: Sweep, entries: Iterable[Entry], folder: Path) -> Bundle:
    """Refit each task's best entry on all rows that are not held out, write it, and return it.

    Args:
        sweep: Its dataset, matrix, split and seed.
        entries: What `Sweep.run` gave; the best is chosen by the headline metric, and the prior is never saved.
        folder: Written whole or not at all; an earlier bundle of that name is replaced.

    Raises:
        InputError: No entry looks at features.
    """
    chosen = {task: entry for task, entry in best(entries).items() if task in sweep.task_names}
    if not chosen:
        raise InputError("there is nothing to save: no head that looks at features was run")
    nothing = np.empty(0, dtype=np.int64)
    pairs = [(sweep.split.fitting(sweep.dataset.ids), nothing)]
    plans = {task: sweep.plan(task, pairs) for task in chosen}
    bundle = _make_bundle(sweep, chosen, plans, _fit_together(sweep, chosen, plans))
    bundle.save(folder)
    return bundle


def load_bundle(folder: Path) -> Bundle:
    """Return a bundle from its folder.

    Raises:
        InputError: There is no bundle.
        StoreError: It was written by another schema version, or a file is missing or damaged.
    """
    from safetensors.numpy import load_file

    if not (folder / DOCUMENT).is_file():
        raise InputError(f"{folder}: is no bundle (there is no {DOCUMENT}); heads --save makes one")
    document = _read_document(folder)
    tensors = load_file(folder / WEIGHTS)
    blocks = document["blocks"]
    with_space = [block for block in blocks if block["space"] is not None]
    ood = {name.removeprefix(OOD): array for name, array in tensors.items() if name.startswith(OOD)}
    return Bundle(
        spec=parse_spec(document["dataset"], str(folder / DOCUMENT)),
        blocks={block["name"]: block["n_columns"] for block in blocks},
        spaces={block["name"]: FeatureSpace.from_json(json.dumps(block["space"])) for block in with_space},
        provenance={block["name"]: block["provenance"] for block in with_space},
        columns=tuple(document["columns"]),
        models={task["name"]: _read_model(task, folder, tensors) for task in document["tasks"]},
        reference=Reference.from_arrays(ood),
        about={name: document[name] for name in ("split_fingerprint", "seed", "versions")},
    )


def _fit_together(sweep: Sweep, chosen: Mapping[str, Entry], plans: Mapping[str, Plan]) -> dict[str, Head]:
    """Fit tasks that read the same blocks with the same head in one call."""
    batches: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for task, entry in chosen.items():
        batches.setdefault((tuple(entry["blocks"]), entry["head"]), []).append(task)
    fitted: dict[str, Head] = {}
    for (blocks, head), tasks in batches.items():
        heads = sweep.fit([plans[task] for task in tasks], blocks, head)
        fitted |= {task: found for task, [found] in zip(tasks, heads, strict=True)}
    return fitted


def _make_bundle(
    sweep: Sweep, chosen: Mapping[str, Entry], plans: Mapping[str, Plan], fitted: Mapping[str, Head]
) -> Bundle:
    matrix = sweep.matrix
    used = {name for entry in chosen.values() for name in entry["blocks"]}
    blocks = [name for name in matrix.blocks if name in used]
    widths = {name: matrix.blocks[name].stop - matrix.blocks[name].start for name in blocks}
    return Bundle(
        spec=sweep.dataset.spec,
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
                scores={name: entry[name] for name in SCORES},
            )
            for task, entry in chosen.items()
        },
        reference=_training_reference(sweep, blocks, plans),
        about={"split_fingerprint": sweep.split.fingerprint, "seed": sweep.seed, "versions": versions()},
    )


def _training_reference(sweep: Sweep, blocks: Sequence[str], plans: Mapping[str, Plan]) -> Reference:
    rows = np.unique(np.concatenate([plan.jobs[0].train for plan in plans.values()]))
    first = next(iter(plans.values()))
    X = sweep.columns(tuple(blocks), first.rows)
    return make_reference(X, rows, groups=first.groups, seed=sweep.seed)


def _columns(model: Model, X: NDArray[np.float32], usable: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return a task's columns of the table of predictions."""
    task = model.task
    found = predictions(model.fitted, X[usable], task)
    values = np.full((len(X), found.shape[1]), np.nan)
    values[usable] = found
    if task.kind == "regression":
        names = [task.name] if len(task.columns) == 1 else [f"{task.name}_{column}" for column in task.columns]
        return {name: values[:, j] for j, name in enumerate(names)}
    label = np.full(len(X), None, dtype=object)
    label[usable] = np.array(task.classes, dtype=object)[found.argmax(axis=1)]
    return {task.name: label} | {f"{task.name}_p_{name}": values[:, j] for j, name in enumerate(task.classes)}


def _all_of(blocks: Sequence[str], has_vectors: Mapping[str, NDArray[np.bool_]], n_rows: int) -> NDArray[np.bool_]:
    """Return the rows that have a vector in every one of some blocks, bool ``(n,)``."""
    whole = np.ones(n_rows, dtype=bool)
    for name in blocks:
        if name in has_vectors:
            whole &= has_vectors[name]
    return whole


def _block_document(bundle: Bundle, name: str) -> dict[str, Any]:
    space = bundle.spaces.get(name)
    return {
        "name": name,
        "n_columns": bundle.blocks[name],
        "space": None if space is None else json.loads(space.to_json()),
        "fingerprint": None if space is None else space.fingerprint,
        "provenance": bundle.provenance.get(name),
    }


def _model_document(model: Model, folder: Path, tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Describe a model; its arrays go to `tensors`, its texts to files in `folder`."""
    meta, arrays = model.fitted.state()
    task, texts = model.task, {}
    for name, value in arrays.items():
        if isinstance(value, str):
            texts[name] = f"{task.name}.{name}.txt"
            (folder / texts[name]).write_text(value)
        else:
            tensors[f"{task.name}/{name}"] = value
    return {
        "name": task.name,
        "kind": task.kind,
        "classes": list(task.classes),
        "columns": list(task.columns),
        "when": task.when,
        "weights": task.weights.tolist(),
        "head": model.head,
        "blocks": list(model.blocks),
        "meta": meta,
        "texts": texts,
        "scores": dict(model.scores),
    }


def _read_model(document: Mapping[str, Any], folder: Path, tensors: Mapping[str, NDArray[Any]]) -> Model:
    start = f"{document['name']}/"
    arrays: Arrays = {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
    arrays |= {name: (folder / file).read_text() for name, file in document["texts"].items()}
    task = Task(
        name=document["name"],
        kind=document["kind"],
        columns=tuple(document["columns"]),
        classes=tuple(document["classes"]),
        y=np.empty(0, np.int64) if document["kind"] == "classification" else np.empty((0, len(document["columns"]))),
        when=document["when"],
        applies=np.empty(0, dtype=bool),
        weights=np.array(document["weights"]),
    )
    fitted = HEADS[document["head"]].restore(document["meta"], arrays)
    return Model(task, document["head"], tuple(document["blocks"]), fitted, document["scores"])


def _read_document(folder: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((folder / DOCUMENT).read_text())
    except ValueError:
        raise StoreError(f"{folder / DOCUMENT}: is damaged; save the bundle again") from None
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(f"{folder}: bundle of schema version {version!r}, expected {SCHEMA_VERSION}")
    for name, digest in document["files"].items():
        if not (folder / name).is_file() or _file_digest(folder / name) != digest:
            raise StoreError(f"{folder / name}: is missing or damaged; copy or save the bundle again")
    return document


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
