from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heads.error_report import errors_report
from heads.errors import describe_errors, row_captions, write_errors
from heads.metrics import Scored
from heads.stored import Result
from store import InputError, TextBlock
from tests.heads.made import classes, dataset, numbers

SCORE = {"value": 0.5, "low": 0.25, "high": 0.75}
REGRESSION = dict.fromkeys(("mae", "rmse", "r2", "mape", "median_ae"), SCORE)


def an_entry(task, headline, **more):
    return {
        "task": task.name,
        "kind": task.kind,
        "split": "val",
        "blocks": ["image:bf@a", "metadata"],
        "head": "linear",
        "headline": headline,
        "metrics": {headline: SCORE},
        "outputs": {},
        "baseline": {headline: 0.375},
        "difference": SCORE,
        "verdict": "better than without features",
        "n_rows": 4,
        "n_left_out": 0,
        "n_groups": None,
        "seed": 0,
    } | more


@pytest.fixture
def bins():
    """Five rows, of which row 1 was not scored; rows 2 and 4 are wrong, row 4 surer."""
    task = classes([0, 1, 0, 1, 2], name="bin", labels=("black", "blue", "green"))
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05]])
    rows = np.array([0, 2, 3, 4])
    scored = Scored("classification", task.y[rows], p, np.zeros(4, int), np.arange(4), np.ones(1), rows)
    texts = {"name": TextBlock("name", ("a cup", "a can", None, "a box", "a bag"))}
    return Result(an_entry(task, "accuracy"), scored, None), dataset(task, n=5, texts=texts)


@pytest.fixture
def sizes():
    """Two outputs of very different size: 30 m off is less, in standard deviations, than 3 mm off."""
    y = np.array([[100.0, 1.0], [200.0, 2.0], [300.0, 3.0], [400.0, 4.0]])
    task = numbers(y, name="size", columns=("long", "short"))
    predicted = y + np.array([[30.0, 0.0], [0.0, 0.0], [-10.0, 3.0], [0.0, -0.5]])
    scored = Scored("regression", y, predicted, np.zeros(4, int), np.arange(4), np.ones(2), np.arange(4))
    outputs = dict.fromkeys(("long", "short"), REGRESSION)
    entry = an_entry(task, "mae", outputs=outputs)
    prior = entry | {"outputs": {name: {"mae": SCORE | {"value": 0.125}} for name in outputs}}
    return Result(entry, scored, prior), dataset(task, n=4)


def test_misclassified_rows_come_surest_first(bins):
    document, rows = describe_errors(*bins)
    assert document["n_wrong"] == 2 and [row["id"] for row in document["wrong"]] == ["r004", "r002"]
    assert document["wrong"][0] == {
        "id": "r004",
        "label": "green",
        "predicted": "black",
        "p_predicted": 0.9,
        "p_label": 0.05,
        "text_name": "a bag",
    }
    assert rows["id"].tolist() == ["r000", "r002", "r003", "r004"]
    assert rows["is_wrong"].tolist() == [False, True, False, True]
    assert rows["p_label"].tolist() == [0.7, 0.3, 0.8, 0.05]
    assert rows["text_name"].tolist() == ["a cup", "", "a box", "a bag"]


def test_classes_are_counted_and_scored(bins):
    document, _ = describe_errors(*bins)
    assert document["confusion"] == {"classes": ["black", "blue", "green"], "counts": [[1, 1, 0], [0, 1, 0], [1, 0, 0]]}
    black, _, green = document["classes"]
    assert (black["class"], black["rows"], black["predicted"]) == ("black", 2, 2)
    assert (black["precision"]["value"], black["recall"]["value"], black["f1"]["value"]) == (0.5, 0.5, 0.5)
    assert (green["precision"]["value"], green["recall"]["value"], green["predicted"]) == (0.0, 0.0, 0)
    assert document["macro"]["recall"]["value"] == 0.5 and document["weighted"]["precision"]["value"] == 0.375


def test_the_worst_rows_of_a_regression_are_far_in_deviations_of_their_output(sizes):
    document, rows = describe_errors(*sizes)
    assert [(row["id"], row["output"]) for row in document["farthest"][:3]] == [
        ("r002", "short"),
        ("r003", "short"),
        ("r000", "long"),
    ]
    assert document["farthest"][0] == {"id": "r002", "output": "short", "label": 3.0, "predicted": 6.0, "error": 3.0}
    assert len(rows) == 8 and rows["error"].tolist() == [30, 0, 0, 0, -10, 3, 0, -0.5]
    assert [one["baseline"] for one in document["outputs"]] == [{"mae": 0.125}] * 2


