import json
from dataclasses import replace

import numpy as np
import pytest

from heads.comparison import compare_blocks
from heads.head import Job, balanced_weights
from heads.leaderboard import Leaderboard, best, table
from heads.metrics import HEADLINE, metric_names
from heads.predictions import Predictions
from heads.registry import HEADS
from heads.score_report import entries_report
from heads.sweep import Sweep
from store import InputError, MetadataColumn, make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted

DESIGN_KEYS = {
    "task",
    "kind",
    "blocks",
    "head",
    "split",
    "metrics",
    "n_rows",
    "n_groups",
    "baseline",
    "seconds",
    "seed",
}
LEARNED = [name for name in HEADS if name != "prior"]


def a_sweep(*, n=90, strength=3.0, shuffled=False, groups=False, seed=0, n_folds=3, **options):
    X, y, group = planted(n, 12, strength=strength, seed=seed, n_groups=30 if groups else None)
    if shuffled:
        y = np.random.default_rng(seed + 1).permutation(y)
    data = dataset(classes(y), n=n, groups=group)
    return Sweep(data, matrix(data, image__bf_at_texture=X), make_split(data, n_folds=n_folds), **options)


def by_head(entries, task="kind"):
    return {entry["head"]: entry for entry in entries if entry["task"] == task}


def without_time(entry):
    return {key: value for key, value in entry.items() if key not in ("seconds", "time", "is_reused", "schema_version")}


def test_entries_have_the_keys_that_scripts_rely_on():
    entries = a_sweep().run()
    assert [entry["head"] for entry in entries] == ["prior", "linear", "lightgbm"]
    for entry in entries:
        assert entry.keys() >= DESIGN_KEYS
        assert list(entry["metrics"]) == metric_names("classification")
        assert all(set(m) == {"value", "low", "high"} for m in entry["metrics"].values())
        assert entry["n_rows"] == 90 and entry["n_groups"] is None and entry["split"] == "cv"
        json.dumps(entry, allow_nan=False)
    assert entries[0]["blocks"] == [] and entries[1]["blocks"] == ["image:bf@texture"]
    assert len(entries[1]["chosen"]) == 3


@pytest.mark.parametrize("head", LEARNED)
def test_a_planted_signal_is_found(head):
    entries = by_head(a_sweep(heads=[head]).run())
    assert entries[head]["metrics"]["accuracy"]["low"] > entries["prior"]["metrics"]["accuracy"]["high"]
    assert entries[head]["beats_baseline"] and "better than without features" in entries[head]["verdict"]
    assert entries[head]["baseline"]["accuracy"] == entries["prior"]["metrics"]["accuracy"]["value"]


@pytest.mark.parametrize("head", LEARNED)
def test_shuffled_labels_score_at_chance(head):
    entries = [by_head(a_sweep(n=150, shuffled=True, seed=s, heads=[head]).run())[head] for s in range(4)]
    assert abs(np.mean([e["metrics"]["accuracy"]["value"] for e in entries]) - 1 / 3) < 0.06
    assert abs(np.mean([e["metrics"]["roc_auc"]["value"] for e in entries]) - 1 / 2) < 0.06
    assert sum(e["beats_baseline"] for e in entries) <= 1  # one in forty does, by design of a 95 % interval
    assert all("includes 0" in e["verdict"] or "worse" in e["verdict"] for e in entries if not e["beats_baseline"])


@pytest.mark.parametrize("head", LEARNED)
def test_copies_within_a_group_do_not_leak(head):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 4)
    y = np.repeat(rng.permutation(np.arange(40) % 2), 4)
    X = np.repeat(rng.normal(size=(40, 80)), 4, axis=0) + rng.normal(0, 0.01, (160, 80))  # noise, copied fourfold
    data = dataset(classes(y), n=160, groups=group)
    entry = by_head(Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=4), heads=[head]).run())[head]
    assert entry["metrics"]["accuracy"]["value"] < 0.7 and not entry["beats_baseline"]
    assert entry["n_groups"] == 40
    loose = dataset(classes(y), n=160)
    leaky = Sweep(loose, matrix(loose, image__bf_at_a=X), make_split(loose, n_folds=4), heads=[head]).run()
    assert by_head(leaky)[head]["metrics"]["accuracy"]["value"] > 0.8  # what groups are for


