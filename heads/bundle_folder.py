"""A bundle's folder: JSON, safetensors and LightGBM's own text; never a pickle."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.bundle import Bundle, Model
from heads.calibration import CalibratedHead, Calibration
from heads.columns import describe_columns
from heads.conformal import COVERAGE
from heads.ood import Reference
from heads.places import found_provenance
from heads.registry import HEADS
from store import FeatureSpace, InputError, StoreError, Task, parse_spec, write_error

SCHEMA_VERSION = 2
READABLE = (1, 2)  # 1 has no calibration, no conditions and no description of columns
DOCUMENT = "bundle.json"
WEIGHTS = "weights.safetensors"
OOD = ".ood/"  # no task has such a name
ABOUT = ("split_fingerprint", "seed", "versions", "unseen", "subset")  # the last two of a fine-tuned network alone


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle whole: into a folder beside, which then takes the name.

    Raises:
        InputError: `folder` holds something else, or cannot be written.
        StoreError: The disk is full.
    """
    if folder.exists() and not (folder / DOCUMENT).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: holds something that is no bundle; give another name")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
            _write(bundle, Path(made) / "new")
            if folder.exists():
                folder.replace(Path(made) / "old")
            (Path(made) / "new").replace(folder)
    except OSError as error:
        raise write_error(folder, error) from None


def bundle_kind(folder: Path) -> str:
    """Return ``"heads"`` or ``"finetune"``: what made the bundle in a folder; ``"heads"`` where nothing can be read."""
    return str(_glance(folder).get("kind", "heads"))


def bundle_tasks(folder: Path) -> list[str]:
    """Return the tasks of the bundle in a folder; none where nothing can be read."""
    return [task["name"] for task in _glance(folder).get("tasks", ())]


def _glance(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / DOCUMENT).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def load_bundle(folder: Path) -> Bundle:
    """Return a bundle from its folder.

    Raises:
        InputError: There is no bundle.
        StoreError: It was written by another schema version, or a file is missing or damaged.
    """
    from safetensors.numpy import load_file

    document = read_document(folder)
    return rebuild_bundle(document, load_file(folder / WEIGHTS), folder)


def rebuild_bundle(document: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], folder: Path) -> Bundle:
    """Return a bundle from what `describe_bundle` gave; its texts are read from `folder`."""
    blocks = document["blocks"]
    with_space = [block for block in blocks if block["space"] is not None]
    ood = {name.removeprefix(OOD): array for name, array in tensors.items() if name.startswith(OOD)}
    return Bundle(
        spec=parse_spec(document["dataset"], str(folder / DOCUMENT)),
        blocks={block["name"]: block["n_columns"] for block in blocks},
        spaces={block["name"]: _read_space(block, folder) for block in with_space},
        provenance={block["name"]: found_provenance(block["provenance"], folder) for block in with_space},
        columns=tuple(document["columns"]),
        models={task["name"]: _read_model(task, folder, tensors) for task in document["tasks"]},
        reference=Reference.from_arrays(ood),
        about={name: document[name] for name in ABOUT if name in document},
        conditions={
            task["name"]: _read_model(task["condition"], folder, tensors)
            for task in document["tasks"]
            if task.get("condition")
        },
    )


def _read_space(block: Mapping[str, Any], folder: Path) -> FeatureSpace:
    space = FeatureSpace.from_json(json.dumps(block["space"]))
    if space.fingerprint != block["fingerprint"]:
        raise StoreError(
            f"{folder}: the space of {block['name']} has fingerprint {space.fingerprint[:12]}, but its heads were "
            f"fitted on {block['fingerprint'][:12]}: {DOCUMENT} was changed. Use the bundle as heads --save wrote it"
        )
    return space


