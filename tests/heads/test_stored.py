from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from heads.leaderboard import Leaderboard
from heads.predictions import Predictions
from heads.stored import Stored, Wanted
from heads.sweep import Sweep
from store import InputError, make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted

ALL = Wanted()


def a_sweep(*, given=None, heads=("linear",), tasks=("kind", "size"), strength=3.0, **options):
    X, y, _ = planted(60, 8, strength=strength)
    data = dataset(classes(y), numbers(X[:, 4] * 4), n=60, given=given)
    made = matrix(data, image__bf_at_a=X, text__note_at_b=X[:, ::-1])
    return Sweep(data, made, make_split(data, n_folds=3), tasks=tasks, heads=heads, **options)


def beside(sweep, folder):
    board, predictions = Leaderboard(folder / "leaderboard.jsonl"), Predictions(folder / "predictions")
    return SimpleNamespace(
        run=lambda one=sweep: one.run(board, predictions=predictions),
        final=lambda entries, one=sweep: one.final(entries, board, predictions=predictions),
        stored=lambda data=sweep.dataset: Stored(
            data, sweep.split, Leaderboard(board.path), Predictions(predictions.folder)
        ),
        board=board,
        predictions=predictions,
    )


def keep(runs, entry, *, like, **changes):
    """Write an entry of other settings, with the predictions of another one."""
    runs.predictions.keep(entry["identity"], runs.predictions.of(like))
    runs.board.append(entry | changes)


def better(entry, by=0.001, **changes):
    name = entry["headline"]
    score = entry["metrics"][name]
    return entry | {"metrics": entry["metrics"] | {name: score | {"value": score["value"] + by}}} | changes


def test_the_best_entry_of_each_task_comes_with_its_predictions_and_baseline(tmp_path):
    sweep = a_sweep()
    runs = beside(sweep, tmp_path)
    entries = runs.run()
    kind, size = runs.stored().best([], ALL)[0]
    assert kind.entry["metrics"]["accuracy"]["value"] == max(
        e["metrics"]["accuracy"]["value"] for e in entries if e["task"] == "kind"
    )
    assert kind.scored.row.tolist() == list(range(60)) and size.scored.y.shape == (60, 1)
    assert np.array_equal(kind.scored.y, sweep.dataset.tasks["kind"].y)
    assert (kind.prior["head"], kind.prior["task"]) == ("prior", "kind")
    accuracy = (kind.scored.predicted.argmax(1) == kind.scored.y).mean()
    assert kind.entry["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)


def test_what_is_wanted_is_chosen_among(tmp_path):
    runs = beside(a_sweep(heads=("linear", "lightgbm"), tasks=("kind",)), tmp_path)
    runs.run()

    def chosen(**wanted):
        [result] = runs.stored().best(["kind"], Wanted(**wanted))[0]
        return result.entry["head"], result.entry["blocks"]

    assert chosen(heads=["lightgbm"], blocks=["text"]) == ("lightgbm", ["text:note@b"])
    assert chosen(blocks=["text+image"])[1] == ["image:bf@a", "text:note@b"]
    assert chosen(backbones=["b"])[1] == ["text:note@b"]
    own = runs.run()[1]["fingerprints"] | runs.run()[-1]["fingerprints"]
    folder = {"runs/b": {own["text:note@b"]}}  # of another name, and known by its spaces alone
    assert chosen(backbones=["runs/b"], fingerprints=folder)[1] == ["text:note@b"]
    both = chosen(backbones=["runs/b", "a"], blocks=["text+image"], fingerprints=folder)
    assert both[1] == ["image:bf@a", "text:note@b"]
    with pytest.raises(InputError, match="no stored result is as asked for"):
        chosen(backbones=["b"], fingerprints={"b": {"0" * 64}})
    with pytest.raises(
        InputError, match=r"there are the heads lightgbm, linear and the encoders a, b\. Did you mean 'linear'"
    ):
        chosen(heads=["liner"])
    with pytest.raises(InputError, match=r"there is no task 'knd'; there is kind, size\. Did you mean 'kind'"):
        runs.stored().best(["knd"], ALL)


def test_without_results_the_command_to_run_is_named(tmp_path):
    runs = beside(a_sweep(), tmp_path)
    with pytest.raises(
        InputError, match="task 'kind': nothing is stored yet: run heads --task kind, or finetune, first"
    ):
        runs.stored().best([], ALL)


def test_a_task_without_a_result_is_said_beside_those_that_have_one(tmp_path):
    runs = beside(a_sweep(tasks=("size",)), tmp_path)
    runs.run()
    results, missing = runs.stored().best([], ALL)
    assert [result.entry["task"] for result in results] == ["size"]
    assert list(missing) == ["kind"] and "run heads --task kind" in missing["kind"]


def test_results_of_other_labels_rows_or_splits_are_not_used(tmp_path):
    sweep = a_sweep(tasks=("kind",))
    runs = beside(sweep, tmp_path)
    runs.run()
    other = sweep.dataset.tasks["kind"].y.copy()
    other[7] = (other[7] + 1) % 3
    relabelled = replace(sweep.dataset, tasks={"kind": classes(other)})
    with pytest.raises(
        InputError, match="are of other rows, labels or weights, or what they predicted is gone: run heads --task kind"
    ):
        runs.stored(relabelled).best([], ALL)
    resplit = replace(runs.stored(), split=make_split(sweep.dataset, n_folds=3, seed=1))
    with pytest.raises(InputError, match="nothing is stored yet"):
        resplit.best([], ALL)


def test_results_of_other_weights_are_not_used(tmp_path):
    X = planted(60, 8, strength=3.0)[0]

    def a_sweep_of(*weights):
        data = dataset(numbers(X[:, :2], columns=("a", "b"), weights=list(weights)), n=60)
        return Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=("linear",))

    runs = beside(a_sweep_of(3.0, 1.0), tmp_path)
    runs.run()
    assert runs.stored().best([], ALL)[0]
    with pytest.raises(InputError, match="are of other rows, labels or weights"):
        runs.stored(a_sweep_of(1.0, 3.0).dataset).best([], ALL)