def test_no_group_is_fitted_and_chosen_or_scored_on():
    sweep = a_sweep(groups=True)
    group = sweep.dataset.groups
    plan = sweep.plan("kind", sweep.split.outer(sweep.dataset.ids))
    for job, score in zip(plan.jobs, plan.score, strict=True):
        assert not set(group[job.train]) & set(group[score])
        for fit, stop in job.inner:
            assert not set(group[fit]) & set(group[stop])
            assert set(fit) | set(stop) == set(job.train)


def test_a_block_that_carries_signal_stands_out():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(120) % 2)
    noise = rng.normal(size=(120, 8))
    magnification = y + rng.normal(0, 0.3, 120)
    magnification[::10] = np.nan
    data = dataset(classes(y), n=120)
    made = matrix(
        data,
        columns=("m", "m:missing"),
        image__bf_at_a=noise,
        metadata=np.stack([magnification, np.isnan(magnification)], 1),
    )
    entries = Sweep(data, made, make_split(data, n_folds=4), heads=["linear"]).run()
    found = {tuple(e["blocks"]): e for e in entries}
    assert set(found) == {(), ("image:bf@a",), ("metadata",), ("image:bf@a", "metadata")}
    assert not found["image:bf@a",]["beats_baseline"]
    assert found["metadata",]["beats_baseline"] and found["image:bf@a", "metadata"]["beats_baseline"]


def test_rows_without_a_vector_or_a_label_stand_aside():
    X, y, _ = planted(90, 12)
    complete = np.ones(90, bool)
    complete[[3, 4]] = False
    X[[3, 4]] = np.nan
    task = classes(y)
    task.y[[4, 10, 11]] = -1
    data = dataset(task, n=90)
    entries = Sweep(data, matrix(data, complete=complete, image__bf_at_a=X), make_split(data, n_folds=3)).run()
    assert {entry["n_rows"] for entry in entries} == {90 - 4}
    assert {entry["n_left_out"] for entry in entries} == {1}
    assert by_head(entries)["linear"]["beats_baseline"] and by_head(entries)["lightgbm"]["beats_baseline"]


def test_a_conditional_task_is_fitted_and_scored_where_it_applies():
    X, y, _ = planted(90, 12)
    applies = np.arange(90) % 3 != 0
    data = dataset(classes(y, applies=applies), n=90)
    entries = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=["linear"]).run()
    assert {entry["n_rows"] for entry in entries} == {60}


@pytest.mark.parametrize("head", LEARNED)
def test_several_outputs_are_scored_together_and_apart(head):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 8)).astype(np.float32)
    y = np.stack([5 * X[:, 0], rng.normal(size=150)], axis=1)
    data = dataset(numbers(y, columns=("uv", "blue"), weights=[3.0, 1.0]), n=150)
    entries = by_head(Sweep(data, matrix(data, image__bf_at_a=X), make_split(data), heads=[head]).run(), "size")
    entry = entries[head]
    assert list(entry["metrics"]) == metric_names("regression") and entry["headline"] == HEADLINE["regression"]
    uv, blue = (entry["outputs"][name]["mae"]["value"] for name in ("uv", "blue"))
    assert entry["metrics"]["mae"]["value"] == pytest.approx((3 * uv + blue) / 4)
    assert entry["outputs"]["uv"]["r2"]["value"] > 0.5 > 0.2 > entry["outputs"]["blue"]["r2"]["value"]
    assert entry["beats_baseline"] and entry["difference"]["value"] == pytest.approx(
        entry["baseline"]["mae"] - entry["metrics"]["mae"]["value"]
    )


def test_tasks_of_different_kinds_share_a_sweep():
    X, y, _ = planted(90, 12)
    data = dataset(classes(y), numbers(X[:, 0] * 2), n=90)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3))
    entries = sweep.run()
    assert [e["task"] for e in entries] == ["kind", "size"] * 3
    assert len(entries) == sweep.n_entries
    assert [e["task"] for e in Sweep(sweep.dataset, sweep.matrix, sweep.split, tasks=["size"]).run()] == ["size"] * 3


