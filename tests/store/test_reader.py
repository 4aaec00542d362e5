from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from store import InputError, load_dataset, prediction_dataset

Make = Callable[..., Path]


def edit(spec: Path, old: str, new: str) -> Path:
    text = spec.read_text()
    assert old in text
    spec.write_text(text.replace(old, new))
    return spec


def test_rows_keep_the_order_of_the_table(make_dataset: Make) -> None:
    dataset = load_dataset(make_dataset())
    assert list(dataset.ids[:3]) == ["r00", "r01", "r02"]
    assert dataset.groups is not None and list(dataset.groups[:4]) == ["g0", "g0", "g0", "g1"]
    assert dataset.tasks["kind"].classes == ("plain", "striped")
    assert list(dataset.tasks["kind"].y[:4]) == [1, 0, 1, 0]
    assert list(dataset.metadata["magnification"].values[:4]) == [200, 300, 400, 200]


def test_kind_of_a_task_is_inferred(make_dataset: Make) -> None:
    extra = '[tasks.size]\ncolumn = "size"\n[tasks.magnification]\ncolumn = "magnification"\n'
    tasks = load_dataset(make_dataset(extra)).tasks
    assert tasks["size"].kind == "regression" and tasks["size"].y.shape == (24, 1)
    assert tasks["magnification"].classes == ("200", "300", "400")


def test_several_columns_are_one_regression(make_dataset: Make) -> None:
    extra = '[tasks.both]\ncolumns = ["size", "magnification"]\nweights = [3, 1]\n'
    task = load_dataset(make_dataset(extra)).tasks["both"]
    assert task.y.shape == (24, 2) and list(task.weights) == [3, 1]


def test_missing_labels_are_masked_and_none_is_a_class(make_dataset: Make) -> None:
    spec = make_dataset()
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace(",striped,", ",None,", 3).replace(",plain,", ",,", 2))
    task = load_dataset(spec).tasks["kind"]
    assert task.classes == ("None", "plain", "striped")
    assert (task.y == -1).sum() == 2 and task.labelled.sum() == 22


def test_a_condition_limits_a_task(make_dataset: Make) -> None:
    extra = '[tasks.size]\ncolumn = "size"\nwhen = "kind == \'striped\' and magnification >= 300"\n'
    task = load_dataset(make_dataset(extra)).tasks["size"]
    expected = [i % 2 == 0 and i % 3 > 0 for i in range(24)]
    assert list(task.applies) == expected and list(task.labelled) == expected


def test_text_comes_from_the_file_name_without_its_number(make_dataset: Make) -> None:
    extra = '[texts.name]\nfrom_filename = "bf"\n[texts.note]\ncolumn = "note"\n'
    texts = load_dataset(make_dataset(extra)).texts
    assert texts["name"].texts[0] == "s 200x"
    assert texts["note"].texts[1] == "a plain one"


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "xlsx"])
def test_every_kind_of_table_reads_alike(make_dataset: Make, ending: str) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\n')
    expected = load_dataset(spec)
    table = pd.read_csv(spec.parent / "labels.csv")
    target = spec.parent / f"other.{ending}"
    match ending:
        case "tsv":
            table.to_csv(target, sep="\t", index=False)
        case "parquet":
            table.to_parquet(target)
        case "xlsx":
            table.to_excel(target, index=False)
        case _:
            table.to_csv(target, index=False)
    found = load_dataset(edit(spec, "labels.csv", target.name))
    assert list(found.ids) == list(expected.ids)
    assert found.images == expected.images
    for name, task in expected.tasks.items():
        assert np.array_equal(found.tasks[name].y, task.y)
        assert found.tasks[name].classes == task.classes


def test_separate_tables_give_the_split(make_dataset: Make) -> None:
    spec = make_dataset()
    table = pd.read_csv(spec.parent / "labels.csv")
    table[:16].to_csv(spec.parent / "a.csv", index=False)
    table[16:].to_csv(spec.parent / "b.csv", index=False)
    dataset = load_dataset(edit(spec, 'table = "labels.csv"', 'tables = { train = "a.csv", test = "b.csv" }'))
    assert dataset.given_split is not None
    assert list(dataset.given_split) == ["train"] * 16 + ["test"] * 8


