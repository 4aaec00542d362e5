from typing import Any

from heads.audit_report import audit_report

PAIR = {"a": "r1", "b": "r2", "kind": "near", "similarity": 0.99876, "crosses": ["split"], "differs": ["kind"]}
LIMITS = {"image:bf@texture": 0.98}


def doubted(n: int = 1, *, believed: bool = True) -> dict[str, Any]:
    row = {"id": "r3", "label": "few", "suggested": "many", "p_label": 0.0625, "p_suggested": 0.9}
    pair = {"label": "few", "suggested": "many", "count": 3, "share": 0.25, "n_confident": 2}
    found = {"labels": [row] * n, "n_confident": n, "n_rows": 90, "confusions": [pair], "beats_baseline": believed}
    return found | {"blocks": ["image:bf@texture", "metadata"], "head": "linear"}


def audited(pairs: list[dict[str, Any]], labels: dict[str, Any] | None = None, **more: Any) -> list[Any]:
    return audit_report({"duplicates": pairs, "thresholds": LIMITS, "labels": labels or {}} | more)


def test_long_lists_are_cut_and_counted() -> None:
    pairs, labels = audited([PAIR] * 30, {"kind": doubted(25)})
    assert len(pairs.rows) == 20 and pairs.rows[0] == ["r1", "r2", "near", "0.999", "split", "kind"]
    near = "near means a cosine above 0.980 in image:bf@texture"
    assert pairs.lines == [
        f"  30 pairs, 30 across the split, 30 labelled differently; {near}",
        "  the first 20 are shown, --json has all",
        "  --merge puts the rows of a pair into one group and splits anew",
        "",
    ]
    assert len(labels.rows) == 20 and labels.rows[0] == ["r3", "few", "0.062", "many", "0.900"]
    assert labels.lines == [
        "  25 of 90 labels are not what other rows suggest, 25 confidently (as sure as of that class on average)",
        "  the first 20 are shown, --json has all",
        "  asked: linear on image:bf@texture + metadata",
        "  labelled few: 3 of 12 look like many, 2 confidently",
        "",
    ]


def test_a_single_label_looks_like_another() -> None:
    found = doubted()
    found["confusions"][0] |= {"count": 1, "share": 0.5, "n_confident": 0}
    [_, labels] = audited([], {"kind": found})
    assert labels.lines[0].startswith("  1 of 90 labels is not what other rows suggest, 1 confidently")
    assert labels.lines[2] == "  labelled few: 1 of 2 looks like many, 0 confidently"


def test_what_was_not_found_is_one_line() -> None:
    pairs, labels = audited([], {"kind": doubted(0)})
    assert not pairs.columns and pairs.lines[0] == (
        "Duplicates: none among rows that may be split apart; near means a cosine above 0.980 in image:bf@texture"
    )
    assert not labels.columns and labels.lines[0] == (
        "kind: all 90 labels are what other rows suggest; asked: linear on image:bf@texture + metadata"
    )
    assert audited([], thresholds={})[0].lines[0].startswith("Duplicates: not looked for, since no images and no texts")
    few = audited([], thresholds={"image:bf@texture": 1.0})[0].lines[0]
    assert few.endswith("above 1 in image:bf@texture (too few rows to tell how near is too near)")


def test_a_model_no_better_than_the_baseline_is_not_asked() -> None:
    [_, labels] = audited([], {"kind": doubted(25, believed=False)})
    assert not labels.columns and labels.lines[0] == (
        "kind: nobody to ask: the best model (linear on image:bf@texture + metadata) is not told apart from the "
        "baseline; --json has its list"
    )


def test_after_a_merge_it_says_what_was_merged() -> None:
    [pairs] = audited([PAIR], merged=[["r1", "r2", "r5"], ["r3", "r4"]])
    assert pairs.lines[1] == "  merged: 5 rows in 2 groups, each kept on one side"


def test_doubtful_numbers_name_their_column() -> None:
    row = {"id": "r3", "column": "uv", "label": 51.44, "suggested": 36.508, "score": 4.25}
    found = doubted() | {"labels": [row], "confusions": []}
    [_, labels] = audited([], {"reflectance": found})
    assert labels.columns == ["id", "column", "label", "suggested", "usual errors"]
    assert labels.rows == [["r3", "uv", "51.44", "36.51", "4.2"]]
    assert labels.lines[0] == "  1 of 90 labels lies farther from what other rows suggest than errors usually do"