def with_metadata(**options):
    """Return a sweep over an image that says little and metadata that say much."""
    X, y, _ = planted(90, 6, strength=1.0)
    data = dataset(classes(y), numbers(X[:, 0]), n=90)
    made = matrix(data, image__bf_at_a=X, metadata=np.eye(3)[y] + 0.3 * X[:, 3:])
    return Sweep(data, made, make_split(data, n_folds=3), heads=["linear"], **options)


def test_metadata_alone_stand_beside_other_blocks_and_are_never_chosen():
    sweep = with_metadata(blocks=["image"])
    entries = sweep.run()
    assert len(entries) == sweep.n_entries == 6
    blocks = [entry["blocks"] for entry in entries if entry["task"] == "kind"]
    assert blocks == [[], ["image:bf@a"], ["metadata"]]
    assert [entry.get("is_reference") for entry in entries] == [None] * 4 + [True] * 2
    image, alone = (e["metrics"]["accuracy"]["value"] for e in entries if e["task"] == "kind" and e["blocks"])
    assert alone > image + 0.1
    assert best(entries)["kind"]["blocks"] == ["image:bf@a"]
    assert [row["is_reference"] for row in table(entries)[:2]] == [True, False]


def test_a_reference_is_what_it_would_be_without_blocks_and_is_reused_both_ways(tmp_path):
    every, some = with_metadata(), with_metadata(blocks=["image"])
    for number, (first, then) in enumerate(((every, some), (some, every))):
        board = Leaderboard(tmp_path / f"{number}.jsonl")
        alone = [e for e in first.run(board) if e["blocks"] == ["metadata"]]
        again = [e for e in then.run(board) if e["blocks"] == ["metadata"]]
        assert all(e["is_reused"] for e in again)
        assert [e["identity"] for e in again] == [e["identity"] for e in alone]
        assert not any("is_reference" in e for e in board.entries())
        assert [e.get("is_reference") for e in again] == ([True] * 2 if then is some else [None] * 2)


@pytest.mark.parametrize("blocks", [["metadata"], ["image", "metadata"], []])
def test_metadata_that_are_asked_for_are_no_reference(blocks):
    sweep = with_metadata(blocks=blocks)
    assert not sweep.references and (("metadata",), "linear") in sweep.trials


def test_an_image_beside_metadata_is_compared_with_the_metadata_alone():
    kept = Predictions()
    lines = compare_blocks(with_metadata(blocks=["image+metadata"]).run(predictions=kept), kept)
    assert {(line["block"], *line["beside"]) for line in lines} == {("image:bf@a", "metadata")}
    assert not compare_blocks(with_metadata(blocks=["image"]).run(predictions=kept), kept)


def test_the_same_sweep_gives_the_same_numbers():
    first, second = a_sweep().run(), a_sweep().run()
    assert [without_time(e) for e in first] == [without_time(e) for e in second]


def test_a_repeated_sweep_is_read_from_the_leaderboard(tmp_path):
    board = Leaderboard(tmp_path / "leaderboard.jsonl")
    first = a_sweep(heads=["linear"]).run(board)
    again = a_sweep(heads=["linear"]).run(board)
    assert [e.get("is_reused") for e in first] == [None, None] and [e["is_reused"] for e in again] == [True, True]
    assert [without_time(e) for e in again] == [without_time(e) for e in first]
    assert len(board.entries()) == 2


@pytest.mark.parametrize("change", [{"seed": 3}, {"strength": 2.9}, {"n_folds": 4}, {"groups": True}])
def test_anything_that_changes_the_numbers_is_computed_anew(tmp_path, change):
    board = Leaderboard(tmp_path / "leaderboard.jsonl")
    a_sweep(heads=["linear"]).run(board)
    again = a_sweep(**({"heads": ["linear"]} | change)).run(board)
    assert not again[1].get("is_reused")


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path):
    board = Leaderboard(tmp_path / "leaderboard.jsonl")

    def stop(entry):
        if entry["head"] == "linear":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        a_sweep().run(board, on_entry=stop)
    again = a_sweep().run(board)
    assert [e.get("is_reused", False) for e in again] == [True, True, False]


def held_out_sweep(**options):
    X, y, _ = planted(120, 12)
    given = np.where(np.arange(120) % 4 == 0, "test", "train")
    data = dataset(classes(y), n=120, given=given)
    return Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), **options)


