from dataclasses import replace

import numpy as np
import pytest

from heads.conversions import chosen_conversions, compare_conversions, each_alone, mean_ranks
from heads.predictions import Predictions
from heads.report import conversions_report
from heads.sweep import Sweep
from store import CONVERSIONS, ImageBlock, InputError, make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted

NAMES = ("percentile_stretch", "log", "linear+gamma")


def images(*converts):
    return {f"bf.{name.replace('+', '-')}": ImageBlock(f"bf.{name.replace('+', '-')}", (), name) for name in converts}


def compared(task, parts, *, converts=NAMES, n_folds=3):
    """`parts` are the vectors of the one block under each conversion."""
    own = {"bf": ImageBlock("bf", (), converts[0])}
    data = dataset(task, n=len(parts[0]), images=own)
    variants = replace(data, images=images(*converts))
    blocks = {f"image__{name}_at_texture": X for name, X in zip(variants.images, parts, strict=True)}
    sweep = Sweep(variants, matrix(variants, **blocks), make_split(data, n_folds=n_folds), heads=["linear"])
    predictions = Predictions()
    entries = each_alone(sweep, [f"image:{name}" for name in variants.images]).run(predictions=predictions)
    return compare_conversions(entries, predictions, dataset=data, variants=variants)


def with_noise(X, *spreads):
    rng = np.random.default_rng(1)
    return [X + rng.normal(0, spread, X.shape) for spread in spreads]


def test_conversions_are_ranked_and_compared_with_the_default_and_the_best():
    X, y, _ = planted(240, 6, n_classes=2, strength=4.0)
    rows = compared(classes(y), with_noise(X, 3.0, 0.0, 12.0))
    assert [row["convert"] for row in rows] == ["log", "percentile_stretch", "linear+gamma"]
    assert [row["rank"] for row in rows] == [1, 2, 3] == [row["fold_rank"] for row in rows]
    best, default, worst = rows
    assert [row["is_default"] for row in rows] == [False, True, False] and best["block"] == "image:bf@texture"
    assert best["to_default"]["low"] > 0 and best["to_default"]["verdict"] == "helps"
    assert best["to_best"] == default["to_default"] | {"verdict": best["to_best"]["verdict"]}
    assert best["to_best"]["value"] == 0 and worst["to_best"]["verdict"] == "hurts"
    gap = worst["score"]["value"] - default["score"]["value"]
    assert worst["to_default"]["value"] == pytest.approx(gap)


def test_equal_conversions_share_their_ranks():
    X, y, _ = planted(90, 5, n_classes=2, strength=3.0)
    rows = compared(classes(y), [X, X, X])
    assert {row["rank"] for row in rows} == {2.0} == {row["fold_rank"] for row in rows}
    assert {row["to_default"]["verdict"] for row in rows} == {"not told apart"}


def test_the_smaller_error_ranks_first():
    X, _, _ = planted(150, 5)
    rows = compared(numbers(X[:, :1] * 3), with_noise(X, 1.0, 0.0, 9.0))
    assert [row["convert"] for row in rows] == ["log", "percentile_stretch", "linear+gamma"]
    assert rows[0]["metric"] == "mae" and [row["rank"] for row in rows] == [1, 2, 3]


def test_mean_ranks_are_over_tasks_and_blocks():
    rows = [
        {"convert": convert, "block": block, "rank": rank, "fold_rank": rank + 0.5}
        for block, first, second in (("a", "log", "sqrt"), ("b", "sqrt", "log"), ("b", "log", "sqrt"))
        for convert, rank in ((first, 1.0), (second, 2.0))
    ]
    log, sqrt = mean_ranks(rows)
    assert (log["convert"], log["blocks"]) == ("log", {"a": 1.0, "b": 1.5})
    assert (log["rank"], sqrt["rank"]) == (pytest.approx(4 / 3), pytest.approx(5 / 3))
    assert sqrt["fold_rank"] == pytest.approx(5 / 3 + 0.5)


def test_what_is_compared_has_the_dataset_s_own_conversion():
    data = dataset(n=4, images={"bf": ImageBlock("bf", (), "log")})
    every = chosen_conversions(data, ["image:bf"], [])
    assert every[0] == "log" and len(every) == 12 and set(every) == set(CONVERSIONS) - {"none"}
    assert chosen_conversions(data, ["image:bf"], ["sqrt"]) == ["log", "sqrt"]
    parts = (ImageBlock("bf", (), "sqrt"), ImageBlock("fl", (), "sqrt"))
    stacked = dataset(n=4, images={"both": ImageBlock("both", (), None, parts=parts)})
    assert chosen_conversions(stacked, ["image:both"], ["log"]) == ["sqrt", "log"]
    with pytest.raises(InputError, match="'log' is the dataset's own conversion: give another --convert"):
        chosen_conversions(data, ["image:bf"], ["log"])
    with pytest.raises(InputError, match=r"no image has more than 8 bits.*all scores would be the same"):
        chosen_conversions(data, [], [])


def test_the_table_says_what_the_best_is_worth():
    X, y, _ = planted(240, 6, n_classes=2, strength=4.0)
    rows = compared(classes(y), with_noise(X, 3.0, 0.0, 12.0))
    [table] = conversions_report(rows, mean_ranks(rows))
    assert table.title == "kind: image:bf@texture, linear"
    assert [row[1] for row in table.rows] == ["log", "percentile_stretch (default)", "linear+gamma"]
    assert table.rows[1][3] == "" == table.rows[0][4] and table.rows[0][3].startswith("+0.")
    assert table.lines[0] == (
        "  best: log, better than the default percentile_stretch, though the best of 3 conversions on the same "
        "rows is flattered; 2 of the other 2 are worse than the best"
    )
    both = [*rows, *(row | {"task": "other"} for row in rows)]
    *_, overall = conversions_report(both, mean_ranks(both))
    assert overall.title == "Over all tasks" and overall.rows[0] == ["log", "1.0", "1.0"]
