import itertools
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from store import Dataset, InputError, load_dataset, prediction_dataset, read_column, with_variants
from store.rows import list_images, sheet_of
from store.spec import parse_spec

Make = Callable[..., Path]
SPEC = 'name = "waste"\nroot = "pictures"\n[images.photo]\n[tasks.bin]\ncolumn = "folder"\n'
PARTS = '[folders]\ntrain = "Train"\nval = "Val"\ntest = "Test"\n'


def draw(path: Path, *, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8))


def keys(dataset: Dataset, block: str) -> list[str | None]:
    return dataset.images[block].keys()


def make_folders(folder: Path, *places: str, spec: str = SPEC, each: int = 2) -> Path:
    for number, (place, i) in enumerate(itertools.product(places, range(each))):
        draw(folder / "pictures" / place / f"thin_can_{i}.png", number=number)
    (folder / "dataset.toml").write_text(spec)
    return folder / "dataset.toml"


def make_sheets(folder: Path, *, table: str = "images/{folder}/labels.csv", names: str = "AB") -> Path:
    for name in names:
        sheet = folder / table.replace("{folder}", name)
        rows = {"shot": ["one", "two"], "path": [f"{name}_1.png", f"{name}_2.png"], "kind": ["x", "y"]}
        for number, file in enumerate(rows["path"]):
            draw(folder / "images" / name / file, number=ord(name) + 9 * number)
        sheet.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(rows)
        frame.to_csv(sheet, index=False) if sheet.suffix == ".csv" else frame.to_excel(sheet, index=False)
    spec = folder / "dataset.toml"
    spec.write_text(
        f'name = "sheets"\ntable = "{table}"\nroot = "images"\nid = "shot"\ngroup = "folder"\n'
        '[images.em]\ncolumn = "path"\n[tasks.kind]\ncolumn = "kind"\n'
    )
    return spec


# ---- class folders


def test_the_label_is_the_class_folder_and_the_id_the_path(tmp_path: Path) -> None:
    dataset = load_dataset(make_folders(tmp_path, "blue", "black", "blue/deep"))
    assert dataset.ids.tolist() == [
        *("black/thin_can_0.png", "black/thin_can_1.png"),
        *("blue/deep/thin_can_0.png", "blue/deep/thin_can_1.png", "blue/thin_can_0.png", "blue/thin_can_1.png"),
    ]
    assert dataset.tasks["bin"].classes == ("black", "blue")
    assert dataset.tasks["bin"].y.tolist() == [0, 0, 1, 1, 1, 1]
    assert dataset.given_split is None and None not in keys(dataset, "photo")


def test_part_folders_give_the_split(tmp_path: Path) -> None:
    spec = SPEC.replace("[images.photo]", PARTS + "[images.photo]") + '[texts.name]\nfrom_filename = "photo"\n'
    dataset = load_dataset(
        make_folders(tmp_path, *(f"{p}/{c}" for p in ("Train", "Val", "Test") for c in "ab"), spec=spec)
    )
    assert dataset.ids[0] == "Train/a/thin_can_0.png" and dataset.tasks["bin"].y.tolist() == [0, 0, 1, 1] * 3
    assert dataset.given_split is not None
    assert dataset.given_split.tolist() == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    assert set(dataset.texts["name"].texts) == {"thin can"}  # the same file name in every folder


def test_an_image_outside_the_class_folders_has_no_label(tmp_path: Path) -> None:
    spec = make_folders(tmp_path, "a", "b")
    draw(tmp_path / "pictures" / "loose.png")
    task = load_dataset(spec).tasks["bin"]
    assert task.labelled.sum() == 4 and (task.y == -1).tolist() == [False] * 4 + [True]


def test_files_that_are_no_images_are_no_rows_and_images_of_other_formats_are(tmp_path: Path) -> None:
    spec = make_folders(tmp_path, "a", "b")
    for name in ("notes.txt", "Thumbs.db", ".hidden.png", "._a.png"):
        (tmp_path / "pictures" / "a" / name).write_text("no image")
    (tmp_path / "pictures" / ".cache").mkdir()
    (tmp_path / "pictures" / "a" / "new.WEBP").write_text("not read, and not left out in silence")
    ids = load_dataset(spec).ids.tolist()
    assert len(ids) == 5 and ids[0] == "a/new.WEBP"


