"""Datasets and matrices made of arrays, for tests that need no files."""

from pathlib import Path

import numpy as np

from heads.matrix import FeatureMatrix
from store import Dataset, FeatureSpace, Task, parse_spec


def classes(y, *, name="kind", labels=None, applies=None):
    y = np.asarray(y, np.int64)
    labels = labels or tuple("abcdefgh"[: y.max() + 1])
    applies = np.ones(len(y), bool) if applies is None else applies
    return Task(name, "classification", (name,), labels, y, None, applies, np.ones(1))


def numbers(y, *, name="size", columns=None, weights=None):
    y = np.asarray(y, np.float64).reshape(len(y), -1)
    columns = columns or (name,)
    return Task(
        name, "regression", columns, (), y, None, np.ones(len(y), bool), np.array(weights or [1.0] * y.shape[1])
    )


def dataset(*tasks, n, groups=None, given=None, folder=Path(), images=None, texts=None, metadata=None):
    spec = parse_spec(
        {"name": "made", "table": "t.csv", "tasks": {t.name: {"columns": list(t.columns)} for t in tasks}}, "made"
    )
    return Dataset(
        spec=spec,
        folder=folder,
        ids=np.array([f"r{i:03d}" for i in range(n)]),
        groups=None if groups is None else np.asarray(groups).astype(str),
        images=images or {},
        texts=texts or {},
        metadata=metadata or {},
        tasks={t.name: t for t in tasks},
        given_split=None if given is None else np.asarray(given),
    )


def space(encoder="texture", dim=4, **fields):
    return FeatureSpace(
        **{"modality": "image", "weights_digest": "v1", "convert": "percentile_stretch"}
        | fields
        | {"encoder": encoder, "dim": dim}
    )


def matrix(data, *, complete=None, spaces=None, columns=(), **blocks):
    """`blocks` maps a name, with __ for : and _at_ for @, to an array (n, d)."""
    parts = {
        name.replace("__", ":").replace("_at_", "@"): np.asarray(part, np.float32) for name, part in blocks.items()
    }
    ends = np.cumsum([0, *(part.shape[1] for part in parts.values())])
    made = {name: space(name.split("@")[1], part.shape[1]) for name, part in parts.items() if "@" in name}
    return FeatureMatrix(
        ids=data.ids,
        X=np.concatenate(list(parts.values()), axis=1),
        blocks={name: slice(int(a), int(b)) for name, a, b in zip(parts, ends[:-1], ends[1:], strict=True)},
        columns=columns or tuple(f"m{i}" for i in range(parts.get("metadata", np.empty((0, 0))).shape[1])),
        complete=np.ones(data.n_rows, bool) if complete is None else complete,
        spaces=made | (spaces or {}),
        provenance={name: {} for name in made},
    )


def planted(n=120, d=20, *, n_classes=3, strength=3.0, seed=0, n_groups=None):
    """Return X (n, d) whose first columns tell the class, and y; with groups, one class per group."""
    rng = np.random.default_rng(seed)
    if n_groups is None:
        y = rng.permutation(np.arange(n) % n_classes)
        groups = None
    else:
        groups = np.arange(n) % n_groups
        y = (groups * 7 % n_classes).astype(np.int64)
    X = rng.normal(size=(n, d)).astype(np.float32)
    X[np.arange(n), y] += strength
    return X, y, groups
