import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from extract import Drawing, Options, extract_features, make_encoders
from finetune.bundle import load_bundle, save_bundle
from finetune.loaders import score_loader
from finetune.network import MultimodalNetwork, make_network
from finetune.outputs import network_features
from finetune.predict import predict_source
from finetune.settings import read_settings
from heads import Calibration, bundle_kind
from store import Dataset, FeatureStore, InputError, StoreError
from tests.finetune.made import text_folder
from tests.finetune.small import N_ROWS, make_dataset

ROOT = Path(__file__).parents[2]
BF = '[images.bf]\ncolumn = "file"\n'
ALL = np.arange(N_ROWS)
WHOLE = BF + (
    '[images.spectrum]\ncolumn = "file"\nview = "fourier"\n[texts.notes]\ncolumn = "notes"\n'
    '[metadata.magnification]\ntransform = "log"\n'
)
ABOUT = {"split_fingerprint": "f" * 64, "seed": 0, "versions": {"embedonce": "0"}}
CALIBRATIONS = {
    "kind": Calibration(2.0, (0.7,)),
    "size": Calibration(1.0, (1.5, None)),
    "flow": Calibration(1.0, (0.25,)),
}


def trained(dataset: Dataset, **table: Any) -> MultimodalNetwork:
    """A network whose every weight and scale is unlike a fresh one's."""
    settings = read_settings({"weights": "random", "backbone": "test_resnet", "input_px": 32, **table})
    network = make_network(dataset, settings, rows=ALL, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return network.eval()


def saved(
    folder: Path, dataset: Dataset, network: MultimodalNetwork, *, about: dict[str, Any] = ABOUT
) -> list[dict[str, Any]]:
    entries = {name: {"metrics": {"accuracy": {"value": 0.5}}, "identity": "not kept"} for name in dataset.tasks}
    calibrations = {name: CALIBRATIONS[name] for name in dataset.tasks}
    how: Any = {"rows": ALL[:9], "calibrations": calibrations, "entries": entries, "about": about, "device": "cpu"}
    return save_bundle(folder, network, dataset, **how)


def outputs(dataset: Dataset, network: MultimodalNetwork) -> dict[str, np.ndarray]:
    [batch] = score_loader(dataset, network, ALL, batch_size=N_ROWS).loader
    with torch.inference_mode():
        return {name: out.double().numpy() for name, out in network(batch.inputs).items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset, MultimodalNetwork]:
    """Images, spectra, texts and metadata; a class, two numbers, and a number under a condition."""
    folder = tmp_path_factory.mktemp("bundle")
    dataset = make_dataset(folder / "data", WHOLE)
    branches = {"text": {"encoder": str(text_folder(folder / "distilbert")), "width": 8, "layer_norm": True}}
    branches["metadata"] = {"width": 4}
    network = trained(dataset, branches=branches, fusion=[16])
    saved(folder / "runs" / "finetune", dataset, network)
    return folder, dataset, network


def test_a_bundle_predicts_what_the_network_predicted(made: tuple[Path, Dataset, MultimodalNetwork]) -> None:
    folder, dataset, network = made
    table, left_out = load_bundle(folder / "runs" / "finetune").predict(dataset, device="cpu")
    want = outputs(dataset, network)
    p = torch.from_numpy(want["kind"] / 2.0).softmax(dim=1).numpy()  # tempered
    assert left_out == {}
    assert table["id"].tolist() == dataset.ids.tolist()
    np.testing.assert_allclose(table[["kind_p_a", "kind_p_b"]], p, atol=1e-5)
    assert table["kind"].tolist() == [["a", "b"][i] for i in p.argmax(axis=1)]
    np.testing.assert_allclose(table[["size_long", "size_wide"]], want["size"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(table["flow"], want["flow"][:, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(table["flow_high"] - table["flow_low"], 0.5)
    assert want["size"].std(axis=0).min() > 1e-3


def test_the_columns_are_those_of_a_bundle_of_heads(made: tuple[Path, Dataset, MultimodalNetwork]) -> None:
    folder, dataset, _ = made
    bundle = load_bundle(folder / "runs" / "finetune")
    table, _ = bundle.predict(dataset, device="cpu")
    assert table.columns.tolist() == [
        *("id", "kind", "kind_p_a", "kind_p_b", "kind_set"),
        *("size_long", "size_long_low", "size_long_high", "size_wide", "size_wide_low", "size_wide_high"),
        *("flow", "flow_low", "flow_high", "flow_p_applies", "ood_distance"),
    ]
    assert table["size_wide_low"].isna().all() and np.isfinite(table["size_long_low"]).all()
    assert table["flow_p_applies"].between(0, 1).all()
    assert table["ood_distance"].between(0, 50).all()
    document = json.loads((folder / "runs" / "finetune" / "bundle.json").read_text())
    assert [row["column"] for row in document["predictions"]] == [*table.columns, "status"]
    assert document["tasks"][0]["scores"] == {"metrics": {"accuracy": {"value": 0.5}}}
    assert document["versions"] == ABOUT["versions"] and document["split_fingerprint"] == "f" * 64


def test_a_moved_folder_needs_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    dataset = make_dataset(home / "data", WHOLE)
    language = str(text_folder(home / "distilbert"))
    network = trained(dataset, branches={"text": {"encoder": language}})
    saved(home / "runs" / "finetune", dataset, network)
    shutil.copytree(home / "data", tmp_path / "new" / "data")
    want = predicted(home / "runs" / "finetune", home / "data" / "labels.csv")
    written = [path for path in (home / "runs" / "finetune").rglob("*") if path.is_file()]
    assert not [path for path in written if str(tmp_path).encode() in path.read_bytes()]
    shutil.copytree(home / "runs" / "finetune", tmp_path / "elsewhere" / "model")
    shutil.rmtree(home)
    got = predicted(tmp_path / "elsewhere" / "model", tmp_path / "new" / "data" / "labels.csv")
    pd.testing.assert_frame_equal(got, want)
    assert got["status"].tolist() == ["ok"] * N_ROWS


def predicted(bundle: Path, source: Path, *, rows_at_once: int = 5) -> pd.DataFrame:
    out = source.parent / "predictions.csv"
    n_rows, n_failed = predict_source(bundle, source, out, rows_at_once=rows_at_once, options=Options(device="cpu"))
    table = pd.read_csv(out)
    assert (len(table), (table["status"] != "ok").sum()) == (n_rows, n_failed)
    return table


def test_rows_are_predicted_in_parts_and_unreadable_ones_say_why(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", BF)
    network = trained(dataset)
    saved(tmp_path / "bundle", dataset, network)
    want = predicted(tmp_path / "bundle", tmp_path / "data" / "images", rows_at_once=100)
    (tmp_path / "data" / "images" / "4.png").write_bytes(b"none")
    done = []
    out = tmp_path / "p.csv"
    drawing = Drawing(tmp_path / "drawn", tmp_path / "data" / "images")
    n_rows, n_failed = predict_source(
        tmp_path / "bundle",
        tmp_path / "data" / "images",
        out,
        rows_at_once=5,
        options=Options(device="cpu"),
        drawing=drawing,
        progress=lambda n, total: done.append((n, total)),
    )
    assert (n_rows, n_failed) == (N_ROWS, 1)
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {f"{i}.png.png" for i in range(N_ROWS) if i != 4}
    assert list(drawing.left_out) == ["4.png"] and drawing.n_drawn == N_ROWS - 1
    assert done[-1] == (N_ROWS, N_ROWS) and done == sorted(done)
    got = pd.read_csv(out)
    bad = got["id"] == "4.png"
    assert "is no tif, png" in got.loc[bad, "status"].item()
    assert got.loc[bad, ["kind", "kind_p_a", "flow", "ood_distance", "flow_p_applies"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(got[~bad], want[~bad], rtol=1e-4)


def test_a_metadata_cell_that_is_no_number_costs_its_own_row(
    made: tuple[Path, Dataset, MultimodalNetwork], tmp_path: Path
) -> None:
    folder = made[0]
    shutil.copytree(folder / "data", tmp_path / "data")
    table = tmp_path / "data" / "labels.csv"
    want = predicted(folder / "runs" / "finetune", table)
    table.write_text(table.read_text().replace(",6,note 5,", ",six,note 5,"))
    got = predicted(folder / "runs" / "finetune", table)
    assert got["status"].tolist() == ["ok"] * 5 + ["metadata 'magnification': 'six' is no number"] + ["ok"] * 6
    assert got.loc[5].drop(["id", "status"]).isna().all()
    pd.testing.assert_frame_equal(got.drop(index=5), want.drop(index=5), rtol=1e-5)


def test_each_tuned_encoder_is_extracted_with_its_own_vectors(
    made: tuple[Path, Dataset, MultimodalNetwork], tmp_path: Path
) -> None:
    folder, dataset, network = made
    run = folder / "runs" / "finetune"
    shown = {json.loads((run / name / "config.json").read_text()).get("architecture") for name in ("bf", "spectrum")}
    assert shown == {"test_resnet"}
    store = FeatureStore(tmp_path / "features.zarr")
    options = Options(device="cpu", engine="torch")
    encoders, _ = make_encoders([str(run / "bf"), str(run / "notes")], dataset, options)
    extract_features(dataset, encoders, store)
    [batch] = score_loader(dataset, network, ALL, batch_size=N_ROWS).loader
    for name, block in (("bf", dataset.images["bf"]), ("notes", dataset.texts["notes"])):
        kind = "image" if name == "bf" else "text"
        space = encoders[f"{kind}:{name}"][0].space
        got = store.read(space, list(filter(None, block.keys())))
        with torch.inference_mode():
            want = without_projection(network.branches[name])(batch.inputs[name]).numpy()
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


def without_projection(branch: Any) -> Any:
    """The branch without what follows its encoder."""
    bare = copy.deepcopy(branch)
    bare.projection = torch.nn.Identity()
    return bare


def test_the_returned_spaces_are_those_that_extraction_finds(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", BF)
    [space] = saved(tmp_path / "bundle", dataset, trained(dataset))
    assert (space["name"], space["folder"]) == ("bf", str(tmp_path / "bundle" / "bf"))
    encoders, _ = make_encoders([space["folder"]], dataset, Options(device="cpu", engine="torch"))
    assert encoders["image:bf"][0].space.fingerprint == space["fingerprint"]


@pytest.mark.parametrize("modalities", ["shared", "stacked"])
def test_networks_of_several_modalities_come_back(tmp_path: Path, modalities: str) -> None:
    dataset = make_dataset(tmp_path / "data", BF + '[images.fl]\ncolumn = "file"\nview = "blur:2"\n')
    network = trained(dataset, modalities=modalities)
    spaces = saved(tmp_path / "bundle", dataset, network)
    assert len(spaces) == 1
    again = load_bundle(tmp_path / "bundle").network
    assert again.blueprint == network.blueprint
    for name, want in outputs(dataset, network).items():
        np.testing.assert_allclose(outputs(dataset, again)[name], want, atol=1e-6)


def test_other_files_stay_and_an_earlier_bundle_is_replaced(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", BF)
    (tmp_path / "bundle" / "checkpoints").mkdir(parents=True)
    (tmp_path / "bundle" / "checkpoints" / "last.ckpt").write_text("x")
    saved(tmp_path / "bundle", dataset, trained(dataset))
    saved(tmp_path / "bundle", dataset, second := trained(dataset, fusion=[7]))
    assert (tmp_path / "bundle" / "checkpoints" / "last.ckpt").read_text() == "x"
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == [
        *("bf", "bundle.json", "checkpoints", "weights.safetensors")
    ]
    assert load_bundle(tmp_path / "bundle").network.dim == 7
    np.testing.assert_allclose(
        network_features(load_bundle(tmp_path / "bundle").network, dataset, ALL, device="cpu")[0],
        network_features(second, dataset, ALL, device="cpu")[0],
        atol=1e-6,
    )


def test_what_only_the_earlier_bundle_had_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    dataset = make_dataset(tmp_path / "data", WHOLE)
    branches = {"text": {"encoder": str(text_folder(tmp_path / "distilbert"))}}
    saved(folder, dataset, trained(dataset, branches=branches))
    for name in ("model.onnx", "spectrum/mine.txt", "other.onnx"):
        (folder / name).write_text("x")
    assert (folder / "notes" / "1_Pooling").is_dir()
    saved(folder, dataset, trained(dataset, blocks=["image:bf"]))
    assert sorted(path.name for path in folder.iterdir()) == [
        *("bf", "bundle.json", "other.onnx", "spectrum", "weights.safetensors")
    ]
    assert [path.name for path in (folder / "spectrum").iterdir()] == ["mine.txt"]
    assert load_bundle(folder).layers.spec.images.keys() == {"bf"}


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_every_file_has_the_usual_mode(tmp_path: Path, umask: int) -> None:
    dataset = make_dataset(tmp_path / "data", BF + '[texts.notes]\ncolumn = "notes"\n')
    branches = {"text": {"encoder": str(text_folder(tmp_path / "distilbert"))}}
    before = os.umask(umask)
    try:
        saved(tmp_path / "bundle", dataset, trained(dataset, branches=branches))
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert sum(path.suffix == ".safetensors" for path in files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


def test_no_pickle_is_written(made: tuple[Path, Dataset, MultimodalNetwork]) -> None:
    suffixes = {path.suffix for path in (made[0] / "runs").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".txt"}


def test_a_damaged_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", BF)
    folder = tmp_path / "bundle"
    saved(folder, dataset, trained(dataset))
    assert bundle_kind(folder) == "finetune" and bundle_kind(tmp_path) == "heads"
    with pytest.raises(InputError, match=r"is no bundle .* heads --save and finetune make one"):
        load_bundle(tmp_path)
    document = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(document | {"kind": "other"}))
    with pytest.raises(InputError, match="is a bundle of heads, not of a fine-tuned network"):
        load_bundle(folder)
    (folder / "bundle.json").write_text(json.dumps(document))
    weights = folder / "bf" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(StoreError, match=r"bf/model.safetensors: is missing or damaged"):
        load_bundle(folder)
    shutil.rmtree(folder / "bf")
    with pytest.raises(StoreError, match=r"bf/config.json: is missing or damaged"):
        load_bundle(folder)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", BF)
    folder = tmp_path / "bundle"
    saved(folder, dataset, trained(dataset, fusion=[7]))
    document = json.loads((folder / "bundle.json").read_text())
    document["network"]["fusion"]["widths"] = []
    (folder / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"does not fit the network that bundle.json describes"):
        load_bundle(folder)


def test_only_what_the_network_reads_is_asked_of_new_files(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", WHOLE)
    network = trained(dataset, blocks=["image:bf"])
    saved(tmp_path / "bundle", dataset, network)
    spec = load_bundle(tmp_path / "bundle").layers.spec
    assert (list(spec.images), list(spec.texts), list(spec.metadata)) == (["bf"], [], [])
    assert len(predicted(tmp_path / "bundle", tmp_path / "data" / "images")) == N_ROWS


def test_the_command_predicts_with_either_kind_of_bundle(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cli import app

    dataset = make_dataset(tmp_path / "data", BF)
    saved(tmp_path / "bundle", dataset, trained(dataset))
    (tmp_path / "data" / "images" / "4.png").write_bytes(b"none")
    words = ["predict", str(tmp_path / "bundle"), str(tmp_path / "data" / "images"), "--device", "cpu"]
    words += ["--out", str(tmp_path / "p.csv")]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 3, done.output
    found = json.loads(done.stdout)
    seconds, rate = found.pop("seconds"), found.pop("rows_per_second")
    assert found == {"rows": N_ROWS, "failed": 1, "out": str(tmp_path / "p.csv")}
    assert rate == pytest.approx(N_ROWS / seconds, rel=0.05)
    assert pd.read_csv(tmp_path / "p.csv")["status"].eq("ok").sum() == N_ROWS - 1
    refused = CliRunner().invoke(app, [*words, "--weights", "random"])
    assert refused.exit_code == 2
    assert "which has its own weights" in refused.stderr


def test_heads_on_tuned_features_say_that_the_encoder_has_seen_the_rows(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cli import app
    from store import open_split

    text = '[texts.notes]\ncolumn = "notes"\n'
    dataset = make_dataset(tmp_path / "data", BF + text)
    branches = {"text": {"encoder": str(text_folder(tmp_path / "distilbert"))}}
    about = ABOUT | {"split_fingerprint": open_split(dataset, n_folds=2).fingerprint}
    saved(tmp_path / "bundle", dataset, trained(dataset, branches=branches), about=about)
    spec = str(tmp_path / "data" / "dataset.toml")
    names = ["--backbone", str(tmp_path / "bundle" / "bf"), "--backbone", str(tmp_path / "bundle" / "notes")]
    extracted = CliRunner().invoke(app, ["extract", "--data", spec, *names, "--device", "cpu"])
    assert extracted.exit_code == 0, extracted.output
    done = CliRunner().invoke(app, ["heads", "--data", spec, "--task", "size", "--head", "linear", "--json"])
    assert done.exit_code == 0, done.output
    assert (
        "the encoder of image:bf@test_resnet#tuned-" in done.stderr
        and "was fine-tuned on rows that are scored here" in done.stderr
    )
    assert "the encoder of text:notes@" in done.stderr


def test_heads_take_a_tuned_encoder_by_its_folder_alone(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cli import app

    def run(command: str, *words: str) -> Any:
        done = CliRunner().invoke(app, [command, "--data", str(tmp_path / "data" / "dataset.toml"), *words])
        assert done.exit_code == 0, done.output
        return done

    text = '[texts.notes]\ncolumn = "notes"\n'

    def read_by(*words: str) -> set[str]:
        rows = json.loads(run("leaderboard", *words, "--task", "size", "--json").stdout)["entries"]
        return {block for row in rows if row["head"] == "linear" for block in row["blocks"].split(" + ")}

    dataset = make_dataset(tmp_path / "data", BF + text)
    branches = {"text": {"encoder": str(text_folder(tmp_path / "distilbert"))}}
    spaces = saved(tmp_path / "bundle", dataset, trained(dataset, branches=branches))
    folders = [word for space in spaces for word in ("--backbone", space["folder"])]
    run("extract", "--backbone", "test_resnet", "--weights", "random", "--device", "cpu")
    shown = run("extract", *folders, "--device", "cpu").stdout
    done = run("heads", *folders, "--task", "size", "--head", "linear", "--json")
    blocks = {block for entry in json.loads(done.stdout)["entries"] for block in entry["blocks"]}
    image, notes = (space["fingerprint"][:8] for space in spaces)
    run("heads", "--task", "size", "--head", "linear")
    assert blocks == read_by(*folders) < read_by()
    assert len(blocks) == 2 and f"image:bf@test_resnet#tuned-{image}" in blocks  # not the untuned one beside it
    listed = CliRunner().invoke(app, ["store", "ls", "--store", str(dataset.folder / "features.zarr")]).stdout
    assert all(f"{block} " in shown for block in blocks) and f"image@test_resnet#tuned-{image} " in listed
    assert f"#tuned-{notes} " in listed and "image@test_resnet " in listed  # the untuned one
    assert {space.fingerprint[:8] for space in FeatureStore(dataset.folder / "features.zarr").spaces()} > {image, notes}


def test_predicting_loads_nothing_that_only_training_or_drawing_needs() -> None:
    words = (
        "import sys, finetune; print(*sorted({'lightning', 'torchmetrics', 'captum', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "\n"
