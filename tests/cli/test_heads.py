"""`heads` and the other commands that fit heads, or show what was fitted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

from cli import app
from heads import load_bundle
from store import write_sample
from tests.cli.commands import Make, cut_in_half, run, run_json


def test_heads_find_the_planted_signal_and_say_what_it_is_worth(make_dataset: Make) -> None:
    spec = make_dataset()
    document = run_json("heads", "--data", spec)  # embeds with the built-in encoder first
    entries = document["entries"]
    keys = {"task", "kind", "blocks", "head", "split", "metrics", "n_rows", "n_groups", "baseline", "seconds", "seed"}
    assert all(keys <= set(entry) for entry in entries)
    prior = next(entry for entry in entries if entry["head"] == "prior")
    image = next(e for e in entries if e["blocks"] == ["image:bf@texture"] and e["head"] == "linear")
    assert prior["blocks"] == [] and image["metrics"]["accuracy"]["value"] == 1
    assert image["metrics"]["accuracy"]["low"] > prior["metrics"]["accuracy"]["high"]
    assert image["beats_baseline"] and image["n_groups"] == 8
    lines = (spec.parent / "runs" / "leaderboard.jsonl").read_text().splitlines()
    assert len(lines) == len(entries) + 1  # and the best one once more under one random split
    again = run_json("heads", "--data", spec)
    assert again["entries"][0]["metrics"] == entries[0]["metrics"]
    assert [again[key] for key in ("comparisons", "group_gap")] == [document["comparisons"], document["group_gap"]]
    [texture] = [line for line in document["comparisons"] if line["block"] == "image:bf@texture" and line["is_main"]]
    assert texture["beside"] == ["metadata"] and texture["verdict"] == "helps"
    assert [line["random"]["value"] for line in document["group_gap"]] == [1]
    assert Path(document["chart"]).resolve() == spec.parent / "runs" / "scores.png" and Path(document["chart"]).exists()
    words = run("heads", "--data", spec).stdout
    assert texture["words"] in words and document["group_gap"][0]["words"] in words


def test_regression_and_conditions_stand_beside_their_baseline(make_dataset: Make) -> None:
    rng = np.random.default_rng(0)
    extra = '[tasks.size]\ncolumn = "size"\nwhen = "kind == \'striped\'"\n'
    spec = make_dataset(extra)
    entries = run_json("heads", "--data", spec, "--task", "size", "--head", "linear", "--seed", rng.integers(9))[
        "entries"
    ]
    assert {entry["kind"] for entry in entries} == {"regression"} and entries[0]["n_rows"] == 12
    assert set(entries[0]["metrics"]) == {"mae", "rmse", "r2", "mape", "median_ae"}
    assert entries[0]["baseline"]["mae"] > 0


def test_audit_names_duplicates_and_doubtful_labels_and_merges(make_dataset: Make) -> None:
    spec = make_dataset()
    images, table = spec.parent / "images", spec.parent / "labels.csv"
    shutil.copy(images / "s_200X_00.tif", images / "s_200X_18.tif")  # r00 of specimen g0, r18 of g6
    table.write_text(table.read_text().replace("s_300X_04.tif,striped", "s_300X_04.tif,plain"))
    found = run_json("audit", "--data", spec)
    [pair] = [pair for pair in found["duplicates"] if pair["kind"] == "exact"]
    assert (pair["a"], pair["b"], pair["groups"]) == ("r00", "r18", ["g0", "g6"]) and "groups" in pair["crosses"]
    assert found["labels"]["kind"]["labels"][0]["id"] == "r04"
    words = run("audit", "--data", spec).stdout
    assert "r18" in words and "labels is not what other rows suggest" in words
    merged = run_json("audit", "--data", spec, "--merge")["merged"]
    assert ["r00", "r18"] in merged
    again = run_json("audit", "--data", spec)
    assert not [pair for pair in again["duplicates"] if pair["kind"] == "exact"]
    assert run_json("heads", "--data", spec, "--head", "linear")["entries"][-1]["n_groups"] < 8


def test_without_duplicates_merging_leaves_the_split_as_it_is(make_dataset: Make) -> None:
    spec = make_dataset()
    before = run_json("audit", "--data", spec)
    assert before["duplicates"] == [] and "merged" not in before
    made = (spec.parent / "splits.json").read_bytes()
    result = run("audit", "--data", spec, "--merge", "--json")
    assert json.loads(result.stdout)["merged"] == [] and "made anew" not in result.stderr
    assert (spec.parent / "splits.json").read_bytes() == made


def test_transfer_scores_what_was_never_seen(make_dataset: Make) -> None:
    spec = make_dataset()
    words = ["transfer", "--data", spec, "--blocks", "image"]
    prior, linear = run_json(*words, "--hold-out", "specimen=g1", "--hold-out", "file=s_400X_08.tif")["entries"]
    assert [part["held_out"] for part in linear["parts"]] == ["specimen=g1", "file=s_400X_08.tif"]
    assert [part["n_rows"] for part in prior["parts"]] == [3, 1]
    assert linear["parts"][0]["score"]["value"] == 1
    groups = run_json(*words, "--leave-one-group-out")["entries"][-1]["parts"]
    assert [part["held_out"] for part in groups] == [f"g{i}" for i in range(8)]
    assert "never seen" in run(*words).stdout  # each group in turn is what nothing else asks for
    assert "Default without --hold-out" in " ".join(run("transfer", "--help").stdout.split())
    assert "Did you mean 'specimen'" in run(*words, "--hold-out", "specimn=g1", code=2).stderr
    of_two = run("transfer", "--data", spec, "--hold-out", "specimen=g1").stdout
    assert "entries on the same rows is flattered: --blocks and --head name one" in of_two
    assert "flattered" not in run(*words, "--hold-out", "specimen=g1").stdout
    every = run(*words, "--hold-out", "magnification=400", code=2).stderr  # of every specimen
    assert "no row is left to fit on, since every other row shares a group with one that has it" in every


def test_curve_says_whether_more_labels_would_help(make_dataset: Make) -> None:
    spec = make_dataset(n_rows=60)
    table = spec.parent / "labels.csv"
    lines = table.read_text().splitlines()
    lines[10] = lines[10].replace("plain", "").replace("striped", "")  # a row without a label
    table.write_text("\n".join(lines))
    [found] = run_json("curve", "--data", spec, "--blocks", "image")["curves"]
    assert [point["n_rows"] for point in found["points"]] == sorted(point["n_rows"] for point in found["points"])
    assert found["points"][-1]["value"] == 1 and found["words"].startswith("no sign that more labels would help")
    assert found["self_training"]["n_unlabelled"] == 1
    words = run("curve", "--data", spec, "--blocks", "image").stdout
    assert found["words"] in words and "self-trained" in words and "labels spread" in words


def test_a_folder_without_labels_takes_part_in_the_curve(make_dataset: Make, tmp_path: Path) -> None:
    spec, new = make_dataset(n_rows=60), tmp_path / "new"
    shutil.copytree(make_dataset(n_rows=12, folder=tmp_path / "other").parent / "images", new)
    cut_in_half(new / "s_200X_00.tif")
    words = ["curve", "--data", spec, "--unlabelled", new]
    result = run(*words, "--json", code=3)
    [found] = json.loads(result.stdout)["curves"]
    assert found["self_training"]["n_unlabelled"] == 11 and "row 's_200X_00.tif'" in result.stderr
    assert "no such folder or table" in run(*words[:-1], tmp_path / "nowhere", code=2).stderr


def test_robustness_embeds_what_is_missing_and_scores_held_out_rows_disturbed(make_dataset: Make) -> None:
    spec = make_dataset()
    run("extract", "--data", spec, "--backbone", "texture", "--turns", "none")
    words = ["robustness", "--data", spec, "--blocks", "image", "--view", "png", "--view", "gaussian_noise:0.5"]
    document = run_json(*words)
    [found] = document["robustness"]
    png, noise = found["points"]
    assert (png["view"], png["verdict"], png["difference"]["value"]) == ("png:8", "no change", 0)
    assert found["clean"]["value"] == 1 and noise["score"]["value"] < 1 and noise["verdict"].startswith("worse")
    assert document["chart"].endswith("robustness.png") and Path(document["chart"]).exists()
    assert not Path(document["chart"]).is_absolute()
    result = run(*words)
    assert "0 embedded, 24 present" in result.stderr and "no change under png:8" in result.stdout
    run("robustness", "--data", spec, "--view", "blurr", code=2)
    entries = run_json("heads", "--data", spec, "--head", "linear")["entries"]
    assert not any("png" in block for entry in entries for block in entry["blocks"])  # clean vectors alone are swept


def test_leaderboard_ranks_what_is_stored(make_dataset: Make) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\n')
    assert "no result as asked for; run heads or finetune first" in run("leaderboard", "--data", spec, code=2).stderr
    entries = run_json("heads", "--data", spec, "--head", "linear")["entries"]
    found = run_json("leaderboard", "--data", spec, "--task", "kind")["entries"]
    assert [row["value"] for row in found] == sorted(
        (e["metrics"]["accuracy"]["value"] for e in entries if e["task"] == "kind"), reverse=True
    )
    shown = run("leaderboard", "--data", spec, "--blocks", "metadata").stdout
    assert "kind, cv, 24 rows" in shown and "size, cv, 24 rows" in shown and "image:" not in shown
    assert "not told apart from the best" in shown and "stop rows" not in shown


def test_leaderboard_shows_held_out_rows_last_and_marked(make_dataset: Make) -> None:
    spec = make_dataset()
    table = pd.read_csv(spec.parent / "labels.csv")
    table["part"] = ["test" if group in ("g1", "g4") else "train" for group in table["specimen"]]
    table.to_csv(spec.parent / "labels.csv", index=False)
    spec.write_text('split = "part"\n' + spec.read_text())
    entries = run_json("heads", "--data", spec, "--head", "linear", "--final", "--folds", "3", "--save")["entries"]
    [final] = [e for e in entries if e["split"] == "test" and e["blocks"]]
    [kept] = load_bundle(spec.parent / "runs" / "heads").models["kind"].scores["held_out"]
    assert kept["split"] == "test" and kept["metrics"] == final["metrics"]
    found = run_json("leaderboard", "--data", spec)["entries"]
    assert [row["is_held_out"] for row in found] == [False] * 4 + [True] * 2
    assert found[4]["value"] == final["metrics"]["accuracy"]["value"] and found[5]["head"] == "prior"
    shown = run("leaderboard", "--data", spec).stdout
    assert shown.index("kind, cv, 18 rows") < shown.index("kind, test (held out), 6 rows")
    assert "held out: to be read, not to choose by" in shown


def test_a_bundle_of_more_tasks_is_not_replaced_in_silence(make_dataset: Make) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\n')
    words = ["heads", "--data", spec, "--head", "linear", "--save"]
    run(*words)
    refused = run(*words, "--task", "kind", code=2).stderr
    assert "holds a bundle of size too, which --save would replace by one of kind alone" in refused
    runs = spec.parent / "runs"
    assert list(load_bundle(runs / "heads").models) == ["kind", "size"]
    run(*words, "--task", "kind", "--name", "kinds")
    assert list(load_bundle(runs / "kinds").models) == ["kind"]
    run(*words)  # what has the same tasks is replaced
    document = json.loads((runs / "kinds" / "bundle.json").read_text()) | {"kind": "finetune"}
    (runs / "kinds" / "bundle.json").write_text(json.dumps(document))
    assert "kinds: holds a fine-tuned network" in run(*words, "--name", "kinds", code=2).stderr


def test_conversions_are_embedded_ranked_and_compared(make_dataset: Make) -> None:
    spec = make_dataset()
    words = ["conversions", "--data", spec, "--convert", "log", "--convert", "fixed"]
    document = run_json(*words)
    assert sum(row["rank"] for row in document["conversions"]) == 1 + 2 + 3
    assert {row["convert"] for row in document["ranks"]} == {"percentile_stretch", "log", "fixed"}
    assert all(row["block"] == "image:bf@texture" for row in document["conversions"])
    result = run(*words)
    assert result.stderr.count("0 embedded, 24 present") == 3
    assert "percentile_stretch (default)" in result.stdout and "Over all tasks" not in result.stdout
    for path in (spec.parent / "images").iterdir():
        tifffile.imwrite(path, (tifffile.imread(path) / 16).astype(np.uint8))
    flat = ["conversions", "--data", spec, "--store", spec.parent / "8.zarr"]
    assert "no image has more than 8 bits" in run(*flat, code=2).stderr


def test_final_without_a_test_set_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    spec = write_sample("tem", tmp_path / "tem", n_rows=40)
    result = CliRunner().invoke(app, ["heads", "--data", str(spec), "--task", "usability", "--final"])
    assert result.exit_code == 2
    assert "no row is held out" in result.stderr
    assert not (tmp_path / "tem" / "runs" / "leaderboard.jsonl").exists()


def test_report_shows_where_the_best_results_err(make_dataset: Make, tmp_path: Path) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\n[texts.note]\ncolumn = "note"\n')
    assert "nothing is stored yet: run heads --task kind" in run("report", "--data", spec, code=2).stderr
    run("extract", "--data", spec)
    run("heads", "--data", spec, "--head", "linear", "--blocks", "metadata")  # the magnification says little
    found = run_json("report", "--data", spec)
    kind, size = found["reports"]
    assert (kind["task"], kind["split"], kind["n_rows"], found["missing"]) == ("kind", "cv", 24, {})
    rows = pd.read_csv(spec.parent / "runs/report/kind-cv.csv")
    assert list(rows["id"]) == [f"r{i:02d}" for i in range(24)] and rows["is_wrong"].sum() == kind["n_wrong"] > 0
    counts = np.array(kind["confusion"]["counts"])
    assert (rows["label"] != rows["predicted"]).sum() == counts.sum() - np.trace(counts) == len(kind["wrong"])
    assert kind["metrics"]["accuracy"]["value"] == pytest.approx(1 - rows["is_wrong"].mean())
    assert rows["text_note"][0] == "a striped one" and set(size["outputs"][0]["metrics"]) >= {"mae", "mape", "r2"}
    far = pd.read_csv(size["files"]["rows"])
    assert far["error"].abs().max() == pytest.approx(abs(size["farthest"][0]["error"]))
    for files in (kind["files"], size["files"]):
        assert all(Path(files[name]).read_bytes().startswith(b"\x89PNG") for name in ("chart", "sheet"))
    words = run("report", "--data", spec, "--task", "kind", "--out", tmp_path / "here").stdout
    assert "kind, 24 rows of cv: metadata, linear" in words and "weighted mean" in words
    assert (tmp_path / "here" / "kind-cv-confusion.png").exists()
    assert "no stored result is as asked for" in run("report", "--data", spec, "--head", "lightgbm", code=2).stderr


def test_mistyped_blocks_cost_no_embedding(make_dataset: Make) -> None:
    spec = make_dataset()
    result = run("heads", "--data", spec, "--blocks", "imagee", code=2)
    assert "'imagee' fits no block" in result.stderr and "Did you mean 'image'?" in result.stderr
    assert "embedded" not in result.stderr and not (spec.parent / "features.zarr").exists()
    for words in ("image@texture+metadata", "texture", "metadata"):
        assert run_json("heads", "--data", spec, "--blocks", words, "--head", "linear")["entries"]


def test_the_keys_of_what_is_fitted_and_shown_are_written_down(make_dataset: Make) -> None:
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    spec = make_dataset()
    (spec.parent / "images" / "s_200X_00.tif").replace(
        spec.parent / "images" / "s_200X_06.tif"
    )  # a file that is lacking
    words = ["--data", spec, "--blocks", "image", "--blocks", "metadata"]
    found = {
        "check": run_json("check", "--data", spec, code=3),
        "explore": run_json("explore", "--data", spec, code=3),
        "heads": run_json("heads", *words, code=3),
        "leaderboard": run_json("leaderboard", "--data", spec),
        "report": run_json("report", "--data", spec, code=3),
        "audit": run_json("audit", *words),
        "transfer": run_json("transfer", *words, "--hold-out", "specimen=g1"),
    }
    of_an_interval = {"value", "low", "high", "schema_version"}  # said at the top
    for command, document in found.items():
        inner = {key for value in document.values() if isinstance(value, list) for row in value[:1] for key in row}
        assert not [key for key in {*document, *inner} - of_an_interval if f"`{key}`" not in page], command