def describe_bundle(bundle: Bundle, folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return a bundle's document, still without the digests of its files, and its arrays; texts are written here."""
    tensors = {f"{OOD}{name}": array for name, array in bundle.reference.arrays().items()}
    document = {
        "schema_version": SCHEMA_VERSION,
        "dataset": bundle.spec.model_dump(mode="json", exclude_none=True),
        "blocks": [_block_document(bundle, name) for name in bundle.blocks],
        "columns": list(bundle.columns),
        "tasks": [_task_document(bundle, name, folder, tensors) for name in bundle.models],
        "predictions": describe_columns(bundle),
        **bundle.about,
    }
    return document, {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def write_document(document: Mapping[str, Any], folder: Path) -> None:
    """Write a document with the digests of all files in its folder."""
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    whole = {**document, "files": {name: _file_digest(folder / name) for name in files}}
    (folder / DOCUMENT).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")


def _write(bundle: Bundle, folder: Path) -> None:
    from safetensors.numpy import save

    folder.mkdir()
    document, tensors = describe_bundle(bundle, folder)
    (folder / WEIGHTS).write_bytes(save(tensors))
    write_document(document, folder)


def _block_document(bundle: Bundle, name: str) -> dict[str, Any]:
    space = bundle.spaces.get(name)
    return {
        "name": name,
        "n_columns": bundle.blocks[name],
        "space": None if space is None else json.loads(space.to_json()),
        "fingerprint": None if space is None else space.fingerprint,
        "provenance": bundle.provenance.get(name),
    }


def _task_document(bundle: Bundle, name: str, folder: Path, tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    condition = bundle.conditions.get(name)
    return {
        **_model_document(bundle.models[name], folder, tensors),
        "unit": bundle.spec.unit_of(name),
        "condition": None if condition is None else _model_document(condition, folder, tensors),
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
        "class_weight": task.class_weight,
        "has_sample_weight": task.sample_weight is not None,
        "head": model.head,
        "blocks": list(model.blocks),
        "calibration": {
            "temperature": model.fitted.calibration.temperature,
            "coverage": COVERAGE,
            "limits": list(model.fitted.calibration.limits),
        },
        "meta": meta,
        "texts": texts,
        "scores": dict(model.scores),
    }


def _read_model(document: Mapping[str, Any], folder: Path, tensors: Mapping[str, NDArray[Any]]) -> Model:
    start = f"{document['name']}/"
    mine = {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
    texts = {name: (folder / file).read_text() for name, file in document["texts"].items()}
    task = Task(
        name=document["name"],
        kind=document["kind"],
        columns=tuple(document["columns"]),
        classes=tuple(document["classes"]),
        y=np.empty(0, np.int64) if document["kind"] == "classification" else np.empty((0, len(document["columns"]))),
        when=document["when"],
        applies=np.empty(0, dtype=bool),
        weights=np.array(document["weights"]),
        class_weight=document.get("class_weight"),
    )
    head = HEADS[document["head"]].restore(document["meta"], {**mine, **texts})
    fitted = CalibratedHead(head, _read_calibration(document, len(task.columns)))
    return Model(task, document["head"], tuple(document["blocks"]), fitted, document["scores"])


def _read_calibration(document: Mapping[str, Any], n_outputs: int) -> Calibration:
    """Return a model's calibration; one that changes and limits nothing where none was kept."""
    kept = document.get("calibration", {"temperature": 1.0, "limits": [None] * n_outputs})
    return Calibration(kept["temperature"], tuple(kept["limits"]))


def read_document(folder: Path) -> dict[str, Any]:
    """Return a bundle's document, having checked that its files are what was written.

    Raises:
        InputError: There is no bundle.
        StoreError: It was written by another schema version, or a file is missing or damaged.
    """
    if not (folder / DOCUMENT).is_file():
        raise InputError(f"{folder}: is no bundle (there is no {DOCUMENT}); heads --save and finetune make one")
    try:
        document: dict[str, Any] = json.loads((folder / DOCUMENT).read_text())
    except ValueError:
        raise StoreError(f"{folder / DOCUMENT}: is damaged; make the bundle again") from None
    version = document.get("schema_version")
    if version not in READABLE:
        raise StoreError(f"{folder}: bundle of schema version {version!r}, expected {SCHEMA_VERSION}; save it again")
    for name, digest in document["files"].items():
        if not (folder / name).is_file() or _file_digest(folder / name) != digest:
            raise StoreError(f"{folder / name}: is missing or damaged; copy or make the bundle again")
    return document


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
