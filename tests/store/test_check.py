from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.check import PROBLEMS, Problem, check_dataset
from store.counts import summary
from store.dataset import Dataset, ImageBlock, ImageRef, MetadataColumn, TextBlock
from store.keys import file_key
from store.reader import load_dataset
from store.spec import parse_spec
from store.split import Split, make_split
from store.task import Task

SPEC = parse_spec({"name": "made", "table": "labels.csv"}, "test")
CLASSES = ("glass", "metal")


def classes(y: Any, names: tuple[str, ...] = CLASSES, name: str = "label") -> Task:
    y = np.asarray(y, dtype=np.int64)
    return Task(name, "classification", (name,), names, y, None, np.ones(len(y), dtype=bool), np.ones(1))


def values(y: Any, *columns: str) -> Task:
    y = np.asarray(y, dtype=np.float64).reshape(-1, len(columns))
    return Task("size", "regression", columns, (), y, None, np.ones(len(y), dtype=bool), np.ones(len(columns)))


@pytest.fixture
def clean(tmp_path: Path) -> Dataset:
    """60 rows with nothing wrong: files that differ (and hold no image), two classes, one number, 20 groups."""
    n = 60
    for i in range(n):
        (tmp_path / f"{i:02d}.tif").write_bytes(b"content %d" % i)
    refs = tuple(ImageRef(str(tmp_path / f"{i:02d}.tif")) for i in range(n))
    return Dataset(
        SPEC,
        tmp_path,
        np.array([f"r{i:02d}" for i in range(n)]),
        np.array([f"g{i // 3:02d}" for i in range(n)]),
        {"bf": ImageBlock("bf", refs, "percentile_stretch")},
        {"note": TextBlock("note", tuple(f"text {i}" for i in range(n)))},
        {"size": MetadataColumn("size", "numeric", np.arange(float(n)))},
        {"label": classes(np.arange(n) % 2)},
        None,
    )


def with_refs(data: Dataset, changed: dict[int, ImageRef | None]) -> Dataset:
    refs = tuple(changed.get(i, ref) for i, ref in enumerate(data.images["bf"].refs))
    return replace(data, images={"bf": replace(data.images["bf"], refs=refs)})


def found(data: Dataset, split: Split | None = None) -> dict[str, Problem]:
    return {problem.kind: problem for problem in check_dataset(data, split)}


def test_a_clean_dataset_has_no_problems(clean: Dataset) -> None:
    assert check_dataset(clean, make_split(clean)) == []


def test_a_file_that_is_not_there_is_named(clean: Dataset) -> None:
    path = clean.folder / "absent.tif"
    problems = found(with_refs(clean, {3: ImageRef(str(path))}), make_split(clean))
    assert problems == {"missing_file": Problem("missing_file", 1, [f"row 'r03', image 'bf': {path}"])}


def test_a_row_without_a_path_is_another_problem_than_a_missing_file(clean: Dataset) -> None:
    problems = found(with_refs(clean, {3: None, 9: None}))
    assert problems == {
        "row_without_image": Problem("row_without_image", 2, ["row 'r03', image 'bf'", "row 'r09', image 'bf'"])
    }


def test_a_row_without_text_is_named(clean: Dataset) -> None:
    data = replace(clean, texts={"note": TextBlock("note", (None, *clean.texts["note"].texts[1:]))})
    assert found(data) == {"row_without_text": Problem("row_without_text", 1, ["row 'r00', text 'note'"])}


def test_a_copy_under_another_name_is_found_within_one_block_only(clean: Dataset) -> None:
    (clean.folder / "copy.tif").write_bytes(b"content 0")
    copied = with_refs(clean, {2: ImageRef(str(clean.folder / "copy.tif"))})
    assert found(copied) == {"duplicate_content": Problem("duplicate_content", 1, ["image 'bf': rows 'r00', 'r02'"])}
    twice = replace(clean, images={"bf": clean.images["bf"], "fl": replace(clean.images["bf"], name="fl")})
    assert found(twice) == {}


