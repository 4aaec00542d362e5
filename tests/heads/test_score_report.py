from typing import Any

from heads.score_report import entries_report, standings_report

NOTHING: dict[str, list[Any]] = {"comparisons": [], "selection": [], "group_gap": []}


def entry(head: str = "linear", value: float = 0.9, **more: Any) -> dict[str, Any]:
    score = {"value": value, "low": value - 0.1, "high": value + 0.1}
    found = {
        "task": "kind",
        "kind": "classification",
        "blocks": [] if head == "prior" else ["image:bf@texture", "metadata"],
        "head": head,
        "split": "cv",
        "headline": "accuracy",
        "metrics": {"accuracy": score, "ece": score | {"value": 0.0625}, "brier": score | {"value": 0.5}},
        "outputs": {},
        "conformal": {"stated": 0.9, "coverage": score | {"value": 0.875}, "mean_set_size": 1.5},
        "baseline": {"accuracy": 0.5},
        "difference": {"value": 0.4, "low": 0.3, "high": 0.5},
        "beats_baseline": head != "prior",
        "verdict": "accuracy better than without features by 0.4",
        "seconds": 0.25,
        "n_groups": 8,
    }
    return found | more


def test_a_task_is_one_table_best_first_with_what_the_evaluation_says() -> None:
    lines = [
        {"task": "kind", "is_main": True, "words": "metadata helps"},
        {"task": "kind", "is_main": False, "words": "another pair"},
        {"task": "other", "is_main": True, "words": "another task"},
    ]
    lines = [line | {"value": 0.25, "verdict": "helps"} for line in lines]
    choice = [{"task": "other", "words": "another task"}, {"task": "kind", "words": "flattered"}]
    gap = [{"task": "kind", "words": "group gap: none found"}]
    evaluation = {"comparisons": lines, "selection": choice, "group_gap": gap}
    [section] = entries_report([entry("prior", 0.5), entry(is_reused=True)], evaluation)
    assert (section.title, section.columns[3]) == ("kind", "accuracy")
    assert section.rows == [
        ["image:bf@texture + metadata", "linear", "cv", "0.900 [0.800, 1.000]", "better", "reused"],
        ["(no features)", "prior", "cv", "0.500 [0.400, 0.600]", "", "0.25"],
    ]
    assert section.lines == [
        "  best: accuracy better than without features by 0.4",
        "  flattered",
        "  its probabilities: expected calibration error 0.062, Brier score 0.500 [0.800, 1.000]",
        "  its sets hold the truth in 0.875 [0.800, 1.000] of rows, groups counted alike, 0.9 is stated; "
        "1.50 classes on average",
        "  metadata helps",
        "  group gap: none found",
        "",
    ]


def test_a_task_of_several_outputs_shows_each_of_the_best_entry_beside_the_baseline() -> None:
    one = {"value": 0.1, "low": 0.0, "high": 0.2}
    other = {"value": 0.25, "low": 0.2, "high": 0.3}
    more = {"kind": "regression", "headline": "mae", "metrics": {"mae": other}, "baseline": {"mae": 0.5}}
    held = {"coverage": one | {"value": 0.875}, "mean_width": 4.5}
    more |= {"conformal": {"stated": 0.9, "outputs": {"UV": held, "B": held | {"mean_width": None}}}}
    mine = entry(**more, outputs={"UV": {"mae": one}, "B": {"mae": other}})
    prior = entry("prior", **more, outputs={"UV": {"mae": other}, "B": {"mae": other}})
    _, section = entries_report([prior, mine], NOTHING)
    assert section.title == "kind, each output: image:bf@texture + metadata, linear"
    assert section.columns == ["output", "mae", "without features", "held by its interval", "interval"]
    assert section.rows == [
        ["UV", "0.100 [0.000, 0.200]", "0.250 [0.200, 0.300]", "0.875 [0.000, 0.200]", "4.5 wide on average"],
        ["B", "0.250 [0.200, 0.300]", "0.250 [0.200, 0.300]", "0.875 [0.000, 0.200]", "too few groups for an end"],
        ["mean", "0.175", "0.250", "", ""],
        ["mean, weighted", "0.250 [0.200, 0.300]", "0.500", "", ""],
    ]
    even = {"metrics": {"mae": other | {"value": 0.175}}}
    _, section = entries_report([prior, mine | even], NOTHING)
    assert [row[:2] for row in section.rows[2:]] == [["mean", "0.175 [0.200, 0.300]"]]


