"""What pictures are like: values worked out by hand, samples, and files that cannot be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from extract import describe_images, draw_examples, images_report, look_at_images
from extract.explore import EXAMPLES, N_BINS
from store import Dataset, load_dataset

Make = Callable[..., Path]


@pytest.fixture
def boxes(tmp_path: Path) -> Dataset:
    """Twelve pictures of one value each: 100 + 10 i for class a, 50 for class b, of 8 x 6 px below a bar of 2 rows."""
    lines = ["file,kind,who"]
    for i in range(12):
        kind = "ab"[i % 2]
        pixels = np.full((8, 8), 100 + 10 * i if kind == "a" else 50, dtype=np.uint16)
        pixels[6:] = 9999
        tifffile.imwrite(tmp_path / f"{i:02d}.tif", pixels)
        lines.append(f"{i:02d}.tif,{kind},{'' if i == 11 else i // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(lines).replace("11.tif,b,", "11.tif,,2") + "\n")
    spec = tmp_path / "dataset.toml"
    spec.write_text(
        'name = "boxes"\ntable = "labels.csv"\nid = "file"\ngroup = "who"\n[images.bf]\ncolumn = "file"\n'
        'crop_bottom_px = 2\nconvert = "linear"\n[tasks.kind]\ncolumn = "kind"\n'
    )
    return load_dataset(spec)


def described(dataset: Dataset, n_rows: int = 100, seed: int = 0) -> dict[str, Any]:
    return describe_images(dataset, look_at_images(dataset, n_rows=n_rows, seed=seed))


def test_sizes_depths_and_values_are_those_of_the_cropped_files(boxes: Dataset) -> None:
    [one] = described(boxes)["images"]
    assert (one["n_rows"], one["n_read"], one["n_unreadable"]) == (12, 12, 0)
    assert one["sizes"] == [{"width_px": 8, "height_px": 6, "images": 12}] and one["n_sizes"] == 1
    assert one["depths"] == {"16 bit grey": 12}
    assert (one["low"], one["high"]) == (50, 200)


def test_classes_have_their_brightness_and_their_pixels(boxes: Dataset) -> None:
    [one] = described(boxes)["images"]
    a, b = one["intensity"]
    assert (a["class"], a["n_images"], a["mean"]["mean"], a["spread"]["mean"]) == ("a", 6, 150, 0)
    assert a["mean"]["std"] == pytest.approx(np.std([100, 120, 140, 160, 180, 200]))
    assert (b["class"], b["n_images"], b["mean"]) == ("b", 5, {"mean": 50, "std": 0})  # the twelfth has no label
    assert len(one["edges"]) == N_BINS + 1 and b["histogram"][0] == 1
    assert sum(a["histogram"]) == pytest.approx(1) and a["histogram"][0] == 0


def test_brightness_that_tells_the_class_is_found_and_constant_contrast_is_not(boxes: Dataset) -> None:
    [one] = described(boxes)["images"]
    bright, contrast = one["brightness"]
    assert (bright["task"], bright["measure"], contrast["measure"]) == ("kind", "mean", "spread")
    rest, n = 6 * np.var([100, 120, 140, 160, 180, 200]), 11
    total = n * np.var([100, 120, 140, 160, 180, 200, *[50] * 5])
    assert bright["of_label"] == pytest.approx(1 - (rest / (n - 2)) / (total / (n - 1)))
    assert bright["of_label_within_groups"] > bright["of_label"]  # whose level rises from one to the next
    assert (contrast["of_label"], contrast["of_group"]) == (None, None)


def test_colour_counts_by_the_mean_of_its_channels(boxes: Dataset) -> None:
    Image.new("RGB", (8, 8), (30, 60, 120)).save(boxes.folder / "00.tif")
    [one] = described(boxes)["images"]
    assert one["depths"] == {"16 bit grey": 11, "8 bit colour": 1}
    assert one["intensity"][0]["mean"]["mean"] == pytest.approx((70 + 120 + 140 + 160 + 180 + 200) / 6)


def test_a_sample_is_the_same_for_a_seed_and_has_every_class(boxes: Dataset) -> None:
    rows = [look_at_images(boxes, n_rows=4, seed=seed).rows.tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2] and len(set(rows[0])) == 4
    found = described(boxes, n_rows=2 * EXAMPLES)
    assert {row["class"] for row in found["images"][0]["intensity"]} == {"a", "b"}
    few = described(boxes, n_rows=4)
    assert few["looked_at"] == few["images"][0]["n_read"] == 4
    assert any("the images of 4 rows, drawn at random" in line for line in images_report(few)[0].lines)
    assert not any("at random" in line for line in images_report(described(boxes))[0].lines)


def test_rare_classes_are_in_a_sample_of_many_rows(make_dataset: Make) -> None:
    spec = make_dataset(n_rows=24)
    table = spec.parent / "labels.csv"
    lines = table.read_text().splitlines()
    more = [line.replace("r0", f"n{i}").replace("r1", f"m{i}") for i in range(20) for line in lines[1:20:2]]
    table.write_text("\n".join([*lines, *(line.replace("plain", "striped") for line in more)]) + "\n")
    dataset = load_dataset(spec)
    found = {row["class"]: row["n_images"] for row in described(dataset, n_rows=30)["images"][0]["intensity"]}
    assert dataset.n_rows == 224 and found["plain"] >= EXAMPLES


def test_unreadable_files_are_named_and_the_rest_is_told(boxes: Dataset) -> None:
    (boxes.folder / "03.tif").write_bytes(b"no picture")
    (boxes.folder / "01.tif").unlink()
    found = described(boxes)
    assert [(one["id"], one["block"]) for one in found["unreadable"]] == [("01.tif", "bf"), ("03.tif", "bf")]
    assert found["unreadable"][0]["reason"] == "does not exist"
    assert (found["images"][0]["n_read"], found["images"][0]["n_unreadable"]) == (10, 2)
    assert "  row '01.tif', image 'bf': does not exist" in images_report(found)[0].lines


def test_where_nothing_can_be_read_the_table_still_is(boxes: Dataset, tmp_path: Path) -> None:
    for file in boxes.folder.glob("*.tif"):
        file.write_bytes(b"")
    found = described(boxes)
    assert found["images"] == [{"block": "bf", "n_rows": 12, "n_read": 0, "n_unreadable": 12}]
    [files] = images_report(found)
    assert files.rows == [["bf", "12", "0", "12", "-", "-", "-"]]
    looks = look_at_images(boxes, n_rows=100, seed=0)
    assert not draw_examples(boxes, looks, tmp_path / "none.png") and not (tmp_path / "none.png").exists()


def test_a_view_and_a_conversion_of_the_same_files_are_read_once_and_a_stack_not_at_all(boxes: Dataset) -> None:
    spec = boxes.folder / "dataset.toml"
    more = '[images.{0}]\ncolumn = "file"\ncrop_bottom_px = {1}\nview = "{2}"\n'
    text = spec.read_text() + more.format("again", 2, "fourier") + more.format("whole", 0, "plain")
    spec.write_text(text + '[images.both]\nstack = ["bf", "whole"]\n')
    assert [one["block"] for one in described(load_dataset(spec))["images"]] == ["bf", "whole"]


def test_examples_have_a_row_for_each_class_and_say_why_one_cannot_be_shown(boxes: Dataset, tmp_path: Path) -> None:
    looks = look_at_images(boxes, n_rows=100, seed=0)
    assert draw_examples(boxes, looks, tmp_path / "new" / "examples.png")
    with Image.open(tmp_path / "new" / "examples.png") as sheet:
        width, height = sheet.size
        drawn = np.asarray(sheet)[8:168, 8::168].mean(axis=(0, 2))
    assert width == 8 + EXAMPLES * 168 and 2 * 168 < height < 2 * 240
    assert (drawn < 250).sum() == EXAMPLES
    few = look_at_images(boxes, n_rows=3, seed=0)  # three of class a: the rest of their row is white
    draw_examples(boxes, few, tmp_path / "few.png")
    with Image.open(tmp_path / "few.png") as sheet:
        drawn = np.asarray(sheet)[8:168, 8::168].mean(axis=(0, 2))
    assert ((drawn < 250) == [True] * 3 + [False] * 3).all()
    spec = boxes.folder / "dataset.toml"
    spec.write_text(spec.read_text().replace('"linear"', '"none"'))
    assert draw_examples(
        load_dataset(spec), looks, tmp_path / "grey.png"
    )  # 16 bits, and nothing says how they become 8