def test_two_pages_of_one_file_are_no_copies(clean: Dataset) -> None:
    path = clean.folder / "00.tif"
    pages = with_refs(clean, {0: ImageRef(str(path), 0), 2: ImageRef(str(path), 1)})
    assert found(pages) == {}
    assert "duplicate_content" in found(with_refs(clean, {0: ImageRef(str(path), 1), 2: ImageRef(str(path), 1)}))


@pytest.mark.parametrize("given", [False, True])
def test_a_copy_across_the_split_is_found(clean: Dataset, given: bool) -> None:
    if given:
        clean = replace(clean, given_split=np.array(["train"] * 48 + ["test"] * 12))
    split = make_split(clean)
    roles = np.array([split.roles[id_] for id_ in clean.ids])
    here, there = 0, int(np.flatnonzero((roles != roles[0]) & (clean.tasks["label"].y == 0))[-1])
    copied = with_refs(clean, {there: ImageRef(str(clean.folder / "00.tif"))})
    problems = found(copied, split)
    assert list(problems) == ["duplicate_across_split", "duplicate_across_groups", "duplicate_content"]
    other = "test" if given else f"fold {roles[there]}"
    [line] = problems["duplicate_across_split"].examples
    assert line == f"image 'bf': 'r{here:02d}' in fold {roles[here]}, 'r{there:02d}' in {other}"
    [line] = problems["duplicate_across_groups"].examples
    assert line == f"image 'bf': rows 'r00', 'r{there:02d}' are in groups 'g00', '{clean.groups[there]}'"  # type: ignore[index]


def test_a_copy_in_two_held_out_sets_flatters_nothing(clean: Dataset) -> None:
    clean = replace(clean, given_split=np.array(["train"] * 54 + ["test"] * 3 + ["ood"] * 3))
    copied = with_refs(clean, {58: ImageRef(str(clean.folder / "54.tif"))})
    assert list(found(copied, make_split(clean))) == ["duplicate_across_groups", "duplicate_content"]


def test_a_copy_within_one_fold_is_only_a_copy(clean: Dataset) -> None:
    copied = with_refs(clean, {2: ImageRef(str(clean.folder / "00.tif"))})
    assert list(found(copied, make_split(clean))) == ["duplicate_content"]


def test_a_group_across_the_split_is_found(clean: Dataset) -> None:
    split = make_split(clean)
    roles = {**split.roles, "r01": str(1 - min(int(split.roles["r01"]), 1))}
    [problem] = check_dataset(clean, Split.of(roles, seed=0, n_folds=5))
    assert (problem.kind, problem.count) == ("group_across_split", 1)
    assert problem.examples == [f"group 'g00': 'r00' in fold {roles['r00']}, 'r01' in fold {roles['r01']}"]


def test_one_image_under_two_labels_is_a_conflict(clean: Dataset) -> None:
    copied = with_refs(clean, {1: ImageRef(str(clean.folder / "00.tif"))})
    tasks = {"label": clean.tasks["label"], "size": values(np.arange(60) / 4, "size")}
    problems = found(replace(copied, tasks=tasks))
    assert problems["label_conflict"].examples == [
        "task 'label', image 'bf': 'r00' is glass, 'r01' is metal",
        "task 'size', image 'bf': 'r00' is 0, 'r01' is 0.25",
    ]


def test_a_missing_label_and_an_equal_one_are_no_conflict(clean: Dataset) -> None:
    copied = with_refs(clean, {i: ImageRef(str(clean.folder / "00.tif")) for i in (1, 2)})
    y = clean.tasks["label"].y.copy()
    y[1] = -1
    assert "label_conflict" not in found(replace(copied, tasks={"label": classes(y)}))


@pytest.mark.parametrize("grouped", [True, False])
def test_a_class_with_fewer_rows_or_groups_than_folds_is_rare(clean: Dataset, grouped: bool) -> None:
    y = np.where(np.isin(np.arange(60), [0, 1, 2, 3, 4]), 2, clean.tasks["label"].y)  # 5 rows in 2 groups
    y[10] = 3
    task = classes(y, (*CLASSES, "paper", "wood", "zinc"))
    data = replace(clean, tasks={"label": task}, groups=clean.groups if grouped else None)
    lines = found(data, make_split(data))["rare_class"].examples
    few = ["task 'label', class 'paper': 5 rows in 2 groups for 5 folds"] if grouped else []
    rows = [f"task 'label', class {c}: {n} rows for 5 folds" for c, n in (("'wood'", 1), ("'zinc'", 0))]
    assert lines == few + rows
    assert "rare_class" not in found(data)


