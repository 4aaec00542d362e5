"""What the samples plant is what the commands find."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cli import app
from heads import Predictions
from store import SAMPLES, load_dataset, open_split, write_sample
from store.samples.cells import CHANGES, make_cell
from store.samples.tem import N_ROWS, table_row
from store.samples.tem_scene import labels, make_scene, truth


def run_json(*words: object, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--json")])
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def scores(document: dict[str, Any], metric: str = "accuracy") -> dict[str, dict[str, float]]:
    """Return a score of each entry by task and blocks, such as ``image:photo+text:name``."""
    found: dict[str, dict[str, float]] = {}
    for entry in document["entries"]:
        blocks = "+".join(name.partition("@")[0] for name in entry["blocks"])
        found.setdefault(entry["task"], {})[blocks] = entry["metrics"][metric]["value"]
    return found


@pytest.fixture(scope="module")
def garbage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only Train, for scores by cross-validation, and two tasks that one block alone can answer."""
    spec = write_sample("garbage", tmp_path_factory.mktemp("garbage"), n_rows=340)
    text = spec.read_text().replace('root   = "CVPR-like"', 'root   = "CVPR-like/Train"')
    text = text.replace(text[text.index("[folders]") : text.index("[images.photo]")], "")
    text += "[tasks.soiled]\ncolumn = \"folder\"\nwhen = \"folder in ['Blue', 'Green']\"\n"
    text += "[tasks.hazard]\ncolumn = \"folder\"\nwhen = \"folder in ['Black', 'TTR']\"\n"
    spec.write_text(text)
    run_json("extract", "--data", spec)
    return spec


@pytest.mark.parametrize("name", SAMPLES)
def test_the_smallest_sample_can_be_checked_and_a_smaller_one_is_refused(name: str, tmp_path: Path) -> None:
    least = SAMPLES[name].min_rows
    result = CliRunner().invoke(app, ["sample", name, str(tmp_path / "less"), "--rows", str(least - 1)])
    words = f"the sample '{name}' needs at least {least} rows (got {least - 1}); give more --rows"
    assert result.exit_code == 2 and words in " ".join(result.stderr.split()) and not (tmp_path / "less").exists()
    spec = write_sample(name, tmp_path / name, n_rows=least)
    assert run_json("check", "--data", spec)["rows"] == least
    assert len(set(open_split(load_dataset(spec), keep=False).roles.values())) in (3, 5)


def test_picture_and_text_together_find_the_bin_and_neither_alone(garbage: Path) -> None:
    found = scores(run_json("heads", "--data", garbage, "--head", "linear"))
    prior, image, text, both = "", "image:photo", "text:name", "image:photo+text:name"
    assert found["bin"][both] > max(found["bin"][image], found["bin"][text]) + 0.08
    assert min(found["bin"][image], found["bin"][text]) > found["bin"][prior] + 0.2
    assert found["soiled"][image] > found["soiled"][prior] + 0.12  # only the picture tells
    assert found["soiled"][text] < found["soiled"][prior] + 0.05
    assert found["soiled"][both] < found["soiled"][image] + 0.05
    assert found["hazard"][text] > found["hazard"][prior] + 0.3  # only the text tells
    assert found["hazard"][image] < found["hazard"][prior] + 0.1
    assert found["hazard"][both] < found["hazard"][text] + 0.05


