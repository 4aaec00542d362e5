"""`predict`: bundles on new files, in parts, drawn, moved, changed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import extract
from heads import load_bundle, prediction_words
from store import FeatureSpace
from tests.cli.commands import Make, cut_in_half, run, run_json


def test_a_bundle_predicts_new_files_and_moves(make_dataset: Make, tmp_path: Path) -> None:
    spec = make_dataset()
    run("heads", "--data", spec, "--save")
    folder, out = tmp_path / "elsewhere", tmp_path / "out.csv"
    shutil.copytree(spec.parent / "runs" / "heads", folder / "bundle")
    shutil.copytree(spec.parent / "images", folder / "new")
    result = run("predict", spec.parent / "runs" / "heads", spec.parent / "labels.csv", "--out", out)
    assert re.fullmatch(r"24 rows in \d+\.\d s, \d+(\.\d)? rows/s on (cpu|cuda)", result.stderr.splitlines()[-1])
    expected = pd.read_csv(out)
    for name in ("images", "runs", "features.zarr"):
        shutil.rmtree(spec.parent / name)
    run("predict", folder / "bundle", folder / "new", "--out", folder / "out.csv")
    found = pd.read_csv(folder / "out.csv")
    columns = ["id", "kind", "kind_p_plain", "kind_p_striped", "kind_set", "ood_distance", "status"]
    assert list(found.columns) == columns
    assert set(found["id"]) == {path.name for path in (folder / "new").iterdir()}
    order = [int(name[-6:-4]) for name in found["id"]]
    for column in found.columns[1:]:
        assert list(found[column]) == list(expected[column].iloc[order])
    assert list(found["kind"]) == ["striped" if i % 2 == 0 else "plain" for i in order]


def test_a_bundle_moves_with_its_dataset_and_names_no_folder_of_this_machine(
    make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    spec = make_dataset(folder=home)
    spec.write_text(spec.read_text().replace('root = "images"', f"root = '{home / 'images'}'"))
    network = extract.load_backbone("test_resnet", weights="random", seed=0)
    extract.save_backbone(network, home / "net")
    monkeypatch.chdir(tmp_path)
    run("extract", "--data", spec, "--backbone", "home/net", "--device", "cpu")
    run("heads", "--data", spec, "--blocks", "image", "--head", "linear", "--save")
    run("predict", home / "runs" / "heads", home / "labels.csv", "--out", tmp_path / "a.csv")
    assert str(tmp_path) not in (home / "runs" / "heads" / "bundle.json").read_text()
    home.rename(tmp_path / "new")
    shutil.rmtree(tmp_path / "new" / "features.zarr")
    monkeypatch.chdir("/")
    run("predict", tmp_path / "new" / "runs" / "heads", tmp_path / "new" / "labels.csv", "--out", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(("key", "value"), [("weights_digest", "0" * 64), ("crop_bottom_px", 3), ("convert", "log")])
def test_a_bundle_whose_space_was_changed_is_refused(make_dataset: Make, key: str, value: object) -> None:
    spec = make_dataset()
    run("heads", "--data", spec, "--save", "--head", "linear")
    document = spec.parent / "runs" / "heads" / "bundle.json"
    content = json.loads(document.read_text())
    for block in content["blocks"]:
        if block["space"]:
            block["space"][key] = value
    document.write_text(json.dumps(content))
    result = run("predict", spec.parent / "runs" / "heads", spec.parent / "images", code=2)
    assert "has fingerprint" in result.stderr and "bundle.json was changed" in result.stderr


def test_a_bundle_of_other_weights_names_what_differs(make_dataset: Make) -> None:
    spec = make_dataset()
    run("heads", "--data", spec, "--save", "--head", "linear")
    document = spec.parent / "runs" / "heads" / "bundle.json"
    content = json.loads(document.read_text())
    block = next(block for block in content["blocks"] if block["space"])
    block["space"]["weights_digest"] = "0" * 64
    block["fingerprint"] = FeatureSpace.from_json(json.dumps(block["space"])).fingerprint
    document.write_text(json.dumps(content))
    result = run("predict", spec.parent / "runs" / "heads", spec.parent / "images", code=2)
    assert "weights_digest" in result.stderr


def test_predictions_come_in_parts_as_they_would_in_one(
    make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = '[tasks.size]\ncolumn = "size"\nwhen = "kind == \'striped\'"\n[texts.note]\ncolumn = "note"\n'
    spec = make_dataset(extra)
    (spec.parent / "images" / "s_400X_05.tif").write_text("no image\n")
    run("heads", "--data", spec, "--save", "--head", "linear", code=3)
    words = ["predict", spec.parent / "runs" / "heads", spec.parent / "labels.csv", "--store"]
    whole = run_json(*words, tmp_path / "one.zarr", "--out", tmp_path / "whole.csv", code=3)
    sizes: list[int] = []
    real = extract.extract_features

    def spied(dataset: Any, *args: Any, **options: Any) -> Any:
        sizes.append(dataset.n_rows)
        return real(dataset, *args, **options)

    monkeypatch.setattr("extract.extract_features", spied)
    monkeypatch.setattr("cli.ROWS_AT_ONCE", 7)
    result = run(*words, tmp_path / "two.zarr", "--out", tmp_path / "parts.csv", code=3)
    assert sizes == [7, 7, 7, 3] and result.stdout.startswith(f"{tmp_path / 'parts.csv'}: 24 rows, 1 of them without")
    assert "image:bf@texture: 23 embedded, 0 present, 1 failed" in result.stderr and "row 'r05'" in result.stderr
    assert (whole["rows"], whole["failed"]) == (24, 1)
    first, second = pd.read_csv(tmp_path / "whole.csv"), pd.read_csv(tmp_path / "parts.csv")
    pd.testing.assert_frame_equal(first, second, rtol=1e-5)
    assert "size_p_applies" in first and not list(tmp_path.glob(".parts*"))


def test_predictions_are_drawn_into_copies_and_rows_that_fail_are_named(make_dataset: Make, tmp_path: Path) -> None:
    extra = '[tasks.size]\ncolumn = "size"\nunit = "nm"\nwhen = "kind == \'striped\'"\n'
    spec, out = make_dataset(extra), tmp_path / "drawn"
    run("heads", "--data", spec, "--save", "--head", "linear")
    new = tmp_path / "new"
    shutil.copytree(spec.parent / "images", new / "sub")
    cut_in_half(new / "sub" / "s_200X_03.tif")
    words = ["predict", spec.parent / "runs" / "heads", new, "--out", tmp_path / "p.csv", "--draw", out]
    drawn = run_json(*words, code=3)["drawn"]
    assert (drawn["folder"], drawn["images"], list(drawn["left_out"])) == (str(out), 23, ["sub/s_200X_03.tif"])
    assert sorted(path.name for path in (out / "sub").iterdir()) == sorted(
        f"{path.name}.png" for path in (new / "sub").iterdir() if path.name != "s_200X_03.tif"
    )
    shown = run(*words, code=3).stdout.splitlines()
    assert shown[1] == f"{out}: 23 images, 1 row without" and shown[2].startswith("  row 'sub/s_200X_03.tif': ")
    run(*words[:-1], new / "drawn", code=2)
    row = {"kind": "plain", "kind_p_plain": 0.876, "size": 12.3456, "size_p_applies": 0.25}
    lines = prediction_words(load_bundle(spec.parent / "runs" / "heads"), row)
    assert lines == ["kind: plain 0.88", "size: 12.35 nm, applies 0.25"]


def test_a_stopped_prediction_leaves_the_earlier_file(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_dataset()
    run("heads", "--data", spec, "--save", "--head", "linear")
    words = ["predict", spec.parent / "runs" / "heads", spec.parent / "images", "--out", spec.parent / "out.csv"]
    run(*words)
    before = (spec.parent / "out.csv").read_text()
    real, calls = extract.extract_features, iter([True, False])

    def stopped(*args: Any, **options: Any) -> Any:
        if next(calls):
            return real(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("extract.extract_features", stopped)
    run(*words, code=130)
    assert (spec.parent / "out.csv").read_text() == before and not list(spec.parent.glob(".out*"))


@pytest.mark.slow
def test_the_number_of_files_to_predict_costs_no_memory_but_for_their_names() -> None:
    bench = Path(__file__).parents[1] / "benchmarks" / "bench_memory.py"
    words = [sys.executable, str(bench), "--predict", "--rows", "4500", "12500"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    few, many = map(json.loads, lines)
    assert many["predicted_mb"] < few["predicted_mb"] + 24, "8,000 rows of vectors and predictions alone are 32 MB"


def test_a_bad_cell_costs_the_prediction_of_its_row_alone(make_dataset: Make, tmp_path: Path) -> None:
    spec = make_dataset('[metadata.size]\ncolumn = "size"\n')
    run("heads", "--data", spec, "--head", "linear", "--blocks", "metadata", "--save")
    table, out = spec.parent / "labels.csv", tmp_path / "out.csv"
    run("predict", spec.parent / "runs" / "heads", table, "--out", out)
    whole = pd.read_csv(out)
    (spec.parent / "new.csv").write_text(table.read_text().replace(",3.5,", ",3.5 um,", 1))
    result = run("predict", spec.parent / "runs" / "heads", spec.parent / "new.csv", "--out", out, code=3)
    assert "24 rows, 1 of them without a prediction" in result.stdout
    found = pd.read_csv(out)
    assert found["status"][3] == "metadata 'size': '3.5 um' is no number"
    assert found.loc[3, ["kind", "kind_p_plain", "ood_distance"]].isna().all()
    pd.testing.assert_frame_equal(found.drop(3), whole.drop(3))