def test_standings_are_a_table_per_task_and_scored_rows_with_the_runs_settings() -> None:
    best = {"blocks": "image:bf@a", "head": "linear", "metric": "mae", "value": 0.1, "low": 0.0, "high": 0.2}
    best |= {
        "is_held_out": False,
        "is_reference": False,
        "task": "size",
        "split": "fold-0",
        "n_rows": 9,
        "standing": "better",
        "to_best": None,
        "run": None,
    }
    gap = {"value": -0.25, "low": -0.5, "high": 0.125, "verdict": "not told apart"}
    runs = [
        best | {"head": "finetune", "run": name, "settings": settings, "stop": 0.5, "to_best": gap}
        for name, settings in (("a", {"lr": 0.001, "fusion": [64, 32]}), ("b", {}))
    ]
    section, other = standings_report([best, *runs, best | {"split": "cv"}])
    assert section.title == "size, fold-0, 9 rows"
    assert section.columns[5:] == ["on the stop rows", "run", "settings"] and len(other.columns) == 5
    assert [row[4:] for row in section.rows] == [
        ["", "", "", ""],
        ["-0.250 [-0.500, +0.125]", "0.500", "a", "lr=0.001 fusion=64,32"],
        ["-0.250 [-0.500, +0.125]", "0.500", "b", ""],
    ]
    assert section.lines[0] == "  2 of the others are not told apart from the best"
    assert section.lines[1].startswith("  the best of 2 runs on the same rows is flattered: choose by the stop")
    assert other.lines == ["  0 of the others are not told apart from the best", ""]
    [one] = standings_report([best | {"n_rows": 1}, runs[0]])
    assert one.title == "size, fold-0, 1 row" and one.lines[0] == "  1 of the others is not told apart from the best"


def test_standings_say_when_many_heads_compete_and_that_held_out_rows_choose_nothing() -> None:
    row = {"blocks": "image:bf@a", "head": "linear", "metric": "mae", "value": 0.1, "low": 0.0, "high": 0.2}
    row |= {"task": "size", "n_rows": 9, "standing": "better", "to_best": None, "run": None, "is_held_out": False}
    row |= {"is_reference": False}
    prior, few = row | {"head": "prior", "split": "cv"}, [row | {"split": "cv"}] * 5
    reference = row | {"is_reference": True, "split": "cv"}
    assert standings_report([*few, prior, reference])[0].lines[1:] == [""], "five were tried"
    [many] = standings_report([*few, *few, prior])
    advice = "heads says by how much; --final scores held-out rows once"
    assert many.lines[1] == f"  the best of 10 entries on the same rows is flattered: {advice}"
    held = row | {"split": "test", "is_held_out": True}
    [alone], [two] = standings_report([held]), standings_report([held, held])
    assert alone.title == "size, test (held out), 9 rows"
    assert alone.lines[1] == "  held out: to be read, not to choose by"
    assert two.lines[1] == f"{alone.lines[1]}; the best of 2 entries on the same rows is flattered"


def test_several_tasks_have_a_table_of_all_with_the_best_head_of_each_combination() -> None:
    image, other = {"blocks": ["image:bf@texture"]}, {"task": "other", "headline": "mae", "kind": "regression"}
    metrics = {"metrics": {"mae": {"value": 2.5, "low": 2.0, "high": 3.0}}, "baseline": {"mae": 3.0}}
    found = [entry("prior", 0.5), entry(value=0.8, **image), entry("lightgbm", 0.7, **image), entry(value=0.9)]
    found += [entry("prior", **other, **metrics), entry(**other, **metrics, **image, beats_baseline=False)]
    found += [entry(value=0.95, split="test")]  # of held-out rows, so not comparable
    for one in found:
        one["conformal"] = {"stated": 0.9}
    section = entries_report(found, NOTHING)[-1]
    assert (section.title, section.columns) == ("All tasks", ["blocks", "kind\naccuracy", "other\nmae"])
    assert section.rows == [
        ["image:bf@texture", "0.800*", "2.500"],
        ["image:bf@texture + metadata", "0.900*", "-"],
        ["(no features)", "0.500", "2.500"],
    ]
    assert section.lines[0] == "  * better than without features; of several heads the best"


def test_held_out_rows_have_a_verdict_of_their_own() -> None:
    held_out = {"split": "test", "verdict": "accuracy not told apart from without features"}
    found = [entry("prior", 0.5), entry(), entry("prior", 0.5, split="test"), entry(value=0.5, **held_out)]
    [section] = entries_report(found, NOTHING)
    assert [line for line in section.lines if line.startswith(("  best", "  on "))] == [
        "  best: accuracy better than without features by 0.4",
        "  on test: accuracy not told apart from without features",
    ]


def test_a_prior_that_nothing_beats_is_said() -> None:
    [section] = entries_report([entry("prior", 0.5), entry(value=0.4, n_groups=None)], NOTHING)
    assert section.lines[0] == "  nothing does better than the baseline"
    assert "of rows, 0.9 is stated" in section.lines[2], "no groups, so none are counted"


def test_a_reference_is_marked_and_never_the_best() -> None:
    alone = entry(value=0.95, blocks=["metadata"], is_reference=True, verdict="better than the best")
    other = [entry("prior", 0.5, task="other"), entry(task="other", value=0.6, blocks=["metadata"], is_reference=True)]
    [section, _, overview] = entries_report([entry("prior", 0.5), entry(), alone, *other], NOTHING)
    assert [row[0] for row in section.rows[:2]] == ["metadata (reference)", "image:bf@texture + metadata"]
    assert section.lines[0] == "  best: accuracy better than without features by 0.4"
    assert ["metadata (reference)", "0.950*", "0.600*"] in overview.rows
    [section] = entries_report([entry("prior", 0.5), entry(value=0.4), alone], NOTHING)
    assert section.lines[0] == "  nothing but the reference does better than the baseline"


def test_the_prior_alone_is_no_comparison() -> None:
    [section] = entries_report([entry("prior", 0.5)], NOTHING)
    assert section.lines == ["  only the baseline was tried: give heads and blocks that look at features", ""]
