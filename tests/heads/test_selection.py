"""What choosing the best of many entries is worth on rows that chose nothing."""

import numpy as np
import pytest

from heads.entry import BOOTSTRAP_SEED
from heads.metrics import N_RESAMPLES, Scored
from heads.predictions import Predictions
from heads.selection import HANDFUL, choice_score, flattered, score_choice
from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix


def guesses(n_entries, *, n=90, n_units=30, seed=0):
    """Entries that guess two classes by a coin."""
    rng = np.random.default_rng(seed)
    y, unit = rng.integers(0, 2, n), np.arange(n) % n_units
    found = []
    for _ in range(n_entries):
        p = rng.random(n)
        found.append(
            Scored("classification", y, np.stack([1 - p, p], 1), np.zeros(n, int), unit, np.ones(1), np.arange(n))
        )
    return found


def accuracy(scored):
    return (scored.predicted.argmax(axis=1) == scored.y).mean()


def test_the_best_of_many_guesses_is_a_guess():
    scored = [guesses(30, seed=s) for s in range(8)]
    best = np.mean([max(accuracy(one) for one in own) for own in scored])
    assert best > 0.58
    assert abs(np.mean([choice_score(own, "accuracy") for own in scored]) - 0.5) < 0.03


def test_it_equals_a_slow_loop_over_resamples():
    scored = guesses(4, n=40, n_units=10)
    unit, rng, values = scored[0].unit, np.random.default_rng(BOOTSTRAP_SEED), []
    for drawn in rng.multinomial(10, np.full(10, 0.1), size=N_RESAMPLES):
        inside, outside = np.repeat(np.arange(40), drawn[unit]), np.flatnonzero(drawn[unit] == 0)
        if len(outside):
            chosen = max(scored, key=lambda one: accuracy(one.take(inside)))
            values.append(accuracy(chosen.take(outside)))
    assert choice_score(scored, "accuracy") == pytest.approx(np.mean(values), abs=1e-12)


def test_what_is_better_everywhere_loses_nothing():
    [bad] = guesses(1)
    sure = np.where(np.arange(2) == bad.y[:, None], 0.9, 0.1)
    good = Scored("classification", bad.y, sure, bad.fold, bad.unit, bad.weights)
    assert choice_score([bad, good], "accuracy") == 1.0


def test_less_is_better_and_outputs_weigh_as_they_are_scored():
    y = np.zeros((60, 2))
    near, far = (
        Scored("regression", y, y + np.array([by, 10 * by]), np.zeros(60, int), np.arange(60), np.array([3.0, 1.0]))
        for by in (1.0, 2.0)
    )
    assert choice_score([far, near], "mae") == pytest.approx((3 * 1.0 + 10.0) / 4)


def test_one_group_cannot_be_left_out():
    assert choice_score(guesses(2, n_units=1), "accuracy") is None


def noise_sweep(n_blocks):
    rng = np.random.default_rng(1)
    data = dataset(classes(rng.permutation(np.arange(60) % 2)), n=60)
    blocks = {f"image__bf_at_{i}": rng.normal(size=(60, 3)) for i in range(n_blocks)}
    names = [f"image:bf@{i}" for i in range(n_blocks)]
    return Sweep(data, matrix(data, **blocks), make_split(data, n_folds=3), heads=["linear"], blocks=names)


def test_more_than_a_handful_of_entries_are_said_to_flatter():
    predictions = Predictions()
    entries = noise_sweep(HANDFUL + 1).run(predictions=predictions)
    [line] = score_choice(entries, predictions)
    best = max(entry["metrics"]["accuracy"]["value"] for entry in entries if entry["blocks"])
    assert line["n_entries"] == HANDFUL + 1 and line["value"] < best
    assert line["words"] == (
        f"{flattered(6, 'entries')}: chosen on some of them and scored on the others it has accuracy "
        f"{line['value']:.3g}; --final scores held-out rows once"
    )
    assert score_choice(entries[:-1], predictions) == []
