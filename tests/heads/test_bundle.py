import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from heads.bundle import Bundle
from heads.bundle_folder import load_bundle
from heads.leaderboard import may_choose
from heads.matrix import load_matrix
from heads.refit import fit_bundle
from heads.registry import HEADS
from heads.sweep import Sweep
from store import FeatureStore, InputError, MetadataColumn, StoreError, make_split, parse_spec
from tests.heads.made import classes, dataset, matrix, numbers, planted, space

NAMES = np.array(["x"] * 90, dtype=object)
LEARNED = [name for name in HEADS if name != "prior"]


def a_sweep(heads=("linear", "lightgbm"), *, n=90, held_out=False, **options):
    X, y, _ = planted(n, 12)
    size = np.stack([X[:, 5] * 4, X[:, 6]], axis=1)
    given = np.where(np.arange(n) % 3 == 0, "test", "train") if held_out else None
    data = dataset(classes(y), numbers(size, columns=("w", "h")), numbers(X[:, 7], name="dose"), n=n, given=given)
    made = matrix(data, columns=("kv", "kv:missing"), image__bf_at_a=X, metadata=np.c_[np.arange(n), np.arange(n) % 2])
    return Sweep(data, made, make_split(data, n_folds=3), heads=heads, blocks=["image", "image+metadata"], **options)


@pytest.fixture(scope="module", params=LEARNED)
def saved(request, tmp_path_factory) -> tuple[Sweep, Bundle, Path]:
    sweep = a_sweep([request.param])
    folder = tmp_path_factory.mktemp("runs") / "bundle"
    return sweep, fit_bundle(sweep, sweep.run(), folder), folder


def test_a_bundle_predicts_what_the_model_predicted(saved):
    sweep, bundle, folder = saved
    pd.testing.assert_frame_equal(
        load_bundle(folder).predict(sweep.matrix), bundle.predict(sweep.matrix), check_exact=True
    )


def test_a_moved_bundle_predicts_the_same(saved, tmp_path):
    sweep, bundle, folder = saved
    shutil.copytree(folder, tmp_path / "elsewhere")
    moved = load_bundle(tmp_path / "elsewhere").predict(sweep.matrix)
    pd.testing.assert_frame_equal(moved, bundle.predict(sweep.matrix), check_exact=True)


def test_predictions_are_the_refitted_heads_own(saved):
    sweep, bundle, _ = saved
    model = bundle.models["kind"]
    plan = sweep.plan("kind", [(np.arange(90), np.arange(90))])
    [[head]] = sweep.fit([plan], model.blocks, model.head)
    p = head.predict_proba(sweep.columns(model.blocks, plan.rows))
    table = bundle.predict(sweep.matrix)
    assert np.allclose(table[["kind_p_a", "kind_p_b", "kind_p_c"]], p, atol=1e-12)
    assert (table["kind"] == np.array(["a", "b", "c"])[p.argmax(1)]).all()
    assert (table["kind"] == np.array(["a", "b", "c"])[sweep.dataset.tasks["kind"].y]).mean() > 0.9


def test_predictions_have_design_s_columns(saved):
    sweep, bundle, _ = saved
    table = bundle.predict(sweep.matrix)
    assert list(table) == [
        "id", "kind", "kind_p_a", "kind_p_b", "kind_p_c", "kind_set", "size_w", "size_w_low", "size_w_high",
        "size_h", "size_h_low", "size_h_high", "dose", "dose_low", "dose_high", "ood_distance",
    ]  # fmt: skip
    assert table["id"].tolist() == sweep.matrix.ids.tolist()
    assert (table["ood_distance"] < 1).mean() > 0.8
    assert np.corrcoef(table["size_w"], sweep.dataset.tasks["size"].y[:, 0])[0, 1] > 0.8