def test_a_result_of_some_rows_only_is_not_used(tmp_path):
    sweep = a_sweep(tasks=("kind",))
    runs = beside(sweep, tmp_path)
    first = np.arange(45)  # the same row numbers and labels, but not all of them
    few = replace(
        sweep.matrix, X=sweep.matrix.X[first], ids=sweep.matrix.ids[first], complete=sweep.matrix.complete[first]
    )
    runs.run(replace(sweep, dataset=sweep.dataset.take(first.tolist()), matrix=few))
    with pytest.raises(InputError, match="of other rows, labels or weights"):
        runs.stored().best([], ALL)


def test_one_fold_is_chosen_only_where_nothing_else_is(tmp_path):
    sweep = a_sweep(tasks=("kind",))
    runs = beside(sweep, tmp_path)
    runs.run(replace(sweep, fold=0))
    [alone] = runs.stored().best([], ALL)[0]
    assert alone.entry["split"] == "fold-0" and len(alone.scored.row) == 20
    runs.run()
    [whole] = runs.stored().best([], ALL)[0]
    assert whole.entry["split"] == "cv"


def test_test_rows_follow_where_they_were_scored(tmp_path):
    sweep = a_sweep(given=np.where(np.arange(60) % 3 == 0, "test", "train"), tasks=("kind",))
    runs = beside(sweep, tmp_path)
    entries = runs.run()
    assert len(runs.stored().best([], ALL)[0]) == 1
    runs.final(entries)
    chosen, test = runs.stored().best([], ALL)[0]
    assert (chosen.entry["split"], test.entry["split"]) == ("cv", "test")
    assert test.entry["blocks"] == chosen.entry["blocks"] and test.scored.row.tolist() == list(range(0, 60, 3))
    assert test.prior["split"] == "test"


def test_every_held_out_set_follows(tmp_path):
    given = np.select([np.arange(60) % 3 == 0, np.arange(60) % 3 == 1], ["test", "ood"], "train")
    sweep = a_sweep(given=given, tasks=("kind",))
    runs = beside(sweep, tmp_path)
    runs.final(runs.run())
    assert [one.entry["split"] for one in runs.stored().best([], ALL)[0]] == ["cv", "test", "ood"]


def test_test_rows_of_another_model_of_the_same_name_do_not_follow(tmp_path):
    sweep = a_sweep(given=np.where(np.arange(60) % 3 == 0, "test", "train"), tasks=("kind",), strength=1.0)
    runs = beside(sweep, tmp_path)
    entries = runs.run()
    [chosen] = runs.stored().best([], ALL)[0]
    mine = chosen.entry
    keep(runs, better(mine, identity="1" * 64), like=mine)
    [first] = runs.stored().best([], ALL)[0]
    assert first.entry["identity"] == "1" * 64
    keep(runs, mine | {"identity": "2" * 64}, like=mine)  # other settings, and --final
    runs.final(entries)
    [again] = runs.stored().best([], ALL)[0]
    assert again.entry["identity"] == "1" * 64
