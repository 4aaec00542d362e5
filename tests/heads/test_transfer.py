from dataclasses import replace

import numpy as np
import pytest

from heads.leaderboard import Leaderboard
from heads.predictions import Predictions
from heads.sweep import Sweep
from heads.transfer import held_out_groups, held_out_values, transfer
from store import InputError, make_split, parse_spec
from tests.heads.made import classes, dataset, matrix, numbers, planted


def a_sweep(task, X, *, groups=None, given=None, **blocks):
    data = dataset(task, n=len(X), groups=groups, given=given)
    return Sweep(data, matrix(data, image__bf_at_a=X, **blocks), make_split(data, n_folds=3), heads=["linear"])


def transferred(sweep, held_out):
    return transfer(sweep, held_out, None, Predictions())


def two_instruments(n=160, seed=0):
    """On instrument 0 the first column tells the class, on instrument 1 its opposite does."""
    rng = np.random.default_rng(seed)
    y, instrument = rng.permutation(np.arange(n) % 2), np.arange(n) // (n // 2)
    X = rng.normal(size=(n, 5))
    X[:, 0] += 4 * np.where(instrument == 0, y, 1 - y)
    return X, y, instrument


def test_a_shift_that_random_folds_hide_is_seen():
    X, y, instrument = two_instruments()
    sweep = a_sweep(classes(y), np.c_[X, X * instrument[:, None], instrument])
    assert sweep.run()[-1]["metrics"]["accuracy"]["value"] > 0.9
    prior, linear = transferred(sweep, {"instrument=1": instrument == 1})
    [part] = linear["parts"]
    assert part["held_out"] == "instrument=1" and part["n_rows"] == 80
    assert part["score"]["high"] < 0.3 and part["difference"]["high"] < 0 and part["verdict"].startswith("worse than")
    assert prior["parts"][0]["score"]["value"] == part["baseline"]


def test_a_signal_that_holds_everywhere_transfers():
    X, y, _ = planted(160, 6, n_classes=2, strength=4.0)
    instrument = np.arange(160) % 3
    held = {f"instrument={i}": instrument == i for i in range(3)}
    linear = transferred(a_sweep(classes(y), X), held)[-1]
    assert [part["held_out"] for part in linear["parts"]] == list(held)
    assert all(part["difference"]["low"] > 0 and part["verdict"].startswith("better") for part in linear["parts"])
    assert linear["n_rows"] == 160 and linear["beats_baseline"]
    mean = np.average([p["score"]["value"] for p in linear["parts"]], weights=[p["n_rows"] for p in linear["parts"]])
    assert linear["metrics"]["accuracy"]["value"] == pytest.approx(mean)


def test_shuffled_labels_do_not_transfer():
    X, y, _ = planted(200, 6, n_classes=2)
    y = np.random.default_rng(1).permutation(y)
    linear = transferred(a_sweep(classes(y), X), {str(i): np.arange(200) % 4 == i for i in range(4)})[-1]
    assert abs(linear["metrics"]["accuracy"]["value"] - 0.5) < 0.1
    assert sum(part["difference"]["low"] > 0 for part in linear["parts"]) <= 1


def test_no_model_has_seen_a_row_of_a_held_out_row_s_group():
    rng = np.random.default_rng(0)
    specimen = np.repeat(np.arange(40), 4)
    y = rng.permutation(np.arange(40) % 2)[specimen]
    X = rng.normal(size=(40, 60))[specimen] + rng.normal(0, 0.01, (160, 60))
    magnification = np.tile([0, 0, 1, 1], 40)
    held = {f"m={m}": magnification == m for m in (0, 1)}
    with pytest.raises(InputError, match="m=0: no row is left to fit on, since every other row shares a group"):
        transferred(a_sweep(classes(y), X, groups=specimen), held)  # every specimen is there at both
    with pytest.raises(InputError, match="made=up: no row is left to fit on, since every row has it; hold out"):
        transferred(a_sweep(classes(y), X, groups=specimen), {"made=up": np.ones(160, dtype=bool)})
    some = {"first": np.isin(specimen, range(10)) & (magnification == 0)}
    linear = transferred(a_sweep(classes(y), X, groups=specimen), some)[-1]
    assert linear["parts"][0]["score"]["value"] < 0.95 and linear["n_groups"] == 10
    assert transferred(a_sweep(classes(y), X, groups=None), some)[-1]["parts"][0]["score"]["value"] == 1