def test_a_page_is_part_of_the_key(make_dataset: Make) -> None:
    spec = make_dataset()
    plain = load_dataset(spec).images["bf"]
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace("_00.tif", "_00.tif#1"))
    paged = load_dataset(spec).images["bf"]
    assert paged.refs[0] is not None and paged.refs[0].page == 1
    assert paged.refs[0].path == plain.refs[0].path  # type: ignore[union-attr]
    assert paged.keys()[0] != plain.keys()[0] and paged.keys()[1:] == plain.keys()[1:]


def test_a_missing_file_has_no_key_and_keeps_its_row(make_dataset: Make) -> None:
    spec = make_dataset()
    (spec.parent / "images" / "s_200X_00.tif").unlink()
    dataset = load_dataset(spec)
    keys = dataset.images["bf"].keys()
    assert keys[0] is None and None not in keys[1:]


BAD = {
    "misspelt key": ('column = "kind"', 'colum = "kind"', r"unknown key 'tasks.kind.colum'. Did you mean 'column'"),
    "missing table": ("labels.csv", "lables.csv", "there is no such table"),
    "missing column": ('"kind"', '"knid"', r"column 'knid' is not in the table. Did you mean 'kind'"),
    "column by a wrong number": ('column = "file"', "column = 9", "there is no column 9; the table has 7"),
    "missing folder": ('root = "images"', 'root = "imags"', "there is no image folder"),
    "wrong file column": ('column = "file"', 'column = "note"', "none of its files exists"),
    "duplicate ids": ('id = "sample"', 'id = "specimen"', "8 ids of column 'specimen' stand in several rows"),
    "pattern without a match": (r"_(\d+)X_", r"_(\d+)Y_", "matches no file name, 's_200X_00.tif' for one"),
    "pattern without a group": (r"_(\d+)X_", "_X_", "has 0 groups"),
    "no split": ('group = "specimen"', 'split = "specimen"', "has no row 'train'"),
    "one class": ('column = "kind"', 'column = "kind"\nclasses = ["plain", "x"]', "class 'striped' in row 'r00'"),
    "log of a word": ("pattern = '_(\\d+)X_'", 'column = "note"', "transform = 'log' needs numbers"),
    "order of words": (
        "pattern = '_(\\d+)X_'\ntransform",
        'column = "note"\nmonotone = "increasing"\n#',
        "monotone = 'increasing' needs",
    ),
    "order of categories": (
        "pattern = '_(\\d+)X_'\ntransform",
        'column = "note"\nkind = "categorical"\nmonotone = "decreasing"\n#',
        "monotone is for numeric metadata",
    ),
    "no TOML": ('name = "tiny"', "name = tiny", "is no valid TOML"),
    "a condition on no column": ('"kind"\n', '"kind"\nwhen = "sise > 3"\n', "Did you mean 'size'"),
    "no condition": ('"kind"\n', '"kind"\nwhen = "size >"\n', "is no condition"),
    "a condition that holds nowhere": ('"kind"\n', '"kind"\nwhen = "size > 300"\n', r"holds in no row; size is '\d"),
    "code in a condition": ('"kind"\n', '"kind"\nwhen = "__import__(1)"\n', "cannot read"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_spec_is_one_clear_line(make_dataset: Make, case: str) -> None:
    old, new, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(edit(make_dataset(), old, new))
    assert "\n" not in str(caught.value)


def test_numbers_and_words_are_not_mixed_in_metadata(make_dataset: Make) -> None:
    spec = make_dataset('[metadata.size]\ncolumn = "size"\n')
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace("3.5", "abc", 1))
    with pytest.raises(InputError, match=r"numbers and words .'abc' in 1 row .r03.. are mixed"):
        load_dataset(spec)
    spec.write_text(spec.read_text().replace('column = "size"', 'kind = "categorical"'))
    assert load_dataset(spec).metadata["size"].values[3] == "abc"  # its column is its own name


def test_another_separator_is_named(make_dataset: Make) -> None:
    spec = make_dataset()
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace(",", ";"))
    with pytest.raises(InputError, match="separated by ';'; csv needs commas"):
        load_dataset(spec)


