"""Copies of images with words drawn in: which there are, where they lie, and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from extract.drawing import Drawing
from store import Dataset, InputError, load_dataset, prediction_dataset

GREY = np.full((60, 80, 3), 128, np.uint8)
SPEC = (
    'name = "x"\ntable = "labels.csv"\nroot = "in"\n[images.bf]\ncolumn = "file"\n'
    '[tasks.kind]\ncolumn = "kind"\nclasses = ["a", "b"]\n'
)


def words(row: Mapping[str, Any]) -> list[str]:
    return [f"kind: {row['kind']}"]


def folder_of(folder: Path, *names: str) -> tuple[Path, Dataset]:
    for name in names:
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(folder / "in" / name)
    return table_of(folder, *names)


def table_of(folder: Path, *names: str, blocks: str = "") -> tuple[Path, Dataset]:
    lines = [f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)]
    (folder / "labels.csv").write_text("file,kind\n" + "".join(lines))
    (folder / "dataset.toml").write_text(SPEC + blocks)
    return folder / "labels.csv", load_dataset(folder / "dataset.toml")


def predicted(dataset: Dataset, **status: str) -> pd.DataFrame:
    of_rows = [status.get(f"r{row}", "ok") for row in dataset.ids.tolist()]
    return pd.DataFrame({"id": dataset.ids, "kind": "a", "status": of_rows})


def test_copies_keep_their_place_and_never_share_a_name(tmp_path: Path) -> None:
    source, dataset = folder_of(tmp_path, "g1/a.png", "g1/a.tif", "g2/a.png", "g1/a.png")
    drawing = Drawing(tmp_path / "out", source)
    tables = [predicted(dataset).iloc[:3], predicted(dataset).iloc[3:]]
    assert [len(table) for table in drawing.draw(tables, dataset, words)] == [3, 1]
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["g1/a.png.2.png", "g1/a.png.png", "g1/a.tif.png", "g2/a.png.png"]
    copy = np.asarray(Image.open(tmp_path / "out" / "g1" / "a.tif.png"))
    assert np.array_equal(copy[:60], GREY) and (copy[-1, -1] == 0).all()  # and the words below
    assert (np.asarray(Image.open(tmp_path / "in" / "g1" / "a.tif")) == 128).all()
    assert drawing.document() == {"folder": str(tmp_path / "out"), "images": 4, "left_out": {}}


def test_rows_that_fail_are_named_and_not_drawn(tmp_path: Path) -> None:
    source, dataset = folder_of(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "in" / "c.png").write_text("no image")
    drawing = Drawing(tmp_path / "out", source)
    list(drawing.draw([predicted(dataset, r1="no image or text")], dataset, words))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png.png"] and drawing.n_drawn == 1
    assert drawing.left_out["1"] == "no image or text" and "2" in drawing.left_out


def test_a_file_that_two_blocks_read_is_drawn_once_and_others_of_the_row_too(tmp_path: Path) -> None:
    folder_of(tmp_path, "bf.png", "fl.png")
    (tmp_path / "labels.csv").write_text("file,other,kind\nbf.png,fl.png,a\nbf.png,fl.png,b\n")
    blocks = '[images.spectrum]\ncolumn = "file"\nview = "fourier"\n[images.fl]\ncolumn = "other"\n'
    (tmp_path / "dataset.toml").write_text(SPEC + blocks)
    dataset = load_dataset(tmp_path / "dataset.toml").take([0])
    list(Drawing(tmp_path / "out", tmp_path / "labels.csv").draw([predicted(dataset)], dataset, words))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bf.png.png", "fl.png.png"]
    assert (np.asarray(Image.open(tmp_path / "out" / "bf.png.png"))[:60] == 128).all()  # no spectrum


def test_pages_of_one_file_have_a_copy_each(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pages = [Image.fromarray(GREY), Image.fromarray(GREY // 2)]
    pages[0].save(tmp_path / "in" / "stack.tif", save_all=True, append_images=pages[1:])
    source, dataset = table_of(tmp_path, "stack.tif#0", "stack.tif#1")
    list(Drawing(tmp_path / "out", source).draw([predicted(dataset)], dataset, words))
    found = {path.name: np.asarray(Image.open(path))[0, 0, 0] for path in (tmp_path / "out").iterdir()}
    assert found == {"stack.tif.page0.png": 128, "stack.tif.page1.png": 64}


@pytest.mark.parametrize("place", ["in", "in/drawn", "in/g1", "."])
def test_copies_never_lie_among_what_is_predicted(tmp_path: Path, place: str) -> None:
    _, dataset = folder_of(tmp_path, "g1/a.png")
    new = prediction_dataset(dataset.spec, tmp_path / "in")
    drawing = Drawing(tmp_path / place, tmp_path / "in")
    with pytest.raises(InputError, match="the images to predict on lie there; give a folder of its own"):
        next(drawing.draw([predicted(new)], new, words))
    assert [path.name for path in tmp_path.rglob("*.png")] == ["a.png"]


def test_a_folder_that_cannot_be_made_and_a_bundle_without_images_are_refused(tmp_path: Path) -> None:
    source, dataset = folder_of(tmp_path, "a.png", "b.png")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"out/a\.png\.png: cannot be written"):
        next(Drawing(tmp_path / "out", source).draw([predicted(dataset)], dataset, words))
    (tmp_path / "dataset.toml").write_text(SPEC.replace('[images.bf]\ncolumn = "file"', '[texts.t]\ncolumn = "file"'))
    texts = load_dataset(tmp_path / "dataset.toml")
    with pytest.raises(InputError, match="the bundle reads no images"):
        next(Drawing(tmp_path / "new", source).draw([predicted(texts)], texts, words))