def test_held_out_rows_do_not_make_a_class_less_rare(clean: Dataset) -> None:
    y = np.where(np.arange(60) >= 48, 2, clean.tasks["label"].y)
    data = replace(clean, tasks={"label": classes(y, (*CLASSES, "paper"))})
    data = replace(data, given_split=np.array(["train"] * 48 + ["test"] * 12))
    assert found(data, make_split(data))["rare_class"].examples == ["task 'label', class 'paper': 0 rows for 5 folds"]


def test_a_class_that_val_lacks_is_rare(clean: Dataset) -> None:
    y = np.where(np.arange(60) < 3, 2, clean.tasks["label"].y)
    data = replace(clean, tasks={"label": classes(y, (*CLASSES, "paper"))})
    data = replace(data, given_split=np.array(["train"] * 48 + ["val"] * 12))
    assert found(data, make_split(data))["rare_class"].examples == ["task 'label', class 'paper': no row in val"]


def test_few_labels_and_constant_values_are_reported(clean: Dataset) -> None:
    some = np.where(np.arange(60) < 49, clean.tasks["label"].y, -1)
    flat = values(np.stack([np.arange(60.0), np.full(60, 2.5)], axis=1), "uv", "blue")
    problems = found(replace(clean, tasks={"label": classes(some), "size": flat}))
    assert problems["few_labels"].examples == ["task 'label': 49 labelled rows"]
    assert problems["constant_task"].examples == ["task 'size', column 'blue': always 2.5"]
    assert list(problems) == ["constant_task", "few_labels"]


def test_constant_and_missing_metadata_are_reported(clean: Dataset) -> None:
    numbers = np.full(60, 3.0)
    numbers[:7] = np.nan
    words = np.array(["a", "b"] * 29 + ["a", None], dtype=object)
    nothing = np.full(60, None, dtype=object)
    columns = [
        MetadataColumn("zoom", "numeric", numbers),
        MetadataColumn("maker", "categorical", words),
        MetadataColumn("empty", "categorical", nothing),
    ]
    problems = found(replace(clean, metadata={column.name: column for column in columns}))
    assert problems["constant_metadata"].examples == [
        "metadata 'zoom': always 3.0",
        "metadata 'empty': no value at all",
    ]
    assert problems["missing_metadata"].count == 3
    assert problems["missing_metadata"].examples[:2] == [
        "metadata 'zoom': 7 of 60 rows ('r00', 'r01', 'r02', 'r03', 'r04', …)",
        "metadata 'maker': 1 of 60 rows ('r59')",
    ]


def test_five_examples_stand_for_all(clean: Dataset) -> None:
    problem = found(with_refs(clean, dict.fromkeys(range(12))))["row_without_image"]
    assert problem.count == 12 and len(problem.examples) == 5


def test_each_file_is_read_once_and_none_decoded(clean: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path, page: int | None = None) -> str:
        read.append(path)
        return file_key(path, page)

    monkeypatch.setattr("store.dataset.file_key", counted)
    check_dataset(clean, make_split(clean))
    assert sorted(read) == sorted(ref.path for ref in clean.images["bf"].refs if ref)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_kind_says_what_it_means_and_what_to_do(kind: str) -> None:
    assert kind.replace("_", "").isalpha() and kind.islower()
    assert len(PROBLEMS[kind].meaning) > 20 and PROBLEMS[kind].remedy.endswith(".")