def test_every_problem_is_named_at_once(make_dataset: Make) -> None:
    spec = edit(edit(make_dataset(), 'column = "file"', 'column = "flie"'), '"kind"', '"knid"')
    with pytest.raises(InputError, match=r"flie.*knid"):
        load_dataset(spec)


@pytest.mark.parametrize(
    ("cell", "message"), [("inf", "infinite values in 1 row .r03"), ("many", "'many' is no number")]
)
def test_a_number_is_finite_or_missing(make_dataset: Make, cell: str, message: str) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\nkind = "regression"\n')
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace("3.5", cell, 1))
    with pytest.raises(InputError, match=message):
        load_dataset(spec)


@pytest.mark.parametrize("path", ["../../secret.tif", "/etc/passwd"])
def test_a_path_may_not_leave_the_root(make_dataset: Make, path: str) -> None:
    spec = make_dataset()
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace("s_200X_00.tif", path))
    with pytest.raises(InputError, match="leaves the root"):
        load_dataset(spec)


def test_sample_weights_come_from_the_dataset_or_the_task(make_dataset: Make) -> None:
    spec = make_dataset('class_weight = "balanced"\n[tasks.note]\ncolumn = "note"\nweight = "magnification"\n')
    edit(spec, 'group = "specimen"', 'group = "specimen"\nweight = "size"')
    tasks = load_dataset(spec).tasks
    kind, note = tasks["kind"].sample_weight, tasks["note"].sample_weight
    assert kind is not None and list(kind[:3]) == [0.5, 1.5, 2.5] and tasks["kind"].class_weight == "balanced"
    assert note is not None and list(note[:3]) == [200, 300, 400] and tasks["note"].class_weight is None
    assert not prediction_dataset(load_dataset(spec).spec, spec.parent / "images").tasks


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", r"weight 'size' is empty in 1 row \(r03\); sample weights are positive numbers. Fill them in"),
        ("0", r"weight 'size' is 0 in 1 row \(r03\)"),
        ("-2", r"weight 'size' is -2 in 1 row \(r03\)"),
        ("much", r"'much' is no number"),
    ],
)
def test_a_sample_weight_is_a_positive_number(make_dataset: Make, cell: str, message: str) -> None:
    spec = make_dataset('weight = "size"\n')
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace(",3.5,", f",{cell},", 1))
    with pytest.raises(InputError, match=message):
        load_dataset(spec)


def test_a_row_without_a_label_needs_no_weight(make_dataset: Make) -> None:
    spec = make_dataset('weight = "size"\n')
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace("plain,3.5,", ",,", 1))
    weight = load_dataset(spec).tasks["kind"].sample_weight
    assert weight is not None and np.isnan(weight[3]) and np.isfinite(weight).sum() == 23


@pytest.mark.parametrize("kind", ['kind = "regression"\ncolumn = "size"', 'columns = ["size"]', 'column = "size"'])
def test_class_weights_are_for_classes(make_dataset: Make, kind: str) -> None:
    with pytest.raises(InputError, match="belongs to a classification"):
        load_dataset(make_dataset(f'[tasks.size]\n{kind}\nclass_weight = "balanced"\n'))


def test_a_condition_on_a_missing_cell_is_not_known(make_dataset: Make) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\nwhen = "kind == \'striped\' and magnification >= 300"\n')
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace(",striped,", ",,", 1))
    tasks = load_dataset(spec).tasks
    known = tasks["size"].is_known
    assert known is not None and not known[0] and known[1:].all() and tasks["kind"].is_known is None


def test_a_task_without_a_label_is_said_to_have_none(make_dataset: Make) -> None:
    spec = make_dataset()
    table = spec.parent / "labels.csv"
    rows = pd.read_csv(table)
    rows.assign(kind="").to_csv(table, index=False)
    with pytest.raises(InputError, match=r"\[tasks\.kind\]: no row has a label$"):
        load_dataset(spec)
