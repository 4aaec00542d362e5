"""The command line as a user meets it: exit codes, words, and the files left behind."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner, Result

import extract
from cli import app
from heads import HEADS, load_bundle, prediction_words
from store import SAMPLES, FeatureSpace, write_sample

Make = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[1]


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def run_json(*words: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*words, "--json", code=code).stdout)
    return found


def repaint(path: Path) -> None:
    pixels = tifffile.imread(path)
    tifffile.imwrite(path, pixels[::-1] + 1)


def test_help_answers_quickly_and_ends_with_an_example() -> None:
    commands = ["sample", "check", "explore", "extract", "heads", "predict", "demo", "slurm", "finetune"]
    for command in commands:
        assert "Example: python cli.py" in run(command, "--help").stdout.strip().splitlines()[-1]
    before = os.times()
    words = [sys.executable, "-X", "importtime", ROOT / "cli.py", "--help"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    after = os.times()
    assert all(command in done.stdout for command in commands)
    assert not re.search(r"\| +(torch|numpy|pandas|pydantic|zarr|store|extract|heads|finetune)$", done.stderr, re.M)
    assert re.search(r"\| +typer$", done.stderr, re.M)
    assert after.children_user - before.children_user < 1  # seconds of a processor; a quarter on a quiet machine


def test_help_of_a_sweep_names_every_head() -> None:
    [line] = [line for line in run("heads", "--help").stdout.splitlines() if line.strip().startswith("--head ")]
    assert all(name in line for name in HEADS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extrct"], "No such command 'extrct'. Did you mean 'extract'"),
        (["extract", "--backbon", "texture"], "--backbone"),
        (["extract", "--precision", "bfloat"], "'bfloat' is not one of 'float32', 'bfloat16', 'float16'. Did you mean"),
        (["slurm", "extrat"], "Did you mean 'extract'?"),
        (["store", "lss"], "No such command 'lss'. Did you mean 'ls'"),
        (["heads", "--seed", "abc"], "Invalid value for '--seed': expected a whole number"),
        (["heads", "--jobs", "0"], "Invalid value for '--jobs': expected a number from 1 on"),
    ],
)
def test_a_mistyped_word_gets_the_nearest(words: list[str], message: str) -> None:
    result = run(*words, code=2)
    assert message in result.stderr and "Value error" not in result.stderr and "Input should" not in result.stderr


def test_help_of_sample_lists_the_registry() -> None:
    shown = run("sample", "--help").stdout
    assert all(f"  {name} " in shown and f"{sample.n_rows} rows" in shown for name, sample in SAMPLES.items())


def test_a_second_extract_embeds_nothing(make_dataset: Make) -> None:
    spec = make_dataset()
    first = run_json("extract", "--data", spec, "--backbone", "texture")["spaces"][0]
    again = run_json("extract", "--data", spec, "--backbone", "texture")["spaces"][0]
    assert (first["embedded"], first["present"], first["failed"]) == (24, 0, 0)
    assert (again["embedded"], again["present"], again["failed"]) == (0, 24, 0)
    assert first["fingerprint"] == again["fingerprint"] and first["name"] == "image:bf@texture"


def test_one_changed_image_costs_one_row_and_a_new_name_or_date_none(make_dataset: Make) -> None:
    spec = make_dataset()
    images = spec.parent / "images"
    run("extract", "--data", spec)
    os.utime(images / "s_200X_00.tif", (1, 1))
    (images / "s_300X_01.tif").rename(images / "s_300X_99.tif")
    table = spec.parent / "labels.csv"
    table.write_text(table.read_text().replace("s_300X_01.tif", "s_300X_99.tif"))
    assert run_json("extract", "--data", spec)["spaces"][0]["embedded"] == 0
    repaint(images / "s_400X_02.tif")
    assert run_json("extract", "--data", spec)["spaces"][0]["embedded"] == 1


def test_a_changed_conversion_is_another_space(make_dataset: Make) -> None:
    spec = make_dataset()
    first = run_json("extract", "--data", spec)["spaces"][0]
    spec.write_text(spec.read_text().replace('column = "file"', 'column = "file"\nconvert = "linear"'))
    other = run_json("extract", "--data", spec)["spaces"][0]
    assert other["embedded"] == 24 and other["fingerprint"] != first["fingerprint"]


def test_half_precision_vectors_are_another_space(make_dataset: Make) -> None:
    spec = make_dataset()
    first = run_json("extract", "--data", spec)["spaces"][0]
    half = run_json("extract", "--data", spec, "--dtype", "float16")["spaces"][0]
    assert half["embedded"] == 24 and half["fingerprint"] != first["fingerprint"]
    spaces = run_json("store", "ls", "--data", spec)["spaces"]
    assert {(space["dtype"], space["rows"]) for space in spaces} == {("float32", 24), ("float16", 24)}


def cut_in_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def huge_png(path: Path) -> None:
    header = b"IHDR" + (70_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    crc = __import__("zlib").crc32(header).to_bytes(4, "big")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + crc)


BROKEN = {
    "cut in half": cut_in_half,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no image at all\n"),
    "huge": huge_png,
    "absent": Path.unlink,
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_keeps_its_row_and_the_rest_goes_on(make_dataset: Make, case: str) -> None:
    spec = make_dataset()
    BROKEN[case](spec.parent / "images" / "s_400X_05.tif")
    result = run("extract", "--data", spec, code=3)
    assert "row 'r05'" in result.stderr and "Traceback" not in result.output
    found = run_json("extract", "--data", spec, code=3)["spaces"][0]
    assert (found["rows"], found["embedded"], found["present"], found["failed"]) == (24, 0, 23, 1)
    problems = run_json("check", "--data", spec, code=3)["problems"]
    named = [problem["kind"] for problem in problems for example in problem["examples"] if "r05" in example]
    assert named == ["missing_file" if case == "absent" else "unreadable_image"]
    entries = run_json("heads", "--data", spec, "--head", "linear", code=3)["entries"]
    assert entries[-1]["n_rows"] == 23
    assert run_json("report", "--data", spec, code=3)["reports"][0]["n_left_out"] == 1
    out = spec.parent / "predictions.csv"
    run("heads", "--data", spec, "--head", "linear", "--save", code=3)
    found = run_json("predict", spec.parent / "runs/heads", spec.parent / "labels.csv", "--out", out, code=3)
    assert found["rows"] == 24 and found["failed"] == 1
    table = pd.read_csv(out)
    assert list(table["id"]) == [f"r{i:02d}" for i in range(24)] and table["kind"].isna().sum() == 1
    assert (table["status"] == "ok").sum() == 23 and len(table["status"][5]) > 4


def test_a_repaired_image_is_tried_again(make_dataset: Make) -> None:
    spec = make_dataset()
    image = spec.parent / "images" / "s_400X_05.tif"
    whole = image.read_bytes()
    cut_in_half(image)
    run("extract", "--data", spec, code=3)
    image.write_bytes(whole)
    assert run_json("extract", "--data", spec)["spaces"][0]["embedded"] == 1


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
    assert len(lines) == len(entries) + 1  # and the best one once more under a random split
    again = run_json("heads", "--data", spec)
    assert again["entries"][0]["metrics"] == entries[0]["metrics"]
    assert [again[key] for key in ("comparisons", "group_gap")] == [document["comparisons"], document["group_gap"]]
    [texture] = [line for line in document["comparisons"] if line["block"] == "image:bf@texture" and line["is_main"]]
    assert texture["beside"] == ["metadata"] and texture["verdict"] == "helps"
    assert [line["random"]["value"] for line in document["group_gap"]] == [1]
    assert Path(document["chart"]).resolve() == spec.parent / "runs" / "scores.png" and Path(document["chart"]).exists()
    words = run("heads", "--data", spec).stdout
    assert texture["words"] in words and document["group_gap"][0]["words"] in words


def test_json_prints_one_document_and_nothing_else(make_dataset: Make) -> None:
    spec = make_dataset()
    for words in (["extract"], ["check"], ["heads"], ["store", "ls"], ["store", "verify"]):
        document = run_json(*words, "--data", spec)
        assert isinstance(document, dict)


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


BAD = {
    "a mistyped option": (["extract", "--bakbone", "texture"], "No such option: --bakbone"),
    "a mistyped command": (["extrakt"], "No such command 'extrakt'"),
    "an unknown backbone": (["extract", "--backbone", "efficientnetb0"], "Did you mean 'efficientnet_b0'"),
    "a missing spec": (["check", "--data", "nowhere.toml"], "no such file"),
    "an unknown task": (["heads", "--task", "knid"], "Did you mean 'kind'"),
    "an unknown head": (["heads", "--head", "linaer"], "Did you mean 'linear'"),
    "weights that are not there": (
        ["extract", "--backbone", "resnet18", "--weights", "nowhere.safetensors"],
        "nowhere.safetensors",
    ),
    "no bundle": (["predict", ".", "images"], "is no bundle"),
    "a mistyped setting": (["finetune", "--set", "max_epoch=2"], "max_epochs"),
    "an unknown sample": (["sample", "temm"], "Did you mean 'tem'"),
    "a sample over other files": (["sample", "tem", "images"], "is not empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(make_dataset: Make, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    spec = make_dataset()
    monkeypatch.chdir(spec.parent)
    words, message = BAD[case]
    before = sorted(path.name for path in spec.parent.iterdir())
    result = run(*words, code=2)
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stdout == ""
    left = {path.name for path in spec.parent.iterdir()} - set(before)
    assert not left - {"splits.json", "features.zarr"}


def test_weights_out_of_reach_name_the_three_ways_out(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(make_dataset().parent / "no-cache"))
    result = run("extract", "--data", make_dataset(), "--backbone", "test_vit.r160_in1k", code=2)
    assert "--weights random" in result.stderr and "--weights FILE-OR-FOLDER" in result.stderr


def test_a_folder_without_a_dataset_gets_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.write", lambda name, folder: write_sample(name, folder, n_rows=40))
    result = run("heads", "--task", "particle_count", "--head", "linear")
    assert "making the built-in sample in ./tem" in result.stderr and "using the built-in encoders" in result.stderr
    assert "particle_count" in result.stdout and (tmp_path / "tem" / "runs" / "leaderboard.jsonl").exists()


def test_ctrl_c_keeps_what_was_finished(make_dataset: Make) -> None:
    spec = make_dataset(n_rows=24)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extract.extract_features", interrupt)
        result = run("extract", "--data", spec, code=130)
    assert "the same command goes on from there" in result.stderr


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


def test_vectors_are_exported_in_dataset_order_and_come_back(make_dataset: Make, tmp_path: Path) -> None:
    spec, out = make_dataset(), tmp_path / "bf.npz"
    name = run_json("extract", "--data", spec)["spaces"][0]["name"]
    fingerprint = run_json("store", "ls", "--data", spec)["spaces"][0]["fingerprint"]
    for space in (name, "image@texture", fingerprint[:10]):
        found = run_json("store", "export", space, "--data", spec, "--to", "npz", "--out", out)
        assert (found["name"], found["rows"], found["left_out"]) == (name, 24, [])
    with np.load(out) as arrays:
        assert arrays["ids"].tolist() == pd.read_csv(spec.parent / "labels.csv")["sample"].tolist()
        assert arrays["X"].shape[0] == len(set(arrays["keys"])) == 24 and arrays["X"].dtype == np.float32
    other = ["--store", tmp_path / "other.zarr"]
    found = run_json("store", "import", out, *other)
    place = {"name": "image@texture", "fingerprint": fingerprint}
    assert found == place | {"rows": 24, "present": 0, "repeated": 0}
    assert run_json("extract", "--data", spec, *other)["spaces"][0]["embedded"] == 0
    told = run("store", "import", out, *other).stdout
    assert told == f"0 vectors stored in image@texture ({fingerprint[:12]}), 24 there already\n"
    with np.load(out) as arrays:
        doubled = {"keys": np.tile(arrays["keys"], 2), "X": np.tile(arrays["X"], (2, 1))}
    np.savez(out, **doubled)
    words = ["store", "import", out, "--space", fingerprint, *other]
    assert run(*words).stdout.endswith(", 24 there already, 24 repeated in the file\n")
    np.savez(out, keys=doubled["keys"][:24], X=doubled["X"][:24] * 1.01)
    assert "24 of its keys (" in run(*words, code=2).stderr


def test_an_export_says_which_rows_it_lacks(make_dataset: Make, tmp_path: Path) -> None:
    spec, out = make_dataset(), tmp_path / "bf.csv"
    cut_in_half(spec.parent / "images" / "s_400X_05.tif")
    run("extract", "--data", spec, code=3)
    words = ["store", "export", "image:bf@texture", "--data", spec, "--out", out]
    assert run_json(*words, "--to", "csv", code=3)["left_out"] == ["r05"]
    assert "23 rows of image:bf@texture, 1 without a vector" in run(*words, "--to", "csv", code=3).stdout
    assert "Did you mean 'parquet'" in run(*words, "--to", "parket", code=2).stderr
    assert "Did you mean 'image:bf@texture'" in run("store", "export", "image:bf@textur", *words[3:], code=2).stderr
    assert "say which space to write, such as image:bf@texture" in run("store", "export", *words[3:], code=2).stderr
    old = run_json("store", "export", *words[3:], "--space", "image:bf@texture", code=3)  # what scripts rely on
    assert old["rows"] == 23


def test_every_command_works_on_a_store_in_a_bucket(make_dataset: Make, bucket: str, tmp_path: Path) -> None:
    spec, out = make_dataset(), tmp_path / "x.npz"
    words = ["--data", spec, "--store", f"{bucket}/features.zarr"]
    assert run_json("extract", *words)["spaces"][0]["embedded"] == 24
    assert run_json("extract", *words)["spaces"][0]["embedded"] == 0
    assert run_json("heads", *words, "--head", "linear")["entries"]
    assert run_json("store", "ls", *words)["spaces"][0]["rows"] == 24
    assert run_json("store", "verify", *words) == {"ok": True, "damaged": []} == run_json("store", "repair", *words)
    assert run_json("store", "export", "image@texture", *words, "--out", out)["rows"] == 24
    assert run_json("store", "gc", *words, "--drop", "image@texture")["dropped"] == ["image@texture"]
    assert run_json("store", "import", out, *words)["rows"] == 24
    assert not (spec.parent / "features.zarr").exists()
    result = run("extract", "--data", spec, "--store", f"{bucket}-absent/features.zarr", code=2)
    assert "Make the bucket" in result.stderr and len(result.stderr.splitlines()) == 1 and not result.stdout


def test_variants_of_the_images_are_extracted_swept_saved_and_predicted(make_dataset: Make, tmp_path: Path) -> None:
    spec = make_dataset()
    options = ["--convert", "log", "--convert", "percentile_clip+gamma", "--view", "plain", "--view", "fourier"]
    spaces = run_json("extract", "--data", spec, *options, "--tiles", "1x2", "--turns", "flips")["spaces"]
    seen = [f"{words}.1x2.turns-flips@texture" for words in ("log", "fourier", "percentile_clip-gamma")]
    names = [f"image:bf.{words}" for words in seen]
    assert [space["name"] for space in spaces] == names
    listed = [space["name"] for space in run_json("store", "ls", "--data", spec)["spaces"]]
    assert listed == sorted(f"image.{words}" for words in seen)
    assert f"image.{seen[1]} (" in run("store", "info", "image:bf@texture", "--data", spec, code=2).stderr
    assert len({space["fingerprint"] for space in spaces}) == 3 and all(space["embedded"] == 24 for space in spaces)
    more = [*options, "--tiles", "1x2", "--turns", "flips", "--head", "linear", "--save"]
    entries = run_json("heads", "--data", spec, *more)["entries"]
    tried = [entry["blocks"] for entry in entries]
    assert all([name] in tried for name in names)
    assert not any(len(set(blocks) & set(names)) == 2 for blocks in tried)  # variants are alternatives
    run("heads", "--data", spec, "--view", "fourier", code=2)
    out = tmp_path / "p.csv"
    run("predict", spec.parent / "runs" / "heads", spec.parent / "labels.csv", "--out", out)
    assert len(pd.read_csv(out)) == 24


def test_a_stack_of_two_images_is_extracted_swept_saved_and_predicted(make_dataset: Make, tmp_path: Path) -> None:
    stack = '[images.two]\ncolumn = "file"\nview = "fourier"\n[images.both]\nstack = ["bf", "two"]\n'
    spec = make_dataset(stack)
    random = ["--backbone", "test_resnet", "--weights", "random", "--device", "cpu"]
    spaces = run_json("extract", "--data", spec, *random)["spaces"]
    assert [space["name"].partition("@")[0] for space in spaces] == ["image:bf", "image:two", "image:both"]
    assert [space["embedded"] for space in spaces] == [24] * 3
    run("heads", "--data", spec, "--blocks", "image:both@test_resnet", "--head", "linear", "--save")
    bundle, out = spec.parent / "runs" / "heads", tmp_path / "p.csv"
    document = json.loads((bundle / "bundle.json").read_text())
    assert list(document["dataset"]["images"]) == ["bf", "two", "both"]
    run("predict", bundle, spec.parent / "images", "--out", out)
    assert pd.read_csv(out)["kind"].notna().all()


def test_options_about_pixels_are_checked_as_the_spec_is(make_dataset: Make) -> None:
    spec = make_dataset()
    for options, words in (
        (["--view", "fourir"], "there is no view 'fourir'. Did you mean 'fourier'?"),
        (["--view", "jpeg:300"], "strength of view 'jpeg:300' is to be whole, from 1 to 100"),
        (["--tiles", "2by2"], "such as '2x2'"),
        (["--tiles", "2x2", "--tile-px", "64"], "keep one"),
        (["--convert", "lgo"], "convert 'lgo' is not one of"),
    ):
        assert words in run("extract", "--data", spec, *options, code=2).stderr


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
    assert "r18" in words and "labels are not what other rows suggest" in words
    merged = run_json("audit", "--data", spec, "--merge")["merged"]
    assert ["r00", "r18"] in merged
    again = run_json("audit", "--data", spec)
    assert not [pair for pair in again["duplicates"] if pair["kind"] == "exact"]
    assert run_json("heads", "--data", spec, "--head", "linear")["entries"][-1]["n_groups"] < 8


def test_transfer_scores_what_was_never_seen(make_dataset: Make) -> None:
    spec = make_dataset()
    words = ["transfer", "--data", spec, "--blocks", "image"]
    prior, linear = run_json(*words, "--hold-out", "specimen=g1", "--hold-out", "file=s_400X_08.tif")["entries"]
    assert [part["held_out"] for part in linear["parts"]] == ["specimen=g1", "file=s_400X_08.tif"]
    assert [part["n_rows"] for part in prior["parts"]] == [3, 1]
    assert linear["parts"][0]["score"]["value"] == 1
    groups = run_json(*words, "--leave-one-group-out")["entries"][-1]["parts"]
    assert [part["held_out"] for part in groups] == [f"g{i}" for i in range(8)]
    assert "never seen" in run(*words, "--leave-one-group-out").stdout
    assert "Did you mean 'specimen'" in run(*words, "--hold-out", "specimn=g1", code=2).stderr
    every = run(*words, "--hold-out", "magnification=400", code=2).stderr  # of every specimen
    assert "no row is left to fit on; every other row shares a group with it" in every


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
    assert shown[1] == f"{out}: 23 images, 1 rows without" and shown[2].startswith("  row 'sub/s_200X_03.tif': ")
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
    result = run(*words)
    assert "0 embedded, 24 present" in result.stderr and "no change under png:8" in result.stdout
    run("robustness", "--data", spec, "--view", "blurr", code=2)
    entries = run_json("heads", "--data", spec, "--head", "linear")["entries"]
    assert not any("png" in block for entry in entries for block in entry["blocks"])  # clean vectors alone are swept


def test_a_conversion_that_does_not_exist_is_named_whatever_is_stored(make_dataset: Make) -> None:
    spec = make_dataset()
    run("extract", "--data", spec, "--backbone", "texture")
    result = run("heads", "--data", spec, "--convert", "lgo", code=2)
    assert "convert 'lgo' is not one of" in result.stderr and "Did you mean 'log'?" in result.stderr


def test_a_slurm_script_is_written_only_for_words_the_command_takes(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\n')
    monkeypatch.chdir(spec.parent)
    for words, message in (
        (["extract", "--bakbone", "texture"], "No such option: --bakbone"),
        (["extract", "--partion", "gpu"], "No such option: --partion"),
        (["extract", "--batch-size", "many"], "Invalid value for '--batch-size'"),
        (["extract", "--task", "kind"], "No such option: --task"),
        (["heads", "--task", "knid"], "Did you mean 'kind'"),
        (["heads", "--array", "2", "--save"], "leave --save out"),
        (["extract", "--backbone", "resnet81"], "unknown backbone 'resnet81'. Did you mean"),
        (["extract", "--backbone", "ngrams"], "'ngrams' takes texts, but the dataset has no [texts.…] block"),
        (["extract", "--convert", "lgo"], "Did you mean 'log'?"),
        (["extract", "--shard", "3/2"], "expected I/N"),
        (["extract", "--time", "2h"], "--time '2h' is no time that SLURM reads"),
        (["heads", "--backbone", "textur"], "Did you mean 'texture'"),
        (["heads", "--head", "liner"], "Did you mean 'linear'?"),
        (["extract", "--data", "nowhere.toml"], "no such file"),
        (["predict"], "'predict' is not one of"),
    ):
        result = run("slurm", *words, "--submit", code=2)
        assert message in result.stderr and not list(spec.parent.glob("slurm-*")), words
    shown = run("slurm", "heads", "--head", "linear", "--array", 2, "--cpus", 3, "--out", "job.sh").stdout
    assert shown == "job.sh: an array of 2 jobs; run: sbatch job.sh\n"
    text = Path("job.sh").read_text()
    assert "1) set -- --task kind ;;\n2) set -- --task size ;;" in text and "#SBATCH --cpus-per-task=3\n" in text
    assert text.endswith(f'exec {sys.executable} {ROOT / "cli.py"} heads --head linear "$@"\n')
    for words, message in (
        (["--grid", "lr=1e-3,1e-4", "--sett", "x=1"], "No such option: --sett"),
        (["--array", "2"], "comes from --grid"),
        (["--grid", "lr=1e-3,no"], "lr: needs a number (got 'no')"),
        (["--preset", "garbage"], "preset 'garbage' needs 1 text block"),
        (["--set", "backbone=resnet81"], "unknown backbone 'resnet81'. Did you mean"),
        (["--set", "branches.bf.encoder=texture"], "'texture' has no weights to train"),
        (["--grid", "best_by=mean,knid"], "Did you mean 'kind'?"),
    ):
        assert message in run("slurm", "finetune", *words, code=2).stderr and not Path("slurm-finetune.sh").exists()
    assert run_json("slurm", "finetune", "--grid", "lr=1e-3,1e-4", "--set", "max_epochs=2")["jobs"] == 2
    text = Path("slurm-finetune.sh").read_text()
    assert "1) set -- --set lr=1e-3 --name finetune-1 ;;" in text and 'finetune --set max_epochs=2 "$@" ||' in text
    assert run_json("slurm", "heads", "--task", "size") == {"script": "slurm-heads.sh", "jobs": 1, "job_id": None}
    assert Path("slurm-heads.sh").read_text().endswith('heads --task size "$@"\n')


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
    entries = run_json("heads", "--data", spec, "--head", "linear", "--final", "--folds", "3")["entries"]
    [final] = [e for e in entries if e["split"] == "test" and e["blocks"]]
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


def test_a_shard_is_one_part_of_the_rows(make_dataset: Make) -> None:
    spec = make_dataset()
    found = [run_json("extract", "--data", spec, "--shard", f"{i}/2")["spaces"][0] for i in (1, 2)]
    assert sum(report["rows"] for report in found) == sum(report["embedded"] for report in found) == 24
    assert all(0 < report["embedded"] < 24 for report in found)
    assert "--shard '3/2': expected I/N" in run("extract", "--data", spec, "--shard", "3/2", code=2).stderr


def test_conversions_are_embedded_ranked_and_compared(make_dataset: Make) -> None:
    spec = make_dataset()
    words = ["conversions", "--data", spec, "--convert", "log", "--convert", "fixed"]
    document = run_json(*words)
    assert sum(row["rank"] for row in document["conversions"]) == 1 + 2 + 3
    assert {row["convert"] for row in document["ranks"]} == {"percentile_stretch", "log", "fixed"}
    assert all(row["block"] == "image:bf@texture" for row in document["conversions"])
    result = run(*words)
    assert result.stderr.count("0 embedded, 24 present") == 3
    assert "percentile_stretch (default)" in result.stdout and "Over all tasks" in result.stdout
    for path in (spec.parent / "images").iterdir():
        tifffile.imwrite(path, (tifffile.imread(path) / 16).astype(np.uint8))
    flat = ["conversions", "--data", spec, "--store", spec.parent / "8.zarr"]
    assert "no image has more than 8 bits" in run(*flat, code=2).stderr


def test_every_store_command_takes_a_space_by_each_of_its_names(make_dataset: Make, tmp_path: Path) -> None:
    spec, out = make_dataset(), tmp_path / "bf.npz"
    report = run_json("extract", "--data", spec)["spaces"][0]
    fingerprint = report["fingerprint"]
    plain = tmp_path / "plain.npz"
    for name in (report["name"], "image@texture", f"{report['name']}#{fingerprint[:8]}", fingerprint[:10]):
        assert run_json("store", "info", name, "--data", spec)["fingerprint"] == fingerprint
        assert run_json("store", "export", name, "--out", out, "--data", spec)["rows"] == 24
        with np.load(out) as arrays:
            np.savez(plain, keys=arrays["keys"], X=arrays["X"])
        assert run_json("store", "gc", "--drop", name, "--data", spec)["dropped"] == ["image@texture"]
        run("store", "import", out, "--data", spec)
        assert run_json("store", "import", plain, "--space", name, "--data", spec)["rows"] == 0
    wrong = f"image@texture#{'0' if fingerprint[0] != '0' else '1'}"
    assert f"has no space '{wrong}'" in run("store", "info", wrong, "--data", spec, code=2).stderr
    for words in (["info"], ["gc"], ["export"], ["import"]):
        shown = " ".join(run("store", *words, "--help").stdout.split())
        assert "image:bf@texture as extract names it, image@texture or image.log@texture as store ls does" in shown


def test_a_space_that_cannot_say_what_it_is_is_named(make_dataset: Make) -> None:
    spec = make_dataset()
    lost = run_json("extract", "--data", spec)["spaces"][0]["fingerprint"][:16]
    run("extract", "--convert", "log", "--data", spec)
    (spec.parent / "features.zarr" / lost / "zarr.json").write_text("{")
    result = run("store", "ls", "--data", spec)
    assert f"warning: the space {lost} has no sound description and is left out; run store repair" in result.stderr
    assert "image.log@texture" in result.stdout


def test_damage_leads_from_extract_to_repair_and_back(make_dataset: Make) -> None:
    spec = make_dataset()
    fingerprint = run_json("extract", "--data", spec)["spaces"][0]["fingerprint"][:16]
    folder = spec.parent / "features.zarr"
    (folder / fingerprint / "vectors" / "c.0.0").unlink()
    problem = "chunk vectors/c.0.0 is missing; `store repair` mends that, then `extract` brings back what is lost"
    assert problem in run("extract", "--data", spec, code=2).stderr
    where = f"image@texture ({fingerprint[:12]}), vectors/c.0.0: is missing"
    assert run("store", "verify", "--data", spec, code=3).stdout == f"{where}\n1 damaged; store repair mends that\n"
    told = run("store", "repair", "--data", spec, code=3).stdout
    assert told == f"{where}: dropped\n1 damaged; the next extract brings back what was dropped\n"
    assert run("store", "repair", "--data", spec).stdout == "nothing is damaged\n"
    assert run_json("extract", "--data", spec)["spaces"][0]["embedded"] == 24
    for name in ("zarr.json", f"{fingerprint}/zarr.json"):
        (folder / name).unlink()
    assert "zarr.json is missing; `store repair` mends that" in run("extract", "--data", spec, code=2).stderr
    damaged = run_json("store", "repair", "--data", spec, code=3)["damaged"]
    assert damaged == [
        {"space": space, "fingerprint": at, "chunk": "zarr.json", "reason": "is missing", "done": "written again"}
        for space, at in (("the store", ""), ("image@texture", fingerprint))
    ]
    assert run_json("extract", "--data", spec)["spaces"][0]["present"] == 24


def test_a_store_whose_only_space_is_lost_is_not_called_empty(make_dataset: Make, tmp_path: Path) -> None:
    spec = make_dataset()
    lost = run_json("extract", "--data", spec)["spaces"][0]["fingerprint"][:16]
    (spec.parent / "features.zarr" / lost / "zarr.json").unlink()
    assert "holds no sound feature space; run store repair" in run("store", "ls", "--data", spec, code=2).stderr
    words = ["store", "export", "image@texture", "--data", spec, "--out", tmp_path / "x.npz"]
    assert f"the space {lost} has no sound description" in run(*words, code=2).stderr


def test_a_mistyped_store_is_not_called_sound(tmp_path: Path) -> None:
    told = {
        "ls": "nowhere.zarr: holds no feature space",
        "verify": "nowhere.zarr: holds no feature space",
        "repair": "nowhere.zarr: holds no feature space",
        "gc": "no feature store at",
    }
    for command, problem in told.items():
        result = CliRunner().invoke(app, ["store", command, "--store", str(tmp_path / "nowhere.zarr")])
        assert result.exit_code == 2
        assert problem in result.stderr
    for command in told:
        result = CliRunner().invoke(app, ["store", command, "--data", str(tmp_path / "nowhere")])
        assert result.exit_code == 2
        assert "nowhere: there is no such file or folder; give --data a dataset.toml, or --store" in result.stderr


@pytest.mark.parametrize("backbone", ["texture", "test_resnet"])
def test_a_gpu_that_is_not_there_is_one_line(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = write_sample("tem", tmp_path / "tem", n_rows=30)
    result = CliRunner().invoke(
        app, ["extract", "--data", str(spec), "--backbone", backbone, "--weights", "random", "--device", "cuda"]
    )
    assert result.exit_code == 2
    assert "--device cuda: there is no GPU" in result.stderr


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


# ---- explore


def test_explore_prints_tables_and_draws_three_pictures(make_dataset: Make) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\n')
    shown = run("explore", "--data", spec)
    for words in (
        "tiny: 24 rows in 8 groups",
        "striped   12     50.0%   8",
        "Metadata",
        "bf      24     24     0            64 x 64   16 bit grey",
        "What brightness alone tells",
    ):
        assert words in shown.stdout
    folder = spec.parent / "runs" / "explore"
    assert sorted(file.name for file in folder.iterdir()) == ["classes.png", "examples.png", "intensity.png"]
    assert not (spec.parent / "splits.json").exists()  # it looks, and decides nothing


def test_explore_finds_that_contrast_tells_stripes_and_prints_json(make_dataset: Make) -> None:
    spec = make_dataset()
    found = run_json("explore", "--data", spec, "--out", spec.parent / "there", "--rows", 20, "--seed", 1)
    [image] = found["images"]
    contrast = next(one for one in image["brightness"] if one["measure"] == "spread")
    assert contrast["of_label"] > 0.9 and contrast["of_label_within_groups"] > 0.9 and contrast["of_group"] < 0.1
    assert (image["n_read"], found["looked_at"], found["unreadable"]) == (20, 20, [])
    assert {Path(file).parent for file in found["pictures"].values()} == {spec.parent / "there"}
    assert all(Path(file).exists() for file in found["pictures"].values())


def test_explore_goes_on_without_images_and_past_unreadable_ones(make_dataset: Make) -> None:
    spec = make_dataset()
    (spec.parent / "images" / "s_300X_01.tif").write_bytes(b"nothing")
    shown = run("explore", "--data", spec, code=3)
    assert "row 'r01', image 'bf': is no tif, png, jpg or bmp" in shown.stdout
    text = spec.read_text()
    spec.write_text(
        text[: text.index("[images.bf]")] + '[texts.note]\ncolumn = "note"\n[tasks.kind]\ncolumn = "kind"\n'
    )
    found = run_json("explore", "--data", spec)
    assert (found["images"], list(found["pictures"])) == ([], ["classes"])
    assert "no images: nothing is said about pixels" in run("explore", "--data", spec).stdout


def test_explore_says_where_it_cannot_write(make_dataset: Make) -> None:
    spec = make_dataset()
    (spec.parent / "file").write_text("")
    out = spec.parent / "file" / "pictures"
    assert f"error: {out}: cannot be written" in run("explore", "--data", spec, "--out", out, code=2).stderr