def test_nothing_in_the_folder_is_a_pickle_and_all_is_described(saved):
    _, bundle, folder = saved
    assert {file.suffix for file in folder.iterdir()} <= {".json", ".safetensors", ".txt"}
    document = json.loads((folder / "bundle.json").read_text())
    assert document["schema_version"] == 2 and document["split_fingerprint"] and document["versions"]["numpy"]
    assert document["dataset"]["name"] == "made"
    for task in document["tasks"]:
        scores = task["scores"]
        assert scores["baseline"].keys() == scores["metrics"].keys() and scores["verdict"]
    assert {block["fingerprint"] for block in document["blocks"] if block["space"]} == {space("a", 12).fingerprint}
    assert load_bundle(folder).spec == bundle.spec


def test_a_foreign_space_is_refused_with_its_differences(saved):
    sweep, bundle, _ = saved
    foreign = replace(sweep.matrix, spaces={"image:bf@a": space("a", 12, weights_digest="v2", view="fourier")})
    with pytest.raises(StoreError, match="weights_digest: 'v1' != 'v2'; view: 'plain' != 'fourier'"):
        bundle.predict(foreign)


def test_a_matrix_without_the_block_is_refused(saved):
    sweep, bundle, _ = saved
    other = matrix(sweep.dataset, image__fl_at_a=np.ones((90, 12)))
    with pytest.raises(StoreError, match="needs block 'image:bf@a'; the matrix has image:fl@a"):
        bundle.predict(other)


def test_blocks_are_found_by_name_not_by_place(saved):
    sweep, bundle, _ = saved
    old = sweep.matrix
    turned = matrix(
        sweep.dataset,
        columns=("kv:missing", "other", "kv"),
        metadata=np.c_[old.X[:, 13], np.ones(90), old.X[:, 12]],
        image__zz_at_b=np.zeros((90, 3)),
        image__bf_at_a=old.X[:, :12],
    )
    pd.testing.assert_frame_equal(bundle.predict(turned), bundle.predict(old), check_exact=True)


def test_rows_without_a_vector_stay_empty(saved):
    sweep, bundle, _ = saved
    X = sweep.matrix.X.copy()
    X[4, :12] = np.nan
    table = bundle.predict(replace(sweep.matrix, X=X))
    assert table.loc[4].drop("id").isna().all() and len(table) == 90
    whole = bundle.predict(sweep.matrix)
    pd.testing.assert_frame_equal(table.drop(index=4), whole.drop(index=4), rtol=1e-9)


def test_held_out_rows_are_never_fitted(tmp_path):
    sweep = a_sweep(["linear"], held_out=True)
    entries = sweep.run()
    before = fit_bundle(sweep, entries, tmp_path / "one").predict(sweep.matrix)
    held = sweep.split.held_out(sweep.dataset.ids)
    fitting = sweep.split.fitting(sweep.dataset.ids)
    sweep.dataset.tasks["kind"].y[held] = 0
    changed = sweep.matrix.X.copy()
    changed[held] += 5
    moved = replace(sweep, matrix=replace(sweep.matrix, X=changed))
    after = fit_bundle(moved, entries, tmp_path / "two").predict(sweep.matrix)
    pd.testing.assert_frame_equal(before.loc[fitting], after.loc[fitting], check_exact=True)
    assert set(before.loc[held, "kind"]) == {"a", "b", "c"}


def test_the_best_entry_of_each_task_is_saved(tmp_path):
    sweep = a_sweep()
    entries = sweep.run()
    for entry in entries:  # say so by hand: linear is best for kind, lightgbm with metadata for dose
        good = (entry["task"], entry["head"], len(entry["blocks"])) in {("kind", "linear", 1), ("dose", "lightgbm", 2)}
        name = entry["headline"]
        entry["metrics"][name]["value"] = (0.0 if name == "mae" else 1.0) if good else 0.5
    bundle = fit_bundle(sweep, entries, tmp_path / "bundle")
    assert (bundle.models["kind"].head, bundle.models["kind"].blocks) == ("linear", ("image:bf@a",))
    assert (bundle.models["dose"].head, bundle.models["dose"].blocks) == ("lightgbm", ("image:bf@a", "metadata"))
    assert bundle.columns == ("kv", "kv:missing")
    again = load_bundle(tmp_path / "bundle")
    pd.testing.assert_frame_equal(again.predict(sweep.matrix), bundle.predict(sweep.matrix), check_exact=True)


