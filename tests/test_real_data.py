"""The whole path on real micrographs and photographs: check, extract, heads, predict, as a user would type it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from cli import app
from store import load_dataset, open_split
from tests.real import SPECS, write_spec

FIRST = {"emps": ("count", "image:em@texture"), "trashnet": ("label", "image:photo@texture")}
FIRST["ifc_cellcycle"] = ("mitotic", "image:bf@texture")


def run(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--json"]])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_texture_beats_the_prior_with_intervals_apart(name: str, tmp_path: Path, shared: Path) -> None:
    spec = write_spec(name, tmp_path, shared / "data")
    task, block = FIRST[name]
    problems = {problem["kind"] for problem in run("check", "--data", spec)["problems"]}
    assert ("label_conflict" in problems) == (name == "trashnet")  # metal91 and glass115 are the same pixels
    spaces = run("extract", "--data", spec, "--backbone", "texture")["spaces"]
    assert all(space["failed"] == 0 and space["embedded"] + space["shared"] == space["rows"] for space in spaces)
    entries = run("heads", "--data", spec, "--task", task, "--blocks", block, "--head", "linear", "--save")["entries"]
    prior, linear = entries[0]["metrics"]["accuracy"], entries[-1]["metrics"]["accuracy"]
    assert linear["low"] > prior["high"]
    out = tmp_path / "predictions.csv"
    run("predict", tmp_path / "runs" / "heads", shared / "data" / name / "labels.csv", "--out", out)
    predicted = pd.read_csv(out)
    assert list(predicted["id"]) == list(pd.read_csv(shared / "data" / name / "labels.csv")["name"])
    assert predicted[task].notna().all() and predicted["ood_distance"].notna().all()


@pytest.mark.slow
def test_the_photograph_that_trashnet_has_twice_comes_out_of_the_audit(tmp_path: Path, shared: Path) -> None:
    spec = write_spec("trashnet", tmp_path, shared / "data")
    run("extract", "--data", spec, "--backbone", "texture")
    found = run("audit", "--data", spec, "--merge")
    [exact] = [pair for pair in found["duplicates"] if pair["kind"] == "exact"]
    assert (exact["a"], exact["b"]) == ("glass/glass115.jpg", "metal/metal91.jpg") and exact["differs"] == ["label"]
    assert ["glass/glass115.jpg", "metal/metal91.jpg"] in found["merged"]
    assert {"glass/glass115.jpg", "metal/metal91.jpg"} & {row["id"] for row in found["labels"]["label"]["labels"]}
    roles = open_split(load_dataset(spec)).roles
    assert roles["glass/glass115.jpg"] == roles["metal/metal91.jpg"]