def test_labels_are_counted_where_the_task_applies(clean: Dataset) -> None:
    y = np.array([0] * 30 + [1] * 20 + [-1] * 10)
    task = replace(classes(y), applies=np.arange(60) < 55)
    size = values([np.nan] * 20 + [1.0] * 20 + [4.0] * 19 + [9.0], "size")
    assert summary(replace(clean, tasks={"label": task, "size": size})) == {
        "label": {"glass": 30, "metal": 20, "missing": 5},
        "size": {"n": 40, "missing": 20, "min": 1.0, "median": 2.5, "max": 9.0},
    }


def test_a_class_named_missing_is_not_mistaken_for_no_label(clean: Dataset) -> None:
    task = classes([0] * 30 + [1] * 20 + [-1] * 10, ("glass", "missing"))
    assert summary(replace(clean, tasks={"label": task})) == {"label": {"glass": 30, "missing": 20, "(missing)": 10}}


def test_several_outputs_are_described_one_by_one(clean: Dataset) -> None:
    task = values(np.stack([np.arange(60.0), -np.arange(60.0)], axis=1), "uv", "blue")
    described = summary(replace(clean, tasks={"size": task}))["size"]
    assert described["max uv"] == 59 and described["min blue"] == -59 and described["median uv"] == 29.5
    assert described["n"] == 60


def test_an_empty_regression_has_no_extremes(clean: Dataset) -> None:
    task = values(np.full(60, np.nan), "size")
    assert summary(replace(clean, tasks={"size": task})) == {"size": {"n": 0, "missing": 60}}


def test_the_photo_that_trashnet_has_under_two_classes_is_found(shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "trashnet"
    spec = tmp_path / "dataset.toml"
    spec.write_text(
        f'name = "trashnet"\ntable = "{(data / "labels.csv").as_posix()}"\nroot = "{(data / "images").as_posix()}"\n'
        'id = "name"\n[images.photo]\ncolumn = "name"\n[tasks.label]\ncolumn = "label"\n'
    )
    dataset = load_dataset(spec)
    problems = found(dataset, make_split(dataset))
    assert problems["label_conflict"].count == problems["duplicate_content"].count == 1
    [line] = problems["label_conflict"].examples
    assert "'glass/glass115.jpg' is glass" in line and "'metal/metal91.jpg' is metal" in line
    assert set(problems) <= {"label_conflict", "duplicate_content", "duplicate_across_split"}


def with_texts(data: Dataset, texts: list[str | None]) -> Dataset:
    return replace(data, texts={"note": TextBlock("note", tuple(texts))})


def test_texts_that_name_the_class_are_a_leak(clean: Dataset) -> None:
    words = [f"{('Glass', 'metal')[i % 2]}_bottle {i}" for i in range(60)]
    [line] = found(with_texts(clean, list(words)))["class_in_text"].examples
    assert line == "task 'label', text 'note': 60 of 60 texts; 'r00' is glass and has the text 'Glass_bottle 0'"
    some: list[str | None] = [word if i < 31 else None if i < 40 else "bottle" for i, word in enumerate(words)]
    [line] = found(with_texts(clean, some))["class_in_text"].examples
    assert "31 of 51 texts" in line
    few: list[str | None] = [word if i < 30 else "bottle" for i, word in enumerate(words)]
    assert "class_in_text" not in found(with_texts(clean, few))


@pytest.mark.parametrize("text", ["glass or metal", "glasses", "metallic", "a bottle"])
def test_texts_that_name_every_class_or_none_are_no_leak(clean: Dataset, text: str) -> None:
    assert "class_in_text" not in found(with_texts(clean, [text] * 60))


def test_texts_that_name_another_class_are_no_leak(clean: Dataset) -> None:
    assert "class_in_text" not in found(with_texts(clean, [("metal", "glass")[i % 2] for i in range(60)]))


def test_a_class_of_several_words_is_found_in_a_text(clean: Dataset) -> None:
    task = classes(np.arange(60) % 2, ("wet_glass", "glass"))
    data = replace(with_texts(clean, ["Wet glass, cut", "a pane of Glass"] * 30), tasks={"label": task})
    assert "60 of 60 texts" in found(data)["class_in_text"].examples[0]
    swapped = replace(with_texts(clean, ["a pane of Glass", "Wet glass, cut"] * 30), tasks={"label": task})
    assert "class_in_text" not in found(swapped)
