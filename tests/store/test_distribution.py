"""What a table holds, counted by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store import Dataset, MetadataColumn, Split, Task, TextBlock, distribution_report, distributions, strata
from store.spec import parse_spec

SPEC = parse_spec({"name": "made", "table": "labels.csv"}, "test")
ROLES = ["train", "train", "train", "train", "val", "val", "test", "ood"]
SPLIT = Split.of({f"r{i}": role for i, role in enumerate(ROLES)}, seed=0, n_folds=0)


def task(
    y: object, classes: tuple[str, ...] = (), columns: tuple[str, ...] = ("size",), applies: object = True
) -> Task:
    values = np.asarray(y, dtype=np.int64 if classes else np.float64)
    values = values if classes else values.reshape(-1, len(columns))
    kind = "classification" if classes else "regression"
    return Task("t", kind, columns, classes, values, None, np.full(8, applies), np.ones(len(columns)))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    metadata = {
        "scale": MetadataColumn("scale", "numeric", np.array([1, 2, 3, 4, 5, 6, 7, np.nan])),
        "lamp": MetadataColumn(
            "lamp", "categorical", np.array(["a", "b", "b", None, "b", "a", "c", "b"], dtype=object)
        ),
    }
    texts = {"note": TextBlock("note", ("x", None, "", *"abcde"))}
    groups = np.array(["g1", "g1", "g2", "g2", "g3", "g3", "g4", "g4"])
    ids, tasks = np.array([f"r{i}" for i in range(8)]), {"t": task([0, 1, 1, 0, 1, -1, 1, 1], ("no", "yes", "never"))}
    return Dataset(SPEC, tmp_path, ids, groups, {}, texts, metadata, tasks, np.array(ROLES))


def test_classes_are_counted_by_part_and_group(data: Dataset) -> None:
    found = distributions(data, SPLIT)
    assert (found["rows"], found["groups"]) == (8, 4)
    assert found["parts"] == {"train": 4, "val": 2, "ood": 1, "test": 1}
    [one] = found["tasks"]
    assert (one["n_rows"], one["n_missing"], one["n_outside"]) == (7, 1, 0)
    no, yes, never = one["classes"]
    assert no == {
        "class": "no",
        "n_rows": 2,
        "share": 2 / 7,
        "n_groups": 2,
        "parts": {"train": 2, "val": 0, "ood": 0, "test": 0},
    }
    assert (yes["n_rows"], yes["n_groups"], yes["parts"]) == (5, 4, {"train": 2, "val": 1, "ood": 1, "test": 1})
    assert (never["n_rows"], never["share"], never["n_groups"]) == (0, 0.0, 0)


def test_folds_come_in_their_order_and_before_what_is_held_out(data: Dataset) -> None:
    split = Split.of({f"r{i}": role for i, role in enumerate("1100222") if i < 7} | {"r7": "test"}, seed=0, n_folds=3)
    assert list(distributions(data, split)["parts"]) == ["fold 0", "fold 1", "fold 2", "test"]


def test_numbers_have_quantiles_and_a_histogram_of_all_values(data: Dataset) -> None:
    numbers = task([0, 1, 2, 3, 4, 5, 6, np.nan], applies=[True] * 6 + [False, True])
    [one] = distributions(replace(data, tasks={"t": numbers}), SPLIT)["tasks"]
    assert (one["n_rows"], one["n_missing"], one["n_outside"]) == (6, 1, 1)
    [column] = one["columns"]
    assert (column["quantiles"]["min"], column["quantiles"]["median"], column["quantiles"]["max"]) == (0, 2.5, 5)
    assert column["quantiles"]["25%"] == 1.25
    assert sum(column["histogram"]["counts"]) == 6
    assert (column["histogram"]["edges"][0], column["histogram"]["edges"][-1]) == (0, 5)


def test_metadata_has_its_range_or_its_values_most_frequent_first(data: Dataset) -> None:
    scale, lamp = distributions(data, SPLIT)["metadata"]
    assert (scale["n_rows"], scale["quantiles"]["min"], scale["quantiles"]["max"]) == (7, 1, 7)
    assert (lamp["n_rows"], lamp["n_values"], list(lamp["values"].items())) == (7, 3, [("b", 4), ("a", 2), ("c", 1)])


def test_what_is_missing_is_told_for_labels_metadata_and_texts(data: Dataset) -> None:
    found = {one["what"]: (one["n_missing"], one["share"]) for one in distributions(data, SPLIT)["missing"]}
    assert found == {
        "task t": (1, 1 / 8),
        "metadata scale": (1, 1 / 8),
        "metadata lamp": (1, 1 / 8),
        "text note": (2, 2 / 8),
    }


def test_numbers_are_told_apart_in_thirds_of_the_first_column() -> None:
    values = np.stack([[3, 1, 2, 9, 8, 7, np.nan, 5], np.zeros(8)], axis=1)
    found = strata(task(values, columns=("uv", "red")))
    assert [one.name for one in found] == ["uv: low third", "uv: middle third", "uv: high third"]
    assert [one.rows.tolist() for one in found] == [[0, 1, 2], [5, 7], [3, 4]]


def test_a_task_without_labels_is_no_error(data: Dataset) -> None:
    empty = {"t": task(np.full(8, np.nan)), "u": replace(task(np.full(8, -1), ("no", "yes")), name="u")}
    found = distributions(replace(data, tasks=empty), SPLIT)
    assert found["tasks"][0]["columns"] == [{"column": "size", "quantiles": None, "histogram": None}]
    assert [one["share"] for one in found["tasks"][1]["classes"]] == [0, 0]
    assert distribution_report(found)[1].rows == [["size", *"-------", " "]]


def test_the_report_says_it_in_tables(data: Dataset) -> None:
    numbers = replace(task([0, 0, 0, 0, 1, 1, 1, 5]), name="size")
    head, classes, sizes, metadata, missing = distribution_report(
        distributions(replace(data, tasks=dict(data.tasks) | {"size": numbers}), SPLIT)
    )
    assert head.lines == ["made: 8 rows in 4 groups"]
    assert classes.title == "t: 7 rows, 1 without a label"
    assert classes.columns == ["class", "rows", "share", "groups", "train", "val", "test", "ood"]
    assert classes.rows[0] == ["no", "2", "28.6%", "2", "2", "0", "0", "0"]
    assert sizes.rows == [["size", "0", "0", "0", "0.5", "1", "3.6", "5", "█   ▆" + " " * 14 + "▂"]]
    assert [row[2] for row in metadata.rows] == ["1 to 7, median 4", "b: 4, a: 2, c: 1"]
    assert missing.lines[0] == "missing: task t: 1 row (12.5%)"
