"""`extract`: what costs a forward pass and what does not; broken files; images seen otherwise."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from cli import app
from store import write_sample
from tests.cli.commands import Make, cut_in_half, repaint, run, run_json


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


def test_weights_out_of_reach_name_the_three_ways_out(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(make_dataset().parent / "no-cache"))
    result = run("extract", "--data", make_dataset(), "--backbone", "test_vit.r160_in1k", code=2)
    assert "--weights random" in result.stderr and "--weights FILE-OR-FOLDER" in result.stderr


@pytest.mark.parametrize("command", ["extract", "heads"])
def test_a_store_in_memory_would_end_with_the_command_and_is_refused(make_dataset: Make, command: str) -> None:
    result = run(command, "--data", make_dataset(), "--store", "memory://x", code=2)
    assert (
        "--store memory://x: memory ends with the command, and all its vectors with it; give a folder" in result.stderr
    )
    assert "embedded" not in result.output


def test_ctrl_c_keeps_what_was_finished(make_dataset: Make) -> None:
    spec = make_dataset(n_rows=24)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extract.extract_features", interrupt)
        result = run("extract", "--data", spec, code=130)
    assert "the same command goes on from there" in result.stderr


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


def test_a_conversion_that_does_not_exist_is_named_whatever_is_stored(make_dataset: Make) -> None:
    spec = make_dataset()
    run("extract", "--data", spec, "--backbone", "texture")
    result = run("heads", "--data", spec, "--convert", "lgo", code=2)
    assert "convert 'lgo' is not one of" in result.stderr and "Did you mean 'log'?" in result.stderr


def test_a_shard_is_one_part_of_the_rows(make_dataset: Make) -> None:
    spec = make_dataset()
    found = [run_json("extract", "--data", spec, "--shard", f"{i}/2")["spaces"][0] for i in (1, 2)]
    assert sum(report["rows"] for report in found) == sum(report["embedded"] for report in found) == 24
    assert all(0 < report["embedded"] < 24 for report in found)
    assert "--shard '3/2': expected I/N" in run("extract", "--data", spec, "--shard", "3/2", code=2).stderr


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
