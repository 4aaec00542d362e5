"""Explained end to end: on the built-in sample, by heads on a frozen network and on built-in encoders."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from cli import app
from extract import Options
from finetune import explain_report
from finetune.bundle import SUBSET
from finetune.explain.files import training_rows
from finetune.explain.models import FrozenModel
from heads import load_bundle
from store import FeatureStore, load_dataset, make_split, write_sample
from tests.finetune.trained import make_images

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


def test_the_likes_of_a_row_are_sought_among_the_rows_that_a_subset_drew(folder):
    bundle, dataset = load_bundle(saved(folder, "--head", "linear")), load_dataset(folder / "dataset.toml")
    training = dataset, make_split(dataset)
    assert training_rows(bundle, training).tolist() == list(range(ROWS))
    drawn = [str(dataset.ids[7]), str(dataset.ids[3]), "no longer there"]
    assert training_rows(replace(bundle, about={**bundle.about, SUBSET: drawn}), training).tolist() == [3, 7]


def test_pictures_neighbours_and_blocks_of_new_files(folder, tmp_path):
    bundle = saved(folder, "--backbone", "test_resnet", "--head", "linear")
    arguments = ["explain", bundle, folder / "unlabelled", "--out", tmp_path / "out", "--rows", 2, "--json"]
    document = json.loads(run(*arguments).stdout)
    assert [row["status"] for row in document["rows"]] == ["ok", "ok"]
    assert all(Path(picture["file"]).stat().st_size > 1000 for row in document["rows"] for picture in row["pictures"])
    assert all(len(row["nearest"]) == 3 for row in document["rows"])
    assert {row["block"] for row in document["blocks"]} == {"image:tem@test_resnet", "metadata"}


def test_what_has_no_gradients_is_explained_without_heat_maps_and_says_why(folder, tmp_path):
    for options, words in {
        ("--backbone", "texture", "--head", "linear"): "no heat map of image:tem@texture: only whole images seen by a",
        ("--backbone", "test_resnet", "--head", "lightgbm"): "no heat map for usability: lightgbm has no gradients",
    }.items():
        arguments = ["explain", saved(folder, *options), folder / "unlabelled", "--out", tmp_path / "out", "--rows", 2]
        document = json.loads(run(*arguments, "--json").stdout)
        assert [note[: len(words)] for note in document["notes"]] == [words]
        assert [(row["status"], row["pictures"], len(row["nearest"])) for row in document["rows"]] == [
            ("ok", [], 3)
        ] * 2
        assert len(document["blocks"]) == 2 and not (tmp_path / "out").exists()
        assert words in run(*arguments).stdout


def test_the_class_and_its_probability_stand_beside_each_row(folder, tmp_path):
    bundle = saved(folder, "--backbone", "test_resnet", "--head", "linear")
    out = tmp_path / "predictions.csv"
    run("predict", bundle, folder / "unlabelled", "--out", out)
    arguments = ["explain", bundle, folder / "unlabelled", "--out", tmp_path / "out", "--rows", 2]
    rows = json.loads(run(*arguments, "--json").stdout)["rows"]
    for row, predicted in zip(rows, pd.read_csv(out).to_dict("records"), strict=False):
        name = predicted["usability"]
        p = pytest.approx(predicted[f"usability_p_{name}"], abs=1e-6)
        assert row["id"] == predicted["id"]
        assert row["predictions"] == [{"task": "usability", "output": name, "value": name, "p": p}]


def test_the_table_has_predictions_likes_and_what_cannot_be_given():
    predictions = [
        {"task": "kind", "output": "dark", "value": "dark", "p": 0.9312},
        {"task": "size", "output": "size_long", "value": 3.14159, "p": None},
    ]
    row = {"id": "r1", "predictions": predictions, "pictures": [{}, {}], "status": "ok"}
    row["nearest"] = [{"id": "r7", "distance": 0.123}]
    [section] = explain_report({"rows": [row], "blocks": [], "notes": ["no heat map of x"]})
    assert section.columns == ["row", "predicted (probability)", "most like (distance)", "pictures", "status"]
    assert section.rows == [["r1", "kind dark (0.93), size_long 3.142", "r7 (0.12)", "2", "ok"]]
    assert section.lines == ["no heat map of x", ""]


def test_a_row_that_cannot_be_read_says_why_and_has_no_prediction(folder, tmp_path):
    bundle = saved(folder, "--backbone", "test_resnet", "--head", "linear")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a_100X_1.tif").write_bytes(b"nothing")
    shutil.copy(next((folder / "unlabelled").glob("*.tif")), tmp_path / "new" / "b_100X_2.tif")
    result = run("explain", bundle, tmp_path / "new", "--out", tmp_path / "out", "--json", code=3)
    bad, good = json.loads(result.stdout)["rows"]
    assert "is no tif, png" in bad["status"] and bad["predictions"] == bad["pictures"] == []
    assert good["status"] == "ok" and len(good["pictures"]) == len(good["predictions"]) == 1


def test_texts_alone_are_explained_by_their_neighbours(tmp_path):
    lines = [f"r{i},{'round grains' if i % 2 else 'long needles'} {i},{'ab'[i % 2]}" for i in range(24)]
    (tmp_path / "labels.csv").write_text("id,notes,kind\n" + "\n".join(lines) + "\n")
    (tmp_path / "dataset.toml").write_text(
        'name = "t"\ntable = "labels.csv"\nid = "id"\n[texts.notes]\ncolumn = "notes"\n[tasks.kind]\ncolumn = "kind"\n'
    )
    run("extract", "--data", tmp_path, "--backbone", "ngrams")
    run("heads", "--data", tmp_path, "--head", "linear", "--save")
    arguments = [tmp_path / "runs" / "heads", tmp_path / "labels.csv", "--out", tmp_path / "out", "--rows", 2, "--json"]
    document = json.loads(run("explain", *arguments).stdout)
    assert [row["predictions"][0]["value"] for row in document["rows"]] == ["a", "b"]
    assert {one["id"][1:] for one in document["rows"][0]["nearest"]} <= {str(i) for i in range(0, 24, 2)}
    assert [(block["block"], block["value"] > 0) for block in document["blocks"]] == [("text:notes@ngrams", True)]
    assert document["notes"] == [
        "no heat map of text:notes@ngrams: only whole images seen by a network have one (extract --backbone resnet18)"
    ]


def test_training_data_of_another_bundle_is_refused(folder, tmp_path):
    bundle = saved(folder, "--backbone", "test_resnet", "--head", "linear")
    other = write_sample("garbage", tmp_path / "garbage", n_rows=30)
    result = run("explain", bundle, folder / "unlabelled", "--out", tmp_path / "out", "--data", other, code=2)
    assert (
        "is not what the bundle was made from: its task 'usability' is not there. Give the right one" in result.stderr
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """A network that has learned brightness from its images, beside a metadata column that says nothing."""
    folder = tmp_path_factory.mktemp("tuned")
    spec = make_images(folder, n_rows=60)
    spec.write_text(spec.read_text() + '[metadata.specimen]\nkind = "categorical"\n')
    small = [word for one in ("input_px=32", "max_epochs=6", "batch_size=8", "lr=1e-2") for word in ("--set", one)]
    named = ["--backbone", "test_resnet", "--weights", "random", "--task", "kind", "--device", "cpu"]
    run("finetune", "--data", spec, *named, *small)
    return folder


def test_a_fine_tuned_bundle_is_explained_and_its_blocks_are_weighed(tuned, tmp_path):
    arguments = [tuned / "runs" / "finetune", tuned / "labels.csv", "--out", tmp_path, "--rows", 2]
    document = json.loads(run("explain", *arguments, "--json").stdout)
    assert document["notes"] == []
    for row in document["rows"]:
        [picture], [prediction] = row["pictures"], row["predictions"]
        assert Path(picture["file"]).stat().st_size > 1000 and len(row["nearest"]) == 3
        assert prediction["output"] == picture["output"] in ("dark", "light") and 0.5 <= prediction["p"] <= 1
    image, metadata = document["blocks"]
    assert (image["block"], metadata["block"]) == ("image:bf@test_resnet", "metadata")
    assert {(one["head"], one["metric"], one["gain"]) for one in (image, metadata)} == {("finetune", "accuracy", None)}
    assert image["value"] > 0.2 and image["low"] > 0 and abs(metadata["value"]) < 0.1
    assert "accuracy lost when shuffled" in run("explain", *arguments).stdout


def test_a_fine_tuned_bundle_that_names_no_unseen_row_says_so(tuned, tmp_path):
    copied = shutil.copytree(tuned / "runs" / "finetune", tmp_path / "old")
    document = json.loads((copied / "bundle.json").read_text())
    known = {f"r{i}" for i in range(60)}
    assert set(document.pop("unseen")) < known
    (copied / "bundle.json").write_text(json.dumps(document))
    arguments = [copied, tuned / "labels.csv", "--data", tuned, "--out", tmp_path / "out", "--rows", 1, "--json"]
    found = json.loads(run("explain", *arguments).stdout)
    assert found["blocks"] == [] and len(found["rows"][0]["nearest"]) == 3
    assert found["notes"] == [
        "no block importance: the bundle names no row that it was not trained on; run finetune again"
    ]


def test_a_bundle_that_was_moved_is_explained_without_its_training_rows(folder, tmp_path):
    bundle = saved(folder, "--backbone", "test_resnet", "--head", "linear").rename(tmp_path / "moved")
    result = run("explain", bundle, folder / "unlabelled", "--out", tmp_path / "out", "--rows", 1)
    assert "no dataset beside the bundle" in result.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
