"""What is wrong with a spec is said in the project's words, all of it at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store import InputError, load_dataset, parse_spec

TEXT, LIST, KEYS = "needs a word or text in quotes", "needs a list in brackets", "needs keys of its own"
COLUMN = "needs a column's name in quotes, or its position counted from 0"
NAME = "a name begins with a letter, and goes on with letters, digits, _ or -"
WRONG: list[tuple[str, Any, str]] = [
    ("name", 3, f"name: {TEXT} (got 3)"),
    ("id", 1.5, f"id: {COLUMN} (got 1.5)"),
    ("group", True, f"group: {COLUMN} (got True)"),
    ("nme", "x", "unknown key 'nme'. Did you mean 'name'?"),
    ("images", 3, "images: needs a section for each name, [images.NAME] (got 3)"),
    ("images.bf", 3, f"images.bf: {KEYS} (got 3)"),
    ("images.2x", {"column": "a"}, f"images.2x: {NAME} (got '2x')"),
    ("images.bf.column", 1.5, f"images.bf.column: {COLUMN} (got 1.5)"),
    ("images.bf.page", -1, "images.bf.page: needs to be at least 0 (got -1)"),
    ("images.bf.page", "a", "images.bf.page: needs a whole number (got 'a')"),
    ("images.bf.pool", "men", "images.bf.pool: needs 'mean' or 'max' (got 'men'). Did you mean 'mean'?"),
    ("images.bf.stack", "bf", f"images.bf.stack: {LIST} (got 'bf')"),
    ("images.int", {"column": "a", "page": "b"}, "images.int.page: needs a whole number (got 'b')"),
    ("texts.t", 3, f"texts.t: {KEYS} (got 3)"),
    ("texts.t.from_filename", 3, f"texts.t.from_filename: {TEXT} (got 3)"),
    ("metadata.m.tag", "nm", "metadata.m.tag: needs 'nm_per_px' or 'magnification' (got 'nm')"),
    ("tasks.k.columns", [], "tasks.k.columns: needs 1 or more values (got [])"),
    ("tasks.k.classes", [1, 2], f"tasks.k.classes.0: {TEXT} (got 1); tasks.k.classes.1: {TEXT} (got 2)"),
    ("tasks.k.weights", ["a"], "tasks.k.weights.0: needs a number (got 'a')"),
    (
        "columns.c",
        {"pattern": "("},
        "columns.c.pattern: pattern '(' is no regular expression: missing ), unterminated subpattern at position 0",
    ),
    ("metadata.m.pattern", "a", "metadata.m.pattern: pattern 'a' has 0 groups; put (…) around the value, once"),
    ("tasks.k.when", "a >", "tasks.k.when: when = 'a >' is no condition; expected one like \"flowable == 'yes'\""),
    ("columns.c", {"filled": 1.5}, f"columns.c.filled: {COLUMN} (got 1.5)"),
    ("tables", {"val": "b.csv"}, "key 'tables.train' is missing"),
    ("folders", "Train", f"folders: {KEYS} (got 'Train')"),
    ("finetune", 3, f"finetune: {KEYS} (got 3)"),
]


def spec(**changed: Any) -> dict[str, Any]:
    sections = {"images": "file", "texts": "note", "metadata": "size", "tasks": "kind"}
    parts = {part: {part[0] if part != "images" else "bf": {"column": column}} for part, column in sections.items()}
    parts["tasks"] = {"k": parts["tasks"]["t"]}
    return {"name": "x", "table": "a.csv", **parts, **changed}


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_a_wrong_value_is_shown_with_what_was_expected(place: str, value: Any, message: str) -> None:
    values = spec()
    *where, key = place.split(".")
    section = values
    for name in where:
        section = section.setdefault(name, {})
    section[key] = value
    with pytest.raises(InputError) as caught:
        parse_spec(values, "spec")
    assert str(caught.value) == f"spec: {message}"


def test_a_pattern_and_a_condition_that_are_none_are_named_with_all_else() -> None:
    values = spec(columns={"c": {"pattern": "("}}, tasks={"k": {"column": "kind", "when": "a >", "unti": "s"}})
    with pytest.raises(InputError) as caught:
        parse_spec(values, "spec")
    words = ("tasks.k.when: ", "'tasks.k.unti'. Did you mean 'unit'", "columns.c.pattern: ")
    assert all(word in str(caught.value) for word in words)


def test_a_missing_key_is_named() -> None:
    values = spec()
    del values["name"]
    with pytest.raises(InputError, match=r"^spec: key 'name' is missing$"):
        parse_spec(values, "spec")


def test_sections_that_do_not_fit_each_other_are_all_named() -> None:
    values = spec(tables={"train": "b.csv"}, split="part", texts={"t": {"from_filename": "fb"}})
    values["images"]["both"] = {"stack": ["bf", "fl"]}
    with pytest.raises(InputError) as caught:
        parse_spec(values, "spec")
    for words in (
        "table and tables both say where the rows come from",
        "[texts.t] names image block 'fb', which is not there (there is: bf, both)",
        "[images.both] stacks image block 'fl'",
    ):
        assert words in str(caught.value)


def test_missing_tables_and_roots_are_named_with_all_else(make_dataset: Callable[..., Path]) -> None:
    path = make_dataset()
    right = path.read_text()
    wrong = right.replace('"labels.csv"', '"lables.csv"').replace('"images"', '"imags"').replace('"log"', '"lgo"')
    path.write_text(wrong)
    with pytest.raises(InputError) as caught:
        load_dataset(path)
    for words in (
        "metadata.magnification.transform: needs 'none' or 'log' (got 'lgo'). Did you mean 'log'?",
        "lables.csv: there is no such table. Did you mean 'labels.csv'?",
        "imags; correct root. Did you mean 'images'?",
    ):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    path.write_text(right.replace('table = "labels.csv"', 'tables = { train = "a.csv", test = "b.csv" }'))
    with pytest.raises(InputError, match=r"a\.csv: there is no such table.*; .*b\.csv: there is no such table"):
        load_dataset(path)
    path.write_text(right.replace('root = "images"', 'root = "imags"').replace('"kind"', '"knid"'))
    with pytest.raises(InputError, match=r"there is no image folder .*imags.*column 'knid' is not in the table"):
        load_dataset(path)