def test_every_group_is_left_out_once_and_its_interval_is_over_rows():
    X, y, _ = planted(120, 6, n_classes=2, strength=4.0)
    sweep = a_sweep(classes(y), X, groups=np.arange(120) // 20)
    linear = transferred(sweep, held_out_groups(sweep.dataset, sweep.split))[-1]
    assert [part["held_out"] for part in linear["parts"]] == list("012345")
    assert all(part["n_rows"] == 20 and part["score"]["low"] is not None for part in linear["parts"])
    assert {part["resampled"] for part in linear["parts"]} == {"rows"}
    half = {"half": np.arange(120) < 60}
    assert transferred(sweep, half)[-1]["parts"][0]["resampled"] == "groups"
    assert transferred(a_sweep(classes(y), X), half)[-1]["parts"][0]["resampled"] == "rows"


def test_groups_kept_whole_for_the_test_are_not_left_out_in_turn():
    X, y, _ = planted(120, 6, n_classes=2, strength=4.0)
    group = np.arange(120) // 20
    sweep = a_sweep(classes(y), X, groups=group, given=np.where(group == 2, "test", "train"))
    linear = transferred(sweep, held_out_groups(sweep.dataset, sweep.split))[-1]
    assert [part["held_out"] for part in linear["parts"]] == list("01345") and linear["n_rows"] == 100


def test_rows_kept_for_the_test_take_no_part():
    X, y, _ = planted(120, 6, n_classes=2, strength=4.0)
    given = np.where(np.arange(120) % 4 == 0, "test", "train")
    task = classes(y)
    held = {"first": np.arange(120) < 60}
    before = transferred(a_sweep(task, X, given=given), held)[-1]
    X[given == "test"], task.y[given == "test"] = 99.0, 0
    after = transferred(a_sweep(task, X, given=given), held)[-1]
    assert before["parts"] == after["parts"] and before["n_rows"] == 45
    with pytest.raises(InputError, match="kept for the final test"):
        transferred(a_sweep(task, X, given=given), {"all": given == "test"})


def test_numbers_transfer_too_and_a_part_without_labels_says_so():
    X, _, _ = planted(120, 6)
    y = X[:, :1] * 3
    y[:30] = np.nan
    held = {"none": np.arange(120) < 30, "some": np.arange(120) >= 90}
    none, some = transferred(a_sweep(numbers(y), X), held)[-1]["parts"]
    assert none["verdict"] == "no labelled row" and none["score"]["value"] is None
    assert some["verdict"].startswith("better") and some["metric"] == "mae"


def test_two_rows_are_no_ground_for_a_verdict():
    X, y, _ = planted(120, 6, n_classes=2, strength=4.0)
    held = {"two": np.arange(120) < 2, "nine": np.arange(120) >= 111, "ten": (np.arange(120) // 10) == 5}
    two, nine, ten = transferred(a_sweep(classes(y), X), held)[-1]["parts"]
    assert (two["n_rows"], nine["n_rows"], ten["n_rows"]) == (2, 9, 10)
    assert two["verdict"] == nine["verdict"] == "too few rows for a verdict: 10 are needed"
    assert ten["verdict"].startswith("better than the baseline") and two["score"]["value"] is not None


def test_what_was_computed_is_not_computed_again(tmp_path):
    X, y, _ = planted(120, 6, n_classes=2)
    board, folder = Leaderboard(tmp_path / "leaderboard.jsonl"), tmp_path / "predictions"
    held = {"first": np.arange(120) < 60}
    first = transfer(a_sweep(classes(y), X), held, board, Predictions(folder))
    again = transfer(a_sweep(classes(y), X), held, board, Predictions(folder))
    assert len(board.entries()) == 2 and [e["parts"] for e in again] == [e["parts"] for e in first]
    transfer(a_sweep(classes(y), X), {"first": np.arange(120) < 50}, board, Predictions(folder))
    assert len(board.entries()) == 4


def test_a_condition_names_its_rows_or_what_is_wrong(tmp_path):
    (tmp_path / "t.csv").write_text("file,instrument,year\na.tif,SEM,2019\nb.tif,TEM,2020\nc.tif,SEM,\n")
    spec = parse_spec({"name": "made", "table": "t.csv"}, "made")
    data = replace(dataset(n=3, folder=tmp_path), spec=spec)
    found = held_out_values(data, ["instrument=SEM", "year = 2020"])
    assert {name: mask.tolist() for name, mask in found.items()} == {
        "instrument=SEM": [True, False, True],
        "year=2020": [False, True, False],
    }
    with pytest.raises(InputError, match=r"no row has it; there is SEM, TEM\. Did you mean 'SEM'"):
        held_out_values(data, ["instrument=SEMM"])
    with pytest.raises(
        InputError, match=r"--hold-out 'instrumnt=SEM': there is no column 'instrumnt'.*Did you mean 'instrument'"
    ):
        held_out_values(data, ["instrumnt=SEM"])
    with pytest.raises(InputError, match="give a column and a value"):
        held_out_values(data, ["SEM"])
    with pytest.raises(InputError, match="--hold-out 'year=': give a column and a value"):
        held_out_values(data, ["year="])
    with pytest.raises(InputError, match="no groups to leave out one by one; add group to dataset"):
        held_out_groups(data, make_split(data, n_folds=3))
