"""Explained end to end: on the built-in sample, by heads on a frozen network and on built-in encoders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cli import app
from extract import Options
from finetune.explain.models import FrozenModel
from heads import load_bundle
from store import FeatureStore, load_dataset, write_sample

ROWS = 40


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explain") / "tem"
    spec = write_sample("tem", folder, n_rows=ROWS)
    run("extract", "--data", spec, "--backbone", "test_resnet", "--weights", "random")
    run("extract", "--data", spec, "--backbone", "texture")
    return folder


def saved(folder: Path, *options) -> Path:
    run("heads", "--data", folder, "--task", "usability", "--blocks", "image+metadata", "--save", *options)
    return folder / "runs" / "heads"


def test_a_differentiable_model_gives_the_heads_own_decisions(folder):
    bundle = load_bundle(saved(folder, "--backbone", "test_resnet", "--head", "linear"))
    dataset = load_dataset(folder / "dataset.toml")
    matrix = bundle.load_matrix(dataset, FeatureStore(folder / "features.zarr"))
    model = FrozenModel(bundle, dataset, matrix, Options(weights="random"))
    one = bundle.models["usability"]
    want = one.fitted.head.predict_proba(bundle.aligned(matrix)[:, bundle.select(one.blocks)])
    with torch.no_grad():
        got = [model.outputs(model.read(row))["usability"].softmax(dim=1).numpy()[0] for row in range(5)]
    assert np.allclose(got, want[:5], atol=1e-4)


def test_pictures_neighbours_and_blocks_of_new_files(folder, tmp_path):
    bundle = saved(folder, "--backbone", "test_resnet", "--head", "linear")
    arguments = ["explain", bundle, folder / "unlabelled", "--out", tmp_path / "out", "--rows", 2, "--json"]
    document = json.loads(run(*arguments).stdout)
    assert [row["status"] for row in document["rows"]] == ["ok", "ok"]
    assert all(Path(picture["file"]).stat().st_size > 1000 for row in document["rows"] for picture in row["pictures"])
    assert all(len(row["nearest"]) == 3 for row in document["rows"])
    assert {row["block"] for row in document["blocks"]} == {"image:tem@test_resnet", "metadata"}


def test_a_bundle_without_gradients_is_refused_in_one_line(folder, tmp_path):
    for options, words in {
        ("--backbone", "texture", "--head", "linear"): "no gradient to draw",
        ("--backbone", "test_resnet", "--head", "lightgbm"): "need a linear head",
    }.items():
        result = run("explain", saved(folder, *options), folder / "unlabelled", "--out", tmp_path, code=2)
        assert words in result.stderr


def test_a_bundle_that_was_moved_is_explained_without_its_training_rows(folder, tmp_path):
    bundle = saved(folder, "--backbone", "test_resnet", "--head", "linear").rename(tmp_path / "moved")
    result = run("explain", bundle, folder / "unlabelled", "--out", tmp_path / "out", "--rows", 1)
    assert "no dataset beside the bundle" in result.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