def test_the_held_out_set_is_scored_by_final_alone(tmp_path):
    board = Leaderboard(tmp_path / "leaderboard.jsonl")
    sweep = held_out_sweep()
    entries = sweep.run(board)
    assert {e["n_rows"] for e in entries} == {90} and {e["split"] for e in entries} == {"cv"}
    prior, final = sweep.final(entries, board)
    assert prior["head"] == "prior" and prior["split"] == final["split"] == "test" and final["n_rows"] == 30
    assert final["beats_baseline"] and final["n_folds"] == 1
    assert len(board.entries()) == len(entries) + 2


def test_final_scores_every_held_out_set_and_none_of_them_is_fitted_on():
    X, y, _ = planted(120, 12)
    given = np.select([np.arange(120) % 4 == 0, np.arange(120) % 4 == 1], ["test", "ood"], "train")
    data = dataset(classes(y), n=120, given=given)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=["linear"])
    final = sweep.final(sweep.run())
    assert [(e["split"], e["head"], e["n_rows"]) for e in final] == [
        (name, head, 30) for name in ("test", "ood") for head in ("prior", "linear")
    ]
    sweep.dataset.tasks["kind"].y[given == "ood"] = 0
    again = sweep.final(sweep.run())
    assert again[1]["metrics"] == final[1]["metrics"] and again[3]["metrics"] != final[3]["metrics"]


def test_a_second_look_at_held_out_rows_is_counted(tmp_path):
    board = Leaderboard(tmp_path / "leaderboard.jsonl")
    looks = []
    for head in ("linear", "linear", "lightgbm"):
        sweep = replace(held_out_sweep(), heads=[head])
        final = sweep.final(sweep.run(board), board)
        looks.append([entry.get("n_earlier") for entry in final])
    assert looks == [[None, 0], [None, 0], [None, 1]]
    [section] = [
        s for s in entries_report(final, {"comparisons": [], "selection": [], "group_gap": []}) if s.title == "kind"
    ]
    assert any("test was scored once before, by other blocks" in line for line in section.lines)


def test_test_labels_do_not_move_the_folds_scores():
    sweep = held_out_sweep(heads=["linear"])
    held = sweep.split.held_out(sweep.dataset.ids)
    before = sweep.run()
    sweep.dataset.tasks["kind"].y[held] = 0
    sweep.matrix.X[held] = 1e3
    after = sweep.run()
    assert [e["metrics"] for e in before] == [e["metrics"] for e in after]


def test_final_without_a_held_out_set_is_an_input_error():
    sweep = a_sweep()
    with pytest.raises(InputError, match="no row is held out"):
        sweep.final([])


def test_given_train_and_val_are_one_pair():
    X, y, _ = planted(120, 12)
    given = np.where(np.arange(120) % 4 == 0, "val", "train")
    data = dataset(classes(y), n=120, given=given)
    entries = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data), heads=["linear"]).run()
    assert {(e["split"], e["n_rows"], e["n_folds"]) for e in entries} == {("val", 30, 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["kidn"]}, "no task 'kidn'.*Did you mean 'kind'"),
        ({"heads": ["liner"]}, "no head 'liner'.*Did you mean 'linear'"),
    ],
)
def test_a_misspelt_name_names_the_nearest(options, message):
    with pytest.raises(InputError, match=message):
        a_sweep(**options)


def test_a_task_without_labels_is_an_input_error():
    data = dataset(classes([-1] * 30, labels=("a", "b")), n=30)
    made = matrix(data, image__bf_at_a=np.ones((30, 2)))
    with pytest.raises(InputError, match="task 'kind': a training part has no labelled row"):
        Sweep(data, made, make_split(data, n_folds=3)).run()


def test_few_groups_are_said_in_words():
    X, y, _ = planted(60, 6, strength=6.0)
    data = dataset(classes(y), n=60, groups=np.arange(60) // 3 % 5)
    entry = by_head(Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=["linear"]).run())[
        "linear"
    ]
    assert "only 5 groups" in entry["verdict"]


def test_class_and_sample_weights_reach_every_job():
    X, y, _ = planted(90, 12, n_classes=2)
    y[:30] = 0
    weight = np.linspace(1, 2, 90)
    weight[7] = np.nan  # a row without a label has none
    y[7] = -1
    task = replace(classes(y, labels=("a", "b")), sample_weight=weight, class_weight="balanced")
    data = dataset(task, n=90)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3))
    for job in sweep.plan("kind", sweep.pairs).jobs:
        expected = balanced_weights(job.y, job.train) * np.nan_to_num(weight) / weight[job.train].mean()
        np.testing.assert_allclose(job.sample_weight, expected)
        assert (job.weight(job.train) > 0).all()