def test_a_bundle_is_replaced_whole(tmp_path):
    sweep = a_sweep(["linear"], tasks=["kind"])
    entries = sweep.run()
    folder = tmp_path / "runs" / "bundle"
    fit_bundle(sweep, entries, folder)
    (folder / "left.txt").write_text("of the old one")
    fit_bundle(sweep, entries, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["bundle.json", "weights.safetensors"]
    assert [file.name for file in folder.parent.iterdir()] == ["bundle"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    sweep = a_sweep(["linear"], tasks=["kind"])
    with pytest.raises(InputError, match="holds something that is no bundle"):
        fit_bundle(sweep, sweep.run(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    sweep = a_sweep(["linear"], tasks=["kind"])
    entries = sweep.run()

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="disk is full"):
        fit_bundle(sweep, entries, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    sweep = a_sweep(["linear"], tasks=["kind"])
    with pytest.raises(InputError, match="cannot be written"):
        fit_bundle(sweep, sweep.run(), tmp_path / "file" / "bundle")


def test_the_prior_alone_is_not_saved(tmp_path):
    sweep = a_sweep(["prior"])
    with pytest.raises(InputError, match="nothing to save"):
        fit_bundle(sweep, sweep.run(), tmp_path / "bundle")


def test_a_folder_without_a_bundle_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="is no bundle"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("spoil", ["weights", "missing", "json", "version"])
def test_a_damaged_bundle_is_refused(tmp_path, spoil):
    sweep = a_sweep(["linear"], tasks=["kind"])
    folder = tmp_path / "bundle"
    fit_bundle(sweep, sweep.run(), folder)
    weights, document = folder / "weights.safetensors", folder / "bundle.json"
    if spoil == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    elif spoil == "missing":
        weights.unlink()
    elif spoil == "json":
        document.write_text(document.read_text()[:-30])
    else:
        document.write_text(document.read_text().replace('"schema_version": 2', '"schema_version": 3', 1))
    with pytest.raises(StoreError, match=r"damaged|schema version 3, expected 2"):
        load_bundle(folder)


def test_new_rows_get_the_bundle_s_own_columns(tmp_path):
    y = np.arange(60) % 2
    metadata = {
        "kv": MetadataColumn("kv", "numeric", np.where(y == 1, 10.0, 5.0) + np.linspace(0, 1, 60)),
        "maker": MetadataColumn("maker", "categorical", np.array(["x", "y", "z"] * 20, dtype=object)),
    }
    store = FeatureStore(tmp_path / "features.zarr")
    data = dataset(classes(y), n=60, metadata=metadata)
    sweep = Sweep(data, load_matrix(data, store), make_split(data, n_folds=3), heads=["linear"])
    bundle = fit_bundle(sweep, sweep.run(), tmp_path / "bundle")
    new = dataset(
        n=3,
        metadata={
            "kv": MetadataColumn("kv", "numeric", np.array([10.5, 5.5, np.nan])),
            "maker": MetadataColumn("maker", "categorical", np.array(["never seen", "x", None], dtype=object)),
        },
    )
    made = bundle.load_matrix(new, store)
    assert made.columns == ("kv", "maker=x", "maker=y", "maker=z")
    table = bundle.predict(made)
    assert table["kind"].tolist()[:2] == ["b", "a"] and table["kind"].notna().all()
    assert table["ood_distance"].notna().all()


def test_new_files_need_only_what_the_models_read(tmp_path):
    sweep = a_sweep(["linear"], tasks=["kind"])
    parts = {
        "images": {"bf": {"column": "a"}, "fl": {"column": "b"}},
        "texts": {"note": {"from_filename": "fl"}},
        "metadata": {"kv": {"pattern": "(.)"}, "maker": {"column": "maker"}},
    }
    whole = parse_spec(sweep.dataset.spec.model_dump(exclude_none=True) | parts, "made")
    columns = {
        "kv": MetadataColumn("kv", "numeric", np.zeros(90)),
        "maker": MetadataColumn("maker", "categorical", NAMES),
    }
    described = replace(sweep, dataset=replace(sweep.dataset, spec=whole, metadata=columns))
    entries = sweep.run()
    by_width = {len(e["blocks"]): e for e in entries if may_choose(e)}
    narrow = fit_bundle(described, [by_width[1]], tmp_path / "narrow").spec
    assert (list(narrow.images), list(narrow.texts), list(narrow.metadata)) == (["bf"], [], [])
    wide = fit_bundle(described, [by_width[2]], tmp_path / "wide").spec
    assert (list(wide.images), list(wide.texts), list(wide.metadata)) == (["bf"], [], ["kv", "maker"])
    assert [column.kind for column in wide.metadata.values()] == ["numeric", "categorical"], "new tables are read alike"
    assert load_bundle(tmp_path / "wide").spec == wide


def test_a_bad_cell_leaves_a_row_without_the_predictions_that_read_metadata(tmp_path):
    sweep = a_sweep(["linear"], tasks=["kind", "dose"])
    entries = [e for e in sweep.run() if (e["task"] == "kind") == (e["blocks"] == ["image:bf@a"])]
    bundle = fit_bundle(sweep, entries, tmp_path / "bundle")
    assert [model.blocks for model in bundle.models.values()] == [("image:bf@a",), ("image:bf@a", "metadata")]
    whole = bundle.predict(sweep.matrix)
    found = bundle.predict(replace(sweep.matrix, has_metadata=np.arange(90) != 7))
    assert found["kind"].tolist() == whole["kind"].tolist()
    assert found.index[found["dose"].isna()].tolist() == found.index[found["ood_distance"].isna()].tolist() == [7]
    pd.testing.assert_frame_equal(found.drop(7), whole.drop(7))


def conditional_sweep(n=120, *, unit=None, all_apply=False, **options):
    X, y, _ = planted(n, 12)
    when = np.ones(n, bool) if all_apply else X[:, 4] + 0.3 * X[:, 5] > 0
    known = np.ones(n, bool)
    known[:5] = False
    dose = numbers(X[:, 7] * 3, name="dose")
    dose = replace(dose, when="flowable == 'yes'", applies=when & known, is_known=known)
    data = dataset(classes(y), dose, n=n)
    tasks = {"kind": {"column": "kind"}, "dose": {"column": "dose", "unit": unit}}
    spec = parse_spec(data.spec.model_dump(exclude_none=True) | {"tasks": tasks}, "made")
    data = replace(data, spec=spec)
    return Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), **options), when


@pytest.mark.parametrize("head", LEARNED)
def test_a_conditional_task_is_predicted_everywhere_with_the_condition_s_probability(tmp_path, head):
    sweep, when = conditional_sweep(heads=[head])
    bundle = fit_bundle(sweep, sweep.run(), tmp_path / "bundle")
    table = bundle.predict(sweep.matrix)
    p = table["dose_p_applies"]
    assert list(table.columns[-5:]) == ["dose", "dose_low", "dose_high", "dose_p_applies", "ood_distance"]
    assert "kind_p_applies" not in table and table["dose"].notna().all() and p.between(0, 1).all()
    assert p[5:][when[5:]].mean() > 0.6 > 0.4 > p[5:][~when[5:]].mean()
    scores = bundle.conditions["dose"].scores  # of rows that its models had not seen
    assert scores["metrics"]["roc_auc"]["low"] > 0.6 and scores["n_rows"] == 115
    again = load_bundle(tmp_path / "bundle").predict(sweep.matrix)
    pd.testing.assert_frame_equal(again, table, check_exact=True)


def test_a_condition_that_always_holds_is_sure(tmp_path):
    sweep, _ = conditional_sweep(heads=["linear"], all_apply=True)
    table = fit_bundle(sweep, sweep.run(), tmp_path / "bundle").predict(sweep.matrix)
    assert (table["dose_p_applies"] == 1).all()


def test_the_bundle_describes_its_columns_with_units(tmp_path):
    sweep, _ = conditional_sweep(heads=["linear"], unit="s")
    bundle = fit_bundle(sweep, sweep.run(), tmp_path / "bundle")
    document = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert [row["column"] for row in document["predictions"]] == [*bundle.predict(sweep.matrix), "status"]
    units = {row["column"]: row["unit"] for row in document["predictions"]}
    assert {name for name, unit in units.items() if unit == "s"} == {"dose", "dose_low", "dose_high"}
    meanings = {row["column"]: row["meaning"] for row in document["predictions"]}
    assert meanings["dose_p_applies"] == "probability that flowable == 'yes'"
    kind, dose = document["tasks"]
    assert kind["classes"] == ["a", "b", "c"] and kind["unit"] is None and dose["unit"] == "s"
    assert kind["scores"]["calibration"]["after"] and kind["scores"]["conformal"]["stated"] == 0.9
    assert dose["calibration"]["limits"][0] > 0 and dose["condition"]["classes"] == ["no", "yes"]


def test_intervals_and_sets_are_the_calibration_s(saved):
    sweep, bundle, folder = saved
    table = load_bundle(folder).predict(sweep.matrix)
    [limit] = bundle.models["dose"].fitted.calibration.limits
    np.testing.assert_allclose(table["dose_high"] - table["dose"], limit)
    np.testing.assert_allclose(table["dose"] - table["dose_low"], limit)
    [edge] = bundle.models["kind"].fitted.calibration.limits
    for _, row in table.iterrows():
        p = {name: row[f"kind_p_{name}"] for name in "abc"}
        kept = [name for name in "abc" if 1 - p[name] <= edge or name == row["kind"]]
        assert row["kind_set"] == "|".join(kept)


def test_two_columns_of_one_name_are_refused(tmp_path):
    X, y, _ = planted(90, 12)
    data = dataset(classes(y), numbers(X[:, 7], name="kind_p_a"), n=90)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=["linear"])
    with pytest.raises(InputError, match="two columns 'kind_p_a': give the task or the class another name"):
        fit_bundle(sweep, sweep.run(), tmp_path / "bundle")


def test_a_bundle_of_the_first_schema_still_predicts(tmp_path):
    sweep = a_sweep(["linear"])
    bundle = fit_bundle(sweep, sweep.run(), tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    document = json.loads(path.read_text())
    document["schema_version"] = 1
    del document["predictions"]
    for task in document["tasks"]:
        for name in ("calibration", "condition", "unit", "class_weight", "has_sample_weight"):
            del task[name]
    path.write_text(json.dumps(document))
    old, new = load_bundle(tmp_path / "bundle").predict(sweep.matrix), bundle.predict(sweep.matrix)
    assert list(old) == list(new) and (old["kind"] == new["kind"]).all() and (old["size_w"] == new["size_w"]).all()
    assert (old["kind_set"] == "a|b|c").all() and old["dose_low"].isna().all()
    raw = bundle.models["kind"].fitted.head.predict_proba(sweep.columns(bundle.models["kind"].blocks, np.arange(90)))
    np.testing.assert_allclose(old[["kind_p_a", "kind_p_b", "kind_p_c"]], raw, atol=1e-12)


def test_the_nearest_training_row_of_a_training_row_is_itself(saved):
    sweep, bundle, _ = saved
    found = bundle.nearest(sweep.matrix, sweep.matrix, k=3)
    assert [near[0][0] for near in found] == sweep.matrix.ids.tolist()
    assert all(near[0][1] < 1e-3 and near[0][1] <= near[1][1] <= near[2][1] for near in found)


def test_a_row_without_a_vector_has_no_neighbours_and_is_none(saved):
    sweep, bundle, _ = saved
    X, complete = sweep.matrix.X.copy(), sweep.matrix.complete.copy()
    X[7], complete[7] = np.nan, False
    found = bundle.nearest(replace(sweep.matrix, X=X, complete=complete), replace(sweep.matrix, complete=complete))
    assert found[7] == []
    assert all(sweep.matrix.ids[7] != name for near in found for name, _ in near)