def test_a_linked_class_folder_is_followed_unless_it_leads_back(tmp_path: Path) -> None:
    spec = make_folders(tmp_path, "a")
    draw(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "pictures" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures" / "a" / "more").symlink_to(tmp_path / "elsewhere")
    assert load_dataset(spec).ids.tolist() == ["a/more/x.png", "a/thin_can_0.png", "a/thin_can_1.png", "b/x.png"]


def test_links_in_a_ring_end(tmp_path: Path) -> None:
    spec = make_folders(tmp_path, "a", "b", each=1)
    (tmp_path / "pictures" / "a" / "x").symlink_to(tmp_path / "pictures" / "b")
    (tmp_path / "pictures" / "b" / "y").symlink_to(tmp_path / "pictures" / "a")
    names = ["a/thin_can_0.png", "a/x/thin_can_0.png", "b/thin_can_0.png", "b/y/thin_can_0.png"]
    assert load_dataset(spec).ids.tolist() == names


def test_class_folders_of_two_modalities_are_united(tmp_path: Path) -> None:
    spec = SPEC.replace(
        "[images.photo]\n",
        '[images.bf]\nfolder = "BF"\n[images.fl]\nfolder = "FL"\n[images.both]\nstack = ["bf", "fl"]\n',
    )
    path = make_folders(tmp_path, "BF/a", "BF/b", "FL/a", "FL/b", spec=spec)
    (tmp_path / "pictures/FL/a/thin_can_0.png").unlink()
    dataset = load_dataset(path)
    assert dataset.ids.tolist() == ["a/thin_can_0.png", "a/thin_can_1.png", "b/thin_can_0.png", "b/thin_can_1.png"]
    assert [key is None for key in keys(dataset, "fl")] == [True, False, False, False]
    assert dataset.images["bf"].refs[2] is not None
    assert dataset.images["bf"].refs[2].path == tmp_path / "pictures/BF/b/thin_can_0.png"


BLOCKS = "[images.photo]"
TRAIN_VAL = ("Train/a", "Train/b", "Val/a")
BAD_FOLDERS = {
    "a table too": ((), BLOCKS, f'table = "x.csv"\n{PARTS}{BLOCKS}', "table and folders both say"),
    "split too": ((), BLOCKS, f'split = "part"\n{PARTS}{BLOCKS}', r"split and \[folders\] both say"),
    "no root": ("ab", 'root = "pictures"\n', "", "or as root the folder that holds the class folders"),
    "no images": ("ab", f"{BLOCKS}\n", "", r"neither a table nor an \[images.NAME\]"),
    "another column": ("ab", BLOCKS, f'{BLOCKS}\ncolumn = "path"', "'path', and there is no table"),
    "another label": ("ab", "folder", "label", "'label' is not in the table. The table has: file, folder"),
    "a wrong root": ("ab", "pictures", "picture", "there is no image folder .*Did you mean 'pictures'"),
    "no files": ((), "", "", r"pictures: holds no images \(.tif.* .bmp; listed, but not read: .webp, .gif"),
    "no class folders": (".", "", "", "has no class folders with images"),
    "one class": ("a", "", "", r"only one class \(a\)"),
    "unnamed parts": (("Train/a", "Test/a"), "", "", r"Test, Train look like the parts of a split; name them under"),
    "a class only in Test": ((*TRAIN_VAL, "Test/c"), BLOCKS, PARTS + BLOCKS, "folder c is in Test and not in Train"),
    "a missing part": (TRAIN_VAL, BLOCKS, PARTS + BLOCKS, "there is no image folder .*Test"),
    "a part without": ((*TRAIN_VAL, "Test"), BLOCKS, PARTS + BLOCKS, "Test: has no class folders with images"),
    "a part in another": (
        (),
        BLOCKS,
        f'[folders]\ntrain = "x"\ntest = "x/a/"\n{BLOCKS}',
        "'x/a' is a part of train = 'x'",
    ),
    "a misspelt part": ((), BLOCKS, f'[folders]\ntrian = "Train"\n{BLOCKS}', "Did you mean 'train'"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_class_folders_are_one_clear_line(tmp_path: Path, case: str) -> None:
    places, old, new, message = BAD_FOLDERS[case]
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(make_folders(tmp_path, *places, spec=SPEC.replace(old, new, 1)))
    assert "\n" not in str(caught.value)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    spec = make_folders(tmp_path, "a", "b")
    (tmp_path / "pictures" / "c").mkdir()
    with pytest.raises(InputError, match=r"no images in class folder c; add some, or remove the folder"):
        load_dataset(spec)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_folders(tmp_path, "a", "b")
    scan = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"pictures/b: cannot be listed \(permission denied\)"):
        load_dataset(spec)


def test_new_folders_are_predicted_without_classes(tmp_path: Path) -> None:
    spec = load_dataset(make_folders(tmp_path, "a", "b")).spec
    draw(tmp_path / "new" / "x_1.png")
    dataset = prediction_dataset(spec, tmp_path / "new")
    assert dataset.ids.tolist() == ["x_1.png"] and not dataset.tasks and dataset.given_split is None
    pd.DataFrame({"file": ["a/thin_can_1.png"]}).to_csv(tmp_path / "some.csv", index=False)
    assert prediction_dataset(spec, tmp_path / "some.csv").ids.tolist() == ["a/thin_can_1.png"]


def test_200_000_files_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_dataset(make_folders(tmp_path, "a", "b")).spec
    names = [f"can_{i}.png" for i in range(100_000)]
    monkeypatch.setattr(
        os, "walk", lambda base, **_: [(str(base), ["a", "b"], []), *((f"{base}/{c}", [], names) for c in "ab")]
    )
    files = list_images(spec, tmp_path / "pictures")
    assert len(files) == 200_000 and files[0] == "a/can_0.png"


# ---- a sheet per folder


@pytest.mark.parametrize(
    "table", ["images/{folder}/labels.csv", "images/{folder}/{folder}.xlsx", "sheets/{folder}.xlsm"]
)
def test_each_folder_has_its_sheet(tmp_path: Path, table: str) -> None:
    dataset = load_dataset(make_sheets(tmp_path, table=table))
    assert dataset.ids.tolist() == ["A/one", "A/two", "B/one", "B/two"]
    assert dataset.groups is not None and dataset.groups.tolist() == ["A", "A", "B", "B"]
    assert dataset.images["em"].refs[3] is not None
    assert dataset.images["em"].refs[3].path == tmp_path / "images" / "B" / "B_2.png"
    assert dataset.tasks["kind"].y.tolist() == [0, 1, 0, 1]
    assert read_column(dataset, "folder").tolist() == ["A", "A", "B", "B"]


def test_a_modality_may_have_a_folder_inside_each(tmp_path: Path) -> None:
    spec = make_sheets(tmp_path)
    for name in "AB":
        (tmp_path / "images" / name).rename(tmp_path / "moved")
        (tmp_path / "images" / name).mkdir()
        (tmp_path / "moved").rename(tmp_path / "images" / name / "BF")
        (tmp_path / "images" / name / "BF" / "labels.csv").rename(tmp_path / "images" / name / "labels.csv")
    spec.write_text(spec.read_text().replace('"path"', '"path"\nfolder = "BF"'))
    assert None not in keys(load_dataset(spec), "em")


def test_a_sheet_is_predicted_where_it_lies(tmp_path: Path) -> None:
    spec = load_dataset(make_sheets(tmp_path)).spec
    make_sheets(tmp_path / "new", names="C")
    dataset = prediction_dataset(spec, tmp_path / "new" / "images" / "C" / "labels.csv")
    assert dataset.ids.tolist() == ["C/one", "C/two"] and None not in keys(dataset, "em")
    assert sheet_of(spec, Path("/x/images/C/labels.csv")) == (Path("/x/images"), "C")
    assert sheet_of(spec, Path("/x/C/labels.csv")) is None
    (tmp_path / "labels.csv").write_text("shot,path\none,A/A_1.png\n")  # one table for all: relative to the root
    dataset = prediction_dataset(spec, tmp_path / "labels.csv")
    assert dataset.ids.tolist() == ["one"] and None not in keys(dataset, "em")


A, B = "images/A/labels.csv", "images/B/labels.csv"
BAD_SHEETS = {
    "another name": ("dataset.toml", ("labels", "label"), "there is no such sheet in any folder"),
    "other columns": (B, ("kind", "sort"), f"{B}: has other columns than {A}: kind, sort"),
    "a column folder": (A, ("kind", "folder"), f"{A}: has a column 'folder', the name"),
    "the same row twice": (A, ("two", "one"), "1 ids of column 'shot' stand in several rows .A/one"),
    "a wrong root": ("dataset.toml", ('root = "images"', ""), f"{A}: has no folder of images .*/A; correct root"),
    "another placeholder": ("dataset.toml", ("{folder}", "{specimen}"), "only {folder} can stand for a name"),
    "in tables": ("dataset.toml", ("table = ", "tables.train = "), "only {folder} can stand for a name"),
}


@pytest.mark.parametrize("case", BAD_SHEETS)
def test_bad_sheets_are_one_clear_line(tmp_path: Path, case: str) -> None:
    spec = make_sheets(tmp_path)
    file, words, message = BAD_SHEETS[case]
    (tmp_path / file).write_text((tmp_path / file).read_text().replace(*words))
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(spec)
    assert "\n" not in str(caught.value)


def test_a_folder_of_images_without_a_sheet_is_named(tmp_path: Path) -> None:
    spec = make_sheets(tmp_path)
    (tmp_path / "images" / "notes").mkdir()
    assert load_dataset(spec).n_rows == 4
    draw(tmp_path / "images" / "C" / "x.png")
    with pytest.raises(InputError, match=r"images/C has images and no sheet images/C/labels.csv; add it"):
        load_dataset(spec)


def test_lock_files_of_open_sheets_are_no_sheets(tmp_path: Path) -> None:
    spec = make_sheets(tmp_path, table="sheets/{folder}.xlsx")
    (tmp_path / "sheets" / "~$A.xlsx").write_text("of a running Excel")
    assert load_dataset(spec).n_rows == 4


# ---- columns from file names, and from which cells are filled


def test_a_group_is_read_from_the_file_name(make_dataset: Make) -> None:
    spec = make_dataset('[columns.shot]\npattern = "_([0-9])[0-9].tif"\n')
    spec.write_text(spec.read_text().replace('group = "specimen"', 'group = "shot"'))
    dataset = load_dataset(spec)
    assert dataset.groups is not None and dataset.groups.tolist() == ["0"] * 10 + ["1"] * 10 + ["2"] * 4
    assert read_column(dataset, "shot")[23] == "2"
    varied = with_variants(dataset, converts=["log", "linear"])
    assert varied.spec.columns["shot"].image is None and varied.n_rows == 24
    assert prediction_dataset(dataset.spec, spec.parent / "labels.csv").groups is None


def test_whether_a_cell_is_filled_is_a_class_and_a_condition(make_dataset: Make) -> None:
    spec = make_dataset('[columns.sized]\nfilled = "size"\n[tasks.sized]\ncolumn = "sized"\n')
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace(",2.5,", ",,").replace(",7.5,", ",NA,"))
    spec.write_text(spec.read_text() + '[tasks.size]\ncolumn = "size"\nwhen = "sized == \'yes\'"\n')
    dataset = load_dataset(spec)
    assert dataset.tasks["sized"].classes == ("no", "yes")
    assert np.flatnonzero(dataset.tasks["sized"].y == 0).tolist() == [2, 7]
    assert np.flatnonzero(~dataset.tasks["size"].applies).tolist() == [2, 7]
    assert dataset.tasks["size"].is_known is not None and dataset.tasks["size"].is_known.all()


BAD_COLUMNS = {
    "no match": ('pattern = "_Y_(.)"', r"\[columns.x\]: pattern '_Y_\(.\)' matches no file name"),
    "no source": ("", "columns.x: needs either pattern or filled"),
    "two sources": ('pattern = "(.)"\nfilled = "note"', "columns.x: needs either pattern or filled"),
    "image of no pattern": ('filled = "note"\nimage = "bf"', "columns.x: image is for pattern"),
    "nothing to be filled": ('filled = "nte"', r"\[columns.x\]: column 'nte' is not in the table. Did you mean 'note'"),
    "not an expression": ('pattern = "("', r"columns.x.pattern: pattern '\(' is no regular expression"),
    "no such block": ('pattern = "(.)"\nimage = "fb"', r"\[columns.x\] names image block 'fb', which is not there"),
    "an input": (
        'pattern = "(.)"\n[metadata.m]\ncolumn = "x"',
        r"\[metadata.m\] needs \[columns.x\], which new",
    ),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
def test_a_bad_column_is_one_clear_line(make_dataset: Make, case: str) -> None:
    lines, message = BAD_COLUMNS[case]
    with pytest.raises(InputError, match=message):
        load_dataset(make_dataset(f"[columns.x]\n{lines}\n"))


def test_a_column_of_the_table_is_not_replaced(make_dataset: Make) -> None:
    with pytest.raises(InputError, match="the table has a column 'size' already; rename one"):
        load_dataset(make_dataset('[columns.size]\npattern = "(.)"\n'))
    with pytest.raises(InputError, match=r"pattern or tag reads image files, and there is no \[images.NAME\]"):
        parse_spec({"name": "x", "table": "x.csv", "columns": {"a": {"pattern": "(.)"}}}, "x")
