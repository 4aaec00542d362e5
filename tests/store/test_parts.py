from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np

from store import load_dataset

Make = Callable[..., Path]


def test_parts_are_the_rows_in_order(make_dataset: Make) -> None:
    extra = (
        '[images.other]\ncolumn = "file"\nconvert = "linear"\n[images.both]\nstack = ["bf", "other"]\n'
        '[texts.note]\ncolumn = "note"\n'
    )
    dataset = load_dataset(make_dataset(extra))
    parts = list(dataset.parts(10))
    assert [part.n_rows for part in parts] == [10, 10, 4] and not any(part.tasks for part in parts)
    assert np.concatenate([part.ids for part in parts]).tolist() == dataset.ids.tolist()
    for name, block in dataset.images.items():
        keys = [part.images[name].keys() for part in parts]
        assert list(chain.from_iterable(keys)) == block.keys()
    assert [text for part in parts for text in part.texts["note"].texts] == list(dataset.texts["note"].texts)
    values = np.concatenate([part.metadata["magnification"].values for part in parts])
    assert values.tolist() == dataset.metadata["magnification"].values.tolist()
    assert parts[0].groups is not None and dataset.groups is not None
    assert parts[2].groups is not None and parts[2].groups.tolist() == dataset.groups[20:].tolist()
    assert next(dataset.parts(24)).n_rows == 24


def test_rows_that_are_taken_keep_their_labels(make_dataset: Make) -> None:
    dataset = load_dataset(make_dataset())
    rows = [7, 2, 20]
    taken = dataset.take(rows)
    assert taken.ids.tolist() == dataset.ids[rows].tolist()
    assert taken.images["bf"].refs == tuple(dataset.images["bf"].refs[row] for row in rows)
    for name, task in dataset.tasks.items():
        assert taken.tasks[name].classes == task.classes
        assert np.array_equal(taken.tasks[name].y, task.y[rows], equal_nan=task.kind == "regression")
        assert taken.tasks[name].labelled.tolist() == task.labelled[rows].tolist()
