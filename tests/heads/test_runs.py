"""What is run beside a dataset: checked before anything is fitted, kept in ``runs/``."""

from dataclasses import replace
from pathlib import Path

import pytest

from heads import WHOLE, Sweep, open_rows, open_runs, run_folder, run_sweep, save_warnings, sweep_warnings
from store import InputError, Split, make_split
from tests.heads.made import classes, dataset, matrix, planted


def sweep_of(folder: Path, **changed: object) -> Sweep:
    X, y, _ = planted(n=30, d=4, n_classes=2)
    data = dataset(classes(y), n=30, folder=folder)
    return replace(Sweep(data, matrix(data, image_at_texture=X), make_split(data), heads=["linear"]), **changed)


def test_a_sweep_is_kept_beside_its_dataset_and_told_of_entry_by_entry(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    sweep = sweep_of(tmp_path)
    entries = run_sweep(sweep, progress=lambda done, total: heard.append((done, total)))
    board, predictions = open_runs(sweep.dataset)
    assert heard == [(1, 2), (2, 2)] and [entry["head"] for entry in entries] == ["prior", "linear"]
    assert board.known().keys() == {entry["identity"] for entry in entries}
    assert all(len(predictions.of(entry).y) == 30 for entry in entries)


def test_a_head_that_is_no_better_than_none_is_saved_with_a_warning(tmp_path: Path) -> None:
    entries = run_sweep(sweep_of(tmp_path))
    assert save_warnings(entries) == []
    [warning] = save_warnings([entry | {"beats_baseline": False, "verdict": "not told apart"} for entry in entries])
    assert warning == "kind: the saved head is not sure to be worth more than none: not told apart"


def test_final_without_held_out_rows_fits_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row is held out"):
        run_sweep(sweep_of(tmp_path), final=True)
    assert not (tmp_path / "runs").exists()


def test_a_mistyped_name_leaves_no_split_behind(tmp_path: Path) -> None:
    data = sweep_of(tmp_path).dataset
    for asked, words in (
        ({"tasks": ["knid"]}, "Did you mean 'kind'"),
        ({"heads": ["linaer"]}, "Did you mean 'linear'"),
    ):
        with pytest.raises(InputError, match=words):
            open_rows(data, **asked)
    assert not (tmp_path / "splits.json").exists()
    some, split = open_rows(data, subset=12, seed=1)
    assert some.n_rows == 12 and len(split.roles) == 30 and (tmp_path / "splits.json").exists()


def test_rows_without_a_vector_and_an_encoder_that_knows_the_labels_are_named(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    assert sweep_warnings(sweep) == []
    X = sweep.matrix.X.copy()
    X[:3] = float("nan")
    known = {"image@texture": {"tuned_on": sweep.split.fingerprint}}
    flawed = replace(sweep, matrix=replace(sweep.matrix, X=X, provenance=known))
    lacking, flattered = sweep_warnings(flawed)
    assert lacking == "left out: 3 rows without a vector in image@texture"
    assert flattered.startswith("the encoder of image@texture was fine-tuned on rows that are scored here")
    roles = {row: "val" if i % 5 == 0 else "train" for i, row in enumerate(sweep.dataset.ids.tolist())}
    given = replace(flawed, split=Split.of(roles, seed=0, n_folds=0))
    assert sweep_warnings(given) == [lacking]
    for tuned_on, n_warnings in ((given.split.fingerprint, 1), (f"{given.split.fingerprint}{WHOLE}", 2)):
        learned = replace(given.matrix, provenance={"image@texture": {"tuned_on": tuned_on}})
        assert len(sweep_warnings(replace(given, matrix=learned))) == n_warnings  # of train alone, and of val too


def test_rows_without_a_vector_are_one_line_for_all_encoders_of_a_block(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    X = sweep.matrix.X.copy()
    X[:1] = float("nan")
    lacking = {"image__bf_at_a": X, "image__bf_at_b": X.copy(), "image__fl_at_a": X.copy()}
    flawed = replace(sweep, matrix=matrix(sweep.dataset, **lacking))
    assert sweep_warnings(flawed) == [
        "left out: 1 row without a vector in image:bf@a, image:bf@b",
        "left out: 1 row without a vector in image:fl@a",
    ]


def test_a_run_has_a_plain_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = sweep_of(tmp_path).dataset
    assert run_folder(data, "mine") == Path("runs/mine")
    for name in ("", "a/b", "../x"):
        with pytest.raises(InputError, match="give the plain name of a folder"):
            run_folder(data, name)
