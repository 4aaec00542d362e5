from dataclasses import replace

import numpy as np
import pytest

from heads import Given, Leaderboard, Predictions, Sweep, best, compare_entries, given_entry
from store import make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted


def a_sweep(*tasks, n=120, X=None, groups=None, **options):
    data = dataset(*tasks, n=n, groups=groups)
    X = np.random.default_rng(0).normal(size=(n, 4)) if X is None else X
    made = matrix(data, image__bf_at_a=X)
    return Sweep(data, made, make_split(data, n_folds=4), heads=["linear"], **options)


def entry_of(sweep, predicted, kept_out=(), **kept):
    models = [Given(predicted, np.asarray(kept_out, np.int64)) for _ in sweep.pairs]
    how = {"head": "finetune", "blocks": ("image:bf@a",), "identity": "x", "seconds": 1.5, **kept}
    return given_entry(sweep, sweep.task_names[0], models, **how)


def sure(y, p=0.7):
    others = (1 - p) / y.max()
    return np.where(y[:, None] == np.arange(y.max() + 1), p, others)


def test_predictions_of_a_head_give_the_entry_of_that_head():
    X, y, _ = planted()
    sweep = a_sweep(classes(y), X=X, fold=1)
    predictions = Predictions()
    _, head = sweep.run(predictions=predictions)
    found = predictions.of(head)
    p = np.full((120, 3), np.nan)
    p[found.row] = found.predicted
    entry, [calibration] = entry_of(sweep, p)
    same = ("metrics", "baseline", "difference", "n_rows", "n_groups", "split", "headline", "verdict", "n_left_out")
    assert {name: entry[name] for name in same} == {name: head[name] for name in same}
    assert entry["head"] == "finetune" and entry["seconds"] == 1.5 and entry["split"] == "fold-1"
    assert calibration.temperature == 1 and calibration.limits == (None,)


def test_one_fold_is_scored_on_the_rows_that_it_has_in_all_folds(tmp_path):
    X, y, _ = planted()
    whole, one = Predictions(), Predictions()
    sweep = a_sweep(classes(y), X=X)
    _, all_folds = sweep.run(predictions=whole)
    _, entry = replace(sweep, fold=2).run(predictions=one)
    theirs, mine = whole.of(all_folds), one.of(entry)
    assert mine.row.tolist() == theirs.row[theirs.fold == 2].tolist() == sweep.pairs[2][1].tolist()
    np.testing.assert_allclose(mine.predicted, theirs.predicted[theirs.fold == 2], atol=1e-5)
    assert best([entry])["kind"] is entry and all_folds["split"] == "cv"


def test_calibration_is_fitted_on_the_rows_kept_out():
    _, y, _ = planted(n=400)
    sweep = a_sweep(classes(y), n=400, fold=0)
    train, score = sweep.pairs[0]
    kept_out = train[:200]
    p = sure(y, 0.999)
    wrong = np.random.default_rng(0).random(400) < 0.4
    p[wrong] = np.roll(p[wrong], 1, axis=1)  # far too sure: right six times in ten
    entry, [calibration] = entry_of(sweep, p, kept_out)
    assert calibration.temperature > 5
    assert entry["calibration"]["temperature"] == [calibration.temperature]
    assert entry["calibration"]["after"]["log_loss"] < entry["calibration"]["before"]["log_loss"] - 1
    q = p.copy()
    q[np.setdiff1d(np.arange(400), [*kept_out, *score])] = np.nan  # nothing else is read
    assert entry_of(sweep, q, kept_out)[0]["metrics"] == entry["metrics"]


def test_numbers_are_scored_with_limits_from_the_rows_kept_out():
    y = np.arange(120.0)
    sweep = a_sweep(numbers(y), fold=0)
    predicted = y[:, None] + 2.0
    entry, [calibration] = entry_of(sweep, predicted, sweep.pairs[0][0])
    assert entry["metrics"]["mae"]["value"] == pytest.approx(2) and calibration.limits == (pytest.approx(2),)
    assert entry["conformal"]["coverage"]["value"] == 1 and entry["beats_baseline"]


def test_every_fold_s_rows_come_from_its_own_model(tmp_path):
    _, y, _ = planted()
    sweep = a_sweep(classes(y))
    board, predictions = Leaderboard(tmp_path / "b.jsonl"), Predictions(tmp_path)
    models = []
    for number, (_, score) in enumerate(sweep.pairs):
        p = np.full((120, 3), np.nan)
        p[score] = sure((y[score] + (number == 0)) % 3)  # the first model is always wrong
        models.append(Given(p, np.empty(0, np.int64)))
    how = {"head": "finetune", "blocks": (), "identity": "x", "seconds": 0.0}
    entry, _ = given_entry(sweep, "kind", models, **how, leaderboard=board, predictions=predictions)
    assert entry["metrics"]["accuracy"]["value"] == pytest.approx(1 - len(sweep.pairs[0][1]) / 120)
    assert [e["identity"] for e in board.entries()] == ["x"] and len(predictions.of(entry).row) == 120


def test_a_row_that_was_not_predicted_is_no_entry():
    _, y, _ = planted()
    sweep = a_sweep(classes(y), fold=0)
    p = sure(y)
    p[sweep.pairs[0][1][3]] = np.nan
    with pytest.raises(ValueError, match="was not predicted"):
        entry_of(sweep, p)


def test_two_entries_are_compared_row_by_row(tmp_path):
    X, y, _ = planted(strength=0.5)
    sweep = a_sweep(classes(y), X=X, fold=0)
    predictions = Predictions()
    prior, head = sweep.run(predictions=predictions)
    entry, _ = entry_of(sweep, sure(y), predictions=predictions)
    gap = compare_entries(entry, head, predictions)
    assert gap["value"] == pytest.approx(1 - head["metrics"]["accuracy"]["value"])
    assert gap["low"] > 0 and gap["verdict"] == "helps"
    assert compare_entries(head, entry, predictions)["verdict"] == "hurts"
    assert compare_entries(entry, prior, predictions)["value"] == entry["difference"]["value"]
    other = replace(sweep, fold=1)
    with pytest.raises(ValueError, match="other rows"):
        compare_entries(entry, other.run(predictions=predictions)[1], predictions)
