"""Folders and tables of new rows are datasets to predict on."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from store import InputError, load_dataset, prediction_dataset

Make = Callable[..., Path]


def test_a_folder_to_predict_on_needs_no_table(make_dataset: Make, tmp_path: Path) -> None:
    spec = load_dataset(make_dataset()).spec
    shutil.copytree(tmp_path / "images", tmp_path / "new" / "deep")
    (tmp_path / "new" / "readme.txt").write_text("no image")
    dataset = prediction_dataset(spec, tmp_path / "new")
    assert dataset.n_rows == 24 and dataset.ids[0] == "deep/s_200X_00.tif"
    assert not dataset.tasks and dataset.metadata["magnification"].values[0] == 200


def test_a_table_to_predict_on_needs_no_labels(make_dataset: Make) -> None:
    spec = make_dataset()
    table = pd.read_csv(spec.parent / "labels.csv").drop(columns=["kind", "specimen"])
    table.to_csv(spec.parent / "new.csv", index=False)
    dataset = prediction_dataset(load_dataset(spec).spec, spec.parent / "new.csv")
    assert dataset.ids[0] == "r00" and not dataset.tasks and dataset.images["bf"].refs[0] is not None


def test_a_table_finds_its_images_beside_it_where_the_absolute_root_is_another_machine_s(
    make_dataset: Make, tmp_path: Path
) -> None:
    spec = load_dataset(make_dataset()).spec
    shutil.copytree(tmp_path / "images", tmp_path / "new")
    shutil.copy(tmp_path / "labels.csv", tmp_path / "new" / "labels.csv")
    there = spec.model_copy(update={"root": str(tmp_path / "images")})
    gone = spec.model_copy(update={"root": str(tmp_path / "gone")})
    found = [prediction_dataset(one, tmp_path / "new" / "labels.csv").images["bf"].refs[0] for one in (there, gone)]
    assert [ref and ref.path for ref in found] == [tmp_path / place / "s_200X_00.tif" for place in ("images", "new")]
    with pytest.raises(InputError, match=r"there is no image folder .*new/images; put the images there"):
        prediction_dataset(spec, tmp_path / "new" / "labels.csv")


def test_a_folder_to_predict_on_holds_the_folder_of_each_block(make_dataset: Make, tmp_path: Path) -> None:
    spec = load_dataset(make_dataset()).spec
    below = spec.model_copy(update={"images": {"bf": spec.images["bf"].model_copy(update={"folder": "images"})}})
    assert prediction_dataset(below, tmp_path).n_rows == 24
    message = r"images: has to hold the folder images, as \[images.bf\] folder = 'images' says; give .*"
    with pytest.raises(InputError, match=f"{message}{tmp_path.name}$"):
        prediction_dataset(below, tmp_path / "images")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other: has to hold the folder images.*; give a folder that has it"):
        prediction_dataset(below, tmp_path / "other")


def test_a_folder_cannot_stand_in_for_a_column(make_dataset: Make, tmp_path: Path) -> None:
    spec = load_dataset(make_dataset('[texts.note]\ncolumn = "note"\n')).spec
    with pytest.raises(InputError, match=r"\[texts.note\] come from a column, which a folder has not; give a table"):
        prediction_dataset(spec, tmp_path / "images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no such folder or table"):
        prediction_dataset(spec, tmp_path / "nowhere")
    plain = load_dataset(make_dataset()).spec
    with pytest.raises(
        InputError, match=r"empty: holds no images \(.tif.*not read: .webp, .gif.*\); give the folder that"
    ):
        prediction_dataset(plain, tmp_path / "empty")


@pytest.mark.parametrize(
    ("cell", "transform", "reason"),
    [
        ("abc", "none", "metadata 'size': 'abc' is no number"),
        ("inf", "none", "metadata 'size': 'inf' is no number"),
        ("-2", "log", "metadata 'size': '-2' has no logarithm"),
    ],
)
def test_one_bad_cell_of_a_table_to_predict_on_costs_its_row_alone(
    make_dataset: Make, cell: str, transform: str, reason: str
) -> None:
    spec = make_dataset(f'[metadata.size]\ncolumn = "size"\ntransform = "{transform}"\n')
    text = (spec.parent / "labels.csv").read_text()
    table = spec.parent / "new.csv"
    table.write_text(text.replace("3.5", cell, 1))
    known = load_dataset(spec)
    dataset = prediction_dataset(known.spec, table)
    assert dataset.bad_cells == {"r03": reason}
    expected = known.metadata["size"].values.copy()
    expected[3] = np.nan
    np.testing.assert_array_equal(dataset.metadata["size"].values, expected)
    first, second = dataset.parts(4), dataset.take([5, 3])
    assert next(first).bad_cells == second.bad_cells == dataset.bad_cells and not dataset.take([5]).bad_cells