def test_a_bundle_of_class_folders_predicts_on_any_folder(garbage: Path) -> None:
    test, out = garbage.parent / "CVPR-like" / "Test", garbage.parent / "out.csv"
    assert run_json("check", "--data", garbage)["rows"] == len(list((test.parent / "Train").rglob("*.png")))
    run_json("heads", "--data", garbage, "--head", "linear", "--save", "--task", "bin")
    assert run_json("predict", garbage.parent / "runs" / "heads", test, "--out", out)["failed"] == 0
    rows = pd.read_csv(out)
    assert set(rows["id"]) == {path.relative_to(test).as_posix() for path in test.rglob("*.png")}
    right = rows["bin"] == rows["id"].str.partition("/")[0]
    assert right.mean() > 0.75


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cells, and as two more tasks which of the changes each has: one modality alone can answer either."""
    spec = write_sample("cells", tmp_path_factory.mktemp("cells"), n_rows=240, seed=1)
    table = pd.read_csv(spec.parent / "data" / "train.csv")
    changes = [make_cell(1, row).change for row in range(len(table))]
    for name in CHANGES:
        table[name] = ["yes" if change in (name, "both") else "no" for change in changes]
    table.to_csv(spec.parent / "data" / "train.csv", index=False)
    spec.write_text(spec.read_text() + '[tasks.keratin]\ncolumn = "keratin"\n[tasks.ploidy]\ncolumn = "ploidy"\n')
    run_json("extract", "--data", spec)
    return spec


def test_both_modalities_beat_each_and_cells_of_known_patients_flatter(cells: Path) -> None:
    document = run_json("heads", "--data", cells, "--head", "linear")
    found = scores(document)["diagnosis"]
    single = found["image:bf"], found["image:fl"]
    assert found["image:bf+image:fl"] > max(single) + 0.04 and min(single) > found[""] + 0.05
    gap = next(gap for gap in document["group_gap"] if gap["task"] == "diagnosis")
    assert gap["low"] > 0 and gap["random"]["value"] > gap["grouped"]["value"] + 0.04
    changes = scores(document, "balanced_accuracy")
    for task, own, other in (("keratin", "image:bf", "image:fl"), ("ploidy", "image:fl", "image:bf")):
        assert changes[task][own] > 0.75 and changes[task][other] < 0.65
        assert changes[task]["image:bf+image:fl"] < changes[task][own] + 0.05  # the other modality adds nothing


def test_brightness_follows_the_patient_and_contrast_the_diagnosis(cells: Path) -> None:
    for image in run_json("explore", "--data", cells)["images"]:
        bright, contrast = (
            next(one for one in image["brightness"] if (one["task"], one["measure"]) == ("diagnosis", measure))
            for measure in ("mean", "spread")
        )
        assert bright["of_group"] > 0.7 and bright["of_label_within_groups"] < 0.05
        assert contrast["of_label_within_groups"] > 0.1


@pytest.fixture(scope="module")
def tem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = write_sample("tem", tmp_path_factory.mktemp("tem"))
    run_json("extract", "--data", spec, "--backbone", "texture")
    return spec


@pytest.mark.slow
def test_unusable_micrographs_are_found_and_magnification_tells_what_is_nano(tem: Path) -> None:
    document = run_json("heads", "--data", tem, "--head", "linear")
    found, balanced = scores(document), scores(document, "balanced_accuracy")
    assert balanced["usability"]["image:tem"] > 0.65 and balanced["usability"][""] == 0.5  # accuracy: 0.94 for "yes"
    assert found["nanostructures"]["metadata"] > found["nanostructures"][""] + 0.1
    assert found["nanostructures"]["image:tem"] < found["nanostructures"]["metadata"] - 0.05
    assert found["nanostructures"]["image:tem+metadata"] < found["nanostructures"]["metadata"] + 0.05
    assert found["nanostructures"]["image:tem+metadata"] > found["nanostructures"]["image:tem"] + 0.05
    for task in ("particle_count", "material", "morphology"):  # the picture tells these, as far as anything does
        assert found[task]["image:tem+metadata"] < found[task]["image:tem"] + 0.03
        assert found[task]["metadata"] < found[task][""] + 0.05
    assert found["particle_count"]["image:tem"] > found["particle_count"][""] + 0.25
    helps = {(one["task"], one["verdict"]) for one in document["comparisons"] if one["block"] == "metadata"}
    assert {task for task, verdict in helps if verdict == "helps"} == {"nanostructures"}
    unusable, usable = run_json("report", "--data", tem, "--task", "usability")["reports"][0]["classes"]
    assert unusable["recall"]["value"] >= 0.5 and unusable["precision"]["value"] > 0.8 and unusable["rows"] == 11
    assert usable["recall"]["value"] > 0.98


@pytest.mark.slow
def test_picture_and_magnification_together_tell_nanostructures_better_than_either(tmp_path: Path) -> None:
    """How many there are and how small they are: 185 images are too few to see both."""
    spec = write_sample("tem", tmp_path, n_rows=600)
    run_json("extract", "--data", spec, "--backbone", "texture")
    document = run_json("heads", "--data", spec, "--head", "linear", "--task", "nanostructures")
    found = scores(document)["nanostructures"]
    assert found["image:tem+metadata"] > found["metadata"] + 0.02
    assert found["metadata"] > found["image:tem"] + 0.02 > found[""] + 0.1
    verdicts = {one["block"]: one["verdict"] for one in document["comparisons"] if one["is_main"]}
    assert verdicts == {"metadata": "helps", "image:tem@texture": "helps"}


@pytest.mark.slow
def test_wrong_particle_counts_lead_the_list_of_doubtful_labels(tem: Path) -> None:
    """Half of those made wrong are among the first ten, where chance puts none or one, and none is missing."""
    found = run_json("audit", "--data", tem, "--task", "particle_count", "--task", "morphology")["labels"]
    scenes = [make_scene(0, row) for row in range(N_ROWS)]
    given = [(table_row(scene)[0], labels(scene)["particle_count"], truth(scene)["particle_count"]) for scene in scenes]
    wrong = {row for row, label, right in given if label not in ("", right)}
    listed = [row["id"] for row in found["particle_count"]["labels"]]
    assert len(wrong) == 8 and wrong <= set(listed) and len(listed) < 60
    assert len(wrong & set(listed[:10])) >= 4
    assert found["particle_count"]["beats_baseline"] and not found["morphology"]["beats_baseline"]


def mae(document: dict[str, Any]) -> dict[str, float]:
    """Return the errors of the linear head by blocks, of one task."""
    return {
        "+".join(name.partition("@")[0] for name in entry["blocks"]): entry["metrics"]["mae"]["value"]
        for entry in document["entries"]
    }


@pytest.mark.slow
def test_a_random_split_flatters_powders_and_magnification_counts_only_beside_the_picture(tmp_path: Path) -> None:
    spec = write_sample("powder", tmp_path)
    run_json("extract", "--data", spec)
    document = run_json("heads", "--data", spec, "--head", "linear")
    gaps = {gap["task"]: gap for gap in document["group_gap"]}
    assert set(gaps) == {"AOR", "HR", "CI", "flowable", "Flow_rate"}
    assert all(gap["low"] > 0 and gap["one_label_per_group"] for gap in gaps.values())
    assert gaps["flowable"]["random"]["value"] > gaps["flowable"]["grouped"]["value"] + 0.1
    assert gaps["AOR"]["random"]["value"] < 0.9 * gaps["AOR"]["grouped"]["value"]
    n_rows = {entry["task"]: entry["n_rows"] for entry in document["entries"]}
    assert n_rows == {"AOR": 456, "HR": 456, "CI": 456, "flowable": 456, "Flow_rate": 276}
    flowing = set(np.flatnonzero(pd.read_csv(tmp_path / "all_data.csv")["Flow_rate"].notna()))
    stored = Predictions(tmp_path / "runs" / "predictions")
    conditional = [entry for entry in document["entries"] if entry["task"] == "Flow_rate"]
    assert len(conditional) == 4  # image, metadata, both, and no features
    assert all(set(stored.of(entry).row) == flowing for entry in conditional)
    helps = {(one["task"], one["block"]): one["verdict"] == "helps" for one in document["comparisons"]}
    assert helps["HR", "metadata"] and helps["AOR", "metadata"]
    alone = {e["task"]: e for e in document["entries"] if e["blocks"] == ["metadata"]}
    assert not any(alone[task]["beats_baseline"] for task in ("AOR", "HR", "flowable"))


@pytest.mark.slow
def test_the_spectrum_wins_on_the_period_where_an_encoder_knows_places(tmp_path: Path) -> None:
    write_sample("reflectance", tmp_path)
    spec = tmp_path / "structure" / "dataset.toml"
    network = ("--backbone", "test_vit")
    run_json("extract", "--data", spec, *network, "--weights", "random")
    found = mae(run_json("heads", "--data", spec, *network, "--head", "linear", "--task", "period"))
    assert found["image:spectrum"] < 0.95 * found["image:sem"]
    assert found["image:sem+image:spectrum"] < 0.95 * found["image:sem"]
    assert found["image:sem"] < found[""]
    run_json("extract", "--data", spec, "--backbone", "texture")  # which has a spectrum of its own
    found = mae(run_json("heads", "--data", spec, "--backbone", "texture", "--head", "linear", "--task", "period"))
    assert found["image:sem"] < 0.7 * found["image:spectrum"]
    assert found["image:sem+image:spectrum"] > 0.97 * found["image:sem"]