@pytest.mark.parametrize("head", LEARNED)
def test_balanced_classes_find_the_rare_one_and_scores_stay_unweighted(head):
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 10 == 0).astype(int)
    X = rng.normal(size=(300, 6)).astype(np.float32)
    X[:, 0] += 2.0 * y
    found = {}
    for weighting in (None, "balanced"):
        data = dataset(replace(classes(y), class_weight=weighting), n=300)
        entries = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=[head]).run()
        found[weighting] = by_head(entries)
    plain, balanced = found[None], found["balanced"]
    recall = [e[head]["metrics"]["balanced_accuracy"]["value"] for e in (plain, balanced)]
    assert recall[1] > recall[0] + 0.05
    assert balanced[head]["metrics"]["accuracy"]["value"] < plain[head]["metrics"]["accuracy"]["value"]
    assert balanced["prior"]["metrics"] == plain["prior"]["metrics"] and plain["prior"]["baseline"]["accuracy"] == 0.9


def test_balanced_weights_equal_repeating_rows():
    X, y, _ = planted(90, 6, strength=1.0)
    y = np.where(np.arange(90) < 60, 0, 1)  # twice as many of one class
    data = dataset(replace(classes(y), class_weight="balanced"), n=90)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=["linear"])
    [job] = sweep.plan("kind", [(np.arange(90), np.arange(0))]).jobs
    assert job.sample_weight is not None
    times = job.sample_weight / job.sample_weight.min()
    assert times[:60] == pytest.approx(1) and times[60:] == pytest.approx(2)
    twice = np.r_[np.arange(90), np.arange(60, 90)]
    one = replace(job, inner=(), sample_weight=times)
    other = Job("classification", y[twice], 2, np.arange(120), ())
    [weighted] = HEADS["linear"].fit(X, [one], seed=0)
    [repeated] = HEADS["linear"].fit(X[twice], [other], seed=0)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "lightgbm"])
def test_weights_that_are_the_same_everywhere_change_nothing(head):
    X, y, _ = planted(90, 8, n_classes=2)
    found = []
    for weight in (None, np.full(90, 700.0)):
        data = dataset(replace(classes(y), sample_weight=weight), n=90)
        entries = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=[head]).run()
        found.append(by_head(entries)[head])
    assert found[0]["chosen"] == found[1]["chosen"]
    mine, theirs = (entry["metrics"]["log_loss"]["value"] for entry in found)
    assert mine == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("change", [{"class_weight": "balanced"}, {"sample_weight": np.linspace(1, 2, 90)}])
def test_other_weights_are_another_result(tmp_path, change):
    board = Leaderboard(tmp_path / "leaderboard.jsonl")
    sweep = a_sweep(heads=["linear"])
    sweep.run(board)
    data = replace(sweep.dataset, tasks={"kind": replace(sweep.dataset.tasks["kind"], **change)})
    assert not replace(sweep, dataset=data).run(board)[1].get("is_reused")


def test_monotone_metadata_binds_trees_and_makes_other_results():
    rng = np.random.default_rng(0)
    dose = rng.normal(size=90)
    found = {}
    for monotone in ("none", "increasing"):
        column = MetadataColumn("dose", "numeric", dose, monotone=monotone)
        data = dataset(numbers(np.sin(3 * dose) + dose), n=90, metadata={"dose": column})
        made = matrix(data, image__bf_at_a=rng.normal(size=(90, 2)), metadata=dose[:, None], columns=("dose",))
        sweep = Sweep(data, made, make_split(data, n_folds=3))
        [[head, *_]] = sweep.fit([sweep.plan("size", sweep.pairs)], ("metadata",), "lightgbm")
        found[monotone] = np.diff(head.predict(np.linspace(-2, 2, 40, dtype=np.float32)[:, None])[:, 0]), sweep.digests
    assert found["none"][0].min() < -0.01 and found["increasing"][0].min() >= 0
    assert found["none"][1]["metadata"] != found["increasing"][1]["metadata"]