def test_outputs_have_no_baseline_where_its_entry_is_not_there(sizes):
    result, data = sizes
    document, _ = describe_errors(replace(result, prior=None), data)
    assert [one["baseline"] for one in document["outputs"]] == [{}, {}]
    assert errors_report([document | {"files": {}}], {})[0].rows[1] == ["  without features", *["-"] * 5]


def test_captions_have_the_text_or_the_id_and_label_and_prediction(bins, sizes):
    assert row_captions(describe_errors(*bins)[0]) == {
        "r004": "a bag\ngreen -> black 0.90",
        "r002": "r002\nblack -> blue 0.60",
    }
    captions = row_captions(describe_errors(*sizes)[0])
    assert captions["r002"] == "r002\nshort: 3 -> 6" and len(captions) == 4


def test_rows_and_chart_are_written_and_named(bins, sizes, tmp_path):
    document = write_errors(*bins, tmp_path / "new" / "report")
    assert document["files"]["rows"] == str(tmp_path / "new" / "report" / "bin-val.csv")
    table = pd.read_csv(document["files"]["rows"])
    assert list(table.columns) == ["id", "label", "predicted", "p_predicted", "p_label", "is_wrong", "text_name"]
    pixels = np.asarray(Image.open(document["files"]["chart"]).convert("RGB")).reshape(-1, 3)
    assert {(8, 48, 107), (247, 251, 255)} <= {tuple(one) for one in pixels.tolist()}  # a share of 1, and of 0
    document = write_errors(*sizes, tmp_path)
    assert document["files"]["chart"].endswith("size-val-scatter.png")
    with Image.open(document["files"]["chart"]) as picture:
        assert picture.width > 800  # two panels


def test_a_folder_that_cannot_be_made_is_one_line(bins, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be made a folder \(File exists\); give another --out"):
        write_errors(*bins, tmp_path / "file")


def test_a_classification_is_printed_as_three_tables(bins):
    document = describe_errors(*bins)[0] | {"files": {"rows": "a.csv"}}
    scores, confusions, wrong, files, left_out = errors_report([document], {"x": "task 'x': no result"})
    assert scores.title == "bin, 4 rows of val: image:bf@a + metadata, linear"
    assert [row[0] for row in scores.rows] == ["black", "blue", "green", "macro mean", "weighted mean"]
    assert scores.rows[0][1].startswith("0.500 [") and scores.rows[0][-2:] == ["2", "2"]
    assert scores.lines == [
        "  accuracy 0.500 [0.250, 0.750]; without features 0.375",
        "  better than without features",
        "  never predicted: green",
        "",
    ]
    assert confusions.rows == [["black", "1", "1", "0"], ["blue", "0", "1", "0"], ["green", "1", "0", "0"]]
    assert wrong.columns == ["id", "label", "predicted", "probability", "of the label", "name"]
    assert wrong.rows[1] == ["r002", "black", "blue", "0.600", "0.300", ""]
    assert wrong.lines == ["  2 of 4 rows are misclassified, surest first"]
    assert files.lines == ["  rows: a.csv", ""] and left_out.lines == ["left out: task 'x': no result"]


def test_a_regression_is_printed_with_every_metric_beside_the_baseline(sizes):
    document = describe_errors(*sizes)[0] | {"files": {}}
    scores, far, _ = errors_report([document], {})
    assert scores.columns == ["output", "mae", "rmse", "r2", "mape", "median_ae"]
    assert scores.rows[:2] == [
        ["long", *["0.500 [0.250, 0.750]"] * 5],
        ["  without features", "0.125", "-", "-", "-", "-"],
    ]
    assert far.rows[0] == ["r002", "short", "3", "6", "3"]
    assert far.title == "Farthest off, in standard deviations of its output"


def test_rows_that_were_left_out_are_said(bins):
    result, data = bins
    document, _ = describe_errors(replace(result, entry=result.entry | {"n_left_out": 3}), data)
    lines = errors_report([document | {"files": {}}], {})[0].lines
    assert "  left out: 3 labelled rows without features" in lines


def test_many_classes_are_left_to_the_chart():
    y = np.arange(21)
    task = classes(y, labels=tuple(f"c{i:02d}" for i in range(21)))
    scored = Scored("classification", y, np.eye(21), np.zeros(21, int), y, np.ones(1), y)
    document, _ = describe_errors(Result(an_entry(task, "accuracy"), scored, None), dataset(task, n=21))
    _, confusions, wrong, _ = errors_report([document | {"files": {}}], {})
    assert not confusions.columns and confusions.lines[0].startswith("  21 classes")
    assert not wrong.columns and document["wrong"] == []
