"""Vectors out to other tools, and back in."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from store import FeatureSpace, InputError, load_dataset
from store.exchange import EXPORTS, IMPORTS, export_block, export_format, export_vectors, import_vectors
from store.vectors.features import FeatureStore

SPACE = FeatureSpace("image", "texture", 5, "v1", {"size_px": 256}, convert="percentile")
KEYS = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(40)]
X = np.random.default_rng(0).standard_normal((40, 5), dtype=np.float32)
ORDER = [7, 3, 3, 0, 39]
NAMED = {"name": SPACE.name, "fingerprint": SPACE.fingerprint}
IDS = [f"row {i}" for i in range(len(ORDER))]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    features = FeatureStore(tmp_path / "features.zarr")
    features.write(SPACE, KEYS, X)
    return features


@pytest.fixture(params=EXPORTS)
def to(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def export(store: FeatureStore, to: str, out: Path) -> dict[str, object]:
    return export_vectors(store, SPACE, IDS, keys=[KEYS[i] for i in ORDER], to=to, out=out)


def read_back(file: Path) -> tuple[list[str], list[str], np.ndarray]:
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return arrays["ids"].tolist(), arrays["keys"].tolist(), arrays["X"]
    if file.suffix == ".anndata":
        with h5py.File(file) as root:
            assert FeatureSpace.from_json(root["uns/embedonce_space"][()].decode()) == SPACE
            ids, keys = (root[f"obs/{name}"].asstr()[:].tolist() for name in ("_index", "key"))
            return ids, keys, root["X"][:]
    table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    if file.suffix == ".parquet":
        return table["id"].tolist(), table["key"].tolist(), np.stack(table["X"].tolist())
    return table["id"].tolist(), table["key"].tolist(), table.iloc[:, 2:].to_numpy(np.float32)


def test_rows_are_exported_in_the_order_of_the_ids(store: FeatureStore, tmp_path: Path, to: str) -> None:
    out = tmp_path / f"vectors.{to}"
    assert export(store, to, out) == {"out": str(out), "rows": 5, "left_out": []}
    ids, keys, vectors = read_back(out)
    assert ids == IDS
    assert keys == [KEYS[i] for i in ORDER]
    np.testing.assert_array_equal(vectors, X[ORDER])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.zarr", out.name]


ENCODINGS = {
    "/": ("anndata", "0.1.0"),
    "X": ("array", "0.2.0"),
    "obs": ("dataframe", "0.2.0"),
    "obs/_index": ("string-array", "0.2.0"),
    "obs/key": ("string-array", "0.2.0"),
    "var": ("dataframe", "0.2.0"),
    "var/_index": ("string-array", "0.2.0"),
    "uns": ("dict", "0.1.0"),
    "uns/embedonce_space": ("string", "0.2.0"),
} | dict.fromkeys(("layers", "obsm", "obsp", "varm", "varp"), ("dict", "0.1.0"))
"""Of every element, as https://anndata.readthedocs.io/en/stable/fileformat-prose.html has it."""


def test_an_anndata_file_follows_the_specification_of_its_format(store: FeatureStore, tmp_path: Path) -> None:
    export(store, "anndata", tmp_path / "x.h5ad")
    found: dict[str, tuple[str, str]] = {}
    with h5py.File(tmp_path / "x.h5ad") as root:
        root.visititems(lambda name, element: found.update({name: encoding(element)}))
        assert found | {"/": encoding(root)} == ENCODINGS
        assert root["X"].dtype == np.float32 and root["X"].shape == (5, 5)
        for table, columns, length in (("obs", ["key"], 5), ("var", [], 5)):
            assert root[table].attrs["_index"] == "_index"
            assert root[table].attrs["column-order"].tolist() == columns
            assert h5py.check_string_dtype(root[table]["_index"].dtype).encoding == "utf-8"
            assert len(root[table]["_index"]) == length
        assert root["var/_index"].asstr()[:].tolist() == ["x0", "x1", "x2", "x3", "x4"]


def encoding(element: h5py.HLObject) -> tuple[str, str]:
    return element.attrs["encoding-type"], element.attrs["encoding-version"]


def test_anndata_itself_reads_it(store: FeatureStore, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata", reason="anndata, which needs pandas < 3 as of 0.12, is not installed")
    export(store, "anndata", tmp_path / "x.h5ad")
    found = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert found.obs_names.tolist() == IDS and found.obs["key"].tolist() == [KEYS[i] for i in ORDER]
    np.testing.assert_array_equal(found.X, X[ORDER])
    assert FeatureSpace.from_json(found.uns["embedonce_space"]) == SPACE


def test_rows_without_a_vector_are_left_out_and_named(store: FeatureStore, tmp_path: Path, to: str) -> None:
    out = tmp_path / f"vectors.{to}"
    done = export_vectors(store, SPACE, ["a", "b", "c"], keys=[None, KEYS[1], "f" * 64], to=to, out=out)
    assert (done["rows"], done["left_out"]) == (1, ["a", "c"])
    assert read_back(out)[0] == ["b"]
    np.testing.assert_array_equal(read_back(out)[2], X[[1]])


def test_a_dataset_is_exported_in_its_own_order(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    dataset, space = load_dataset(make_dataset()), replace(SPACE, convert="percentile_stretch")
    features, keys = FeatureStore(tmp_path / "features.zarr"), dataset.images["bf"].keys()
    present = [key for key in keys[::-1] if key is not None and key != keys[5]]
    features.write(space, present, X[: len(present)])
    done = export_block(dataset, features, "image@texture", to="npz", out=tmp_path / "x.npz")
    assert (done["name"], done["fingerprint"]) == ("image:bf@texture", space.fingerprint)
    assert (done["rows"], done["left_out"]) == (len(present), ["r05"])
    ids, found_keys, found = read_back(tmp_path / "x.npz")
    assert ids == [row for row in dataset.ids if row != "r05"]
    assert found_keys == present[::-1]
    np.testing.assert_array_equal(found, X[: len(present)][::-1])


def test_a_missing_package_is_named(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'embedonce\[anndata\]', or choose another --to"):
        export(store, "anndata", tmp_path / "x.h5ad")
    assert not list(tmp_path.glob("x.h5ad*"))


@pytest.mark.parametrize("to", IMPORTS)
def test_what_was_exported_can_be_imported(store: FeatureStore, tmp_path: Path, to: str) -> None:
    file, other = tmp_path / f"vectors.{to}", FeatureStore(tmp_path / "other.zarr")
    export(store, to, file)
    assert import_vectors(other, file) == NAMED | {"rows": 4, "present": 0, "repeated": 1}
    assert import_vectors(other, file) == NAMED | {"rows": 0, "present": 4, "repeated": 1}
    asked = [KEYS[i] for i in ORDER]
    np.testing.assert_array_equal(other.read(SPACE, asked), X[ORDER])
    assert other.info(SPACE)["provenance"] == [{"imported": file.name}]
    with pytest.raises(InputError, match="another feature space: weights_digest"):
        import_vectors(other, file, space=replace(SPACE, weights_digest="v2"))


def test_a_plain_file_needs_a_space(tmp_path: Path) -> None:
    file, store = tmp_path / "plain.npz", FeatureStore(tmp_path / "features.zarr")
    np.savez(file, keys=np.array(KEYS), X=X)
    with pytest.raises(InputError, match="name one with --space"):
        import_vectors(store, file)
    assert import_vectors(store, file, space=SPACE) == NAMED | {"rows": 40, "present": 0, "repeated": 0}
    np.testing.assert_array_equal(store.read(SPACE, KEYS), X)


def write_file(file: Path, keys: list[str], vectors: np.ndarray) -> Path:
    if file.suffix == ".npz":
        np.savez(file, keys=np.array(keys), X=vectors)
    else:
        pd.DataFrame({"key": keys, "X": list(vectors)}).to_parquet(file)
    return file


@pytest.mark.parametrize("to", IMPORTS)
def test_every_row_of_a_file_is_accounted_for(tmp_path: Path, to: str) -> None:
    store = FeatureStore(tmp_path / "features.zarr")
    store.write(SPACE, KEYS[:10], X[:10])
    keys = [*KEYS[5:20], KEYS[12], KEYS[5].upper(), KEYS[12]]
    vectors = np.concatenate([X[5:20], X[[12, 5, 12]]]) * np.float32(1 + 5e-4)  # as another engine might have them
    done = import_vectors(store, write_file(tmp_path / f"x.{to}", keys, vectors), space=SPACE)
    assert done == NAMED | {"rows": 10, "present": 5, "repeated": 3} and sum([10, 5, 3]) == len(keys)
    np.testing.assert_array_equal(store.read(SPACE, KEYS[:10]), X[:10], "what was there stays")
    np.testing.assert_array_equal(store.read(SPACE, KEYS[10:20]), vectors[5:15])
    assert store.info(SPACE)["rows"] == 20


@pytest.mark.parametrize("to", IMPORTS)
def test_a_file_that_contradicts_the_store_is_refused_whole(store: FeatureStore, tmp_path: Path, to: str) -> None:
    vectors = X.copy()
    vectors[[3, 30]] *= np.float32(1.002)
    new = "f" * 64
    file = write_file(tmp_path / f"x.{to}", [new, *KEYS], np.concatenate([X[:1], vectors]))
    problem = (
        rf"cannot import .*x\.{to}: 2 of its keys \({KEYS[3][:12]}, {KEYS[30][:12]}\) have other vectors in the store, "
        rf"and nothing was imported\. One of the two .*store gc --drop {SPACE.fingerprint[:12]}"
    )
    with pytest.raises(InputError, match=problem):
        import_vectors(store, file, space=SPACE)
    assert store.missing(SPACE, [new]) == [new]
    np.testing.assert_array_equal(store.read(SPACE, KEYS), X)


def test_a_file_that_contradicts_itself_is_refused_whole(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features.zarr")
    file = write_file(tmp_path / "x.npz", [*KEYS, KEYS[7], KEYS[8]], np.concatenate([X, X[[7, 9]]]))
    with pytest.raises(
        InputError, match=rf"1 of its keys \({KEYS[8][:12]}\) stand there with different vectors, and nothi"
    ):
        import_vectors(store, file, space=SPACE)
    assert not store.present(SPACE, KEYS).any()


def test_vectors_of_a_lower_precision_may_differ_more(tmp_path: Path) -> None:
    low, store = replace(SPACE, precision="bfloat16"), FeatureStore(tmp_path / "features.zarr")
    store.write(low, KEYS, X)
    near, far = (write_file(tmp_path / f"{name}.npz", KEYS, X * np.float32(name)) for name in ("1.08", "1.12"))
    assert import_vectors(store, near, space=low)["present"] == 40
    with pytest.raises(InputError, match="40 of its keys"):
        import_vectors(store, far, space=low)


def test_bad_files_are_refused_in_one_line(store: FeatureStore, tmp_path: Path) -> None:
    for name in ("cut.npz", "cut.parquet"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not really")
        with pytest.raises(InputError, match=f"cannot import .*{name}"):
            import_vectors(store, tmp_path / name)
    with pytest.raises(InputError, match=r"ending in \.npz or \.parquet"):
        import_vectors(store, tmp_path / "vectors.txt")
    with pytest.raises(InputError, match="cannot import"):
        import_vectors(store, tmp_path / "absent.npz")
    np.savez(tmp_path / "keyless.npz", X=X)
    with pytest.raises(InputError, match="keys"):
        import_vectors(store, tmp_path / "keyless.npz", space=SPACE)
    np.savez(tmp_path / "names.npz", keys=np.array(["img_1"]), X=X[:1])
    with pytest.raises(InputError, match="'img_1' is no content key"):
        import_vectors(store, tmp_path / "names.npz", space=SPACE)
    np.savez(tmp_path / "wide.npz", keys=np.array(KEYS), X=np.zeros((40, 6), np.float32))
    with pytest.raises(InputError, match=r"X has shape \(40, 6\), expected \(40, 5\)"):
        import_vectors(store, tmp_path / "wide.npz", space=SPACE)
    np.savez(tmp_path / "words.npz", keys=np.array(KEYS), X=np.full((40, 5), "1.0"))
    with pytest.raises(InputError, match=r"words\.npz: X is of type <U3, expected numbers"):
        import_vectors(store, tmp_path / "words.npz", space=SPACE)
    pd.DataFrame({"key": [None], "X": [X[0]]}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="'none' is no content key"):
        import_vectors(store, tmp_path / "none.parquet", space=SPACE)
    np.savez(tmp_path / "objects.npz", keys=np.array([{}], dtype=object), X=X)
    with pytest.raises(InputError, match="cannot import"):
        import_vectors(store, tmp_path / "objects.npz", space=SPACE)


def test_bad_targets_are_refused_in_one_line(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected npz, parquet, csv, anndata. Did you mean 'parquet'"):
        export(store, "parket", tmp_path / "x")
    with pytest.raises(InputError, match=r"cannot write .*no/x\.npz"):
        export(store, "npz", tmp_path / "no" / "x.npz")


def test_an_interrupted_export_leaves_nothing_behind(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(file: Path, *_: object) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(EXPORTS, "npz", stop)
    with pytest.raises(KeyboardInterrupt):
        export(store, "npz", tmp_path / "x.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["features.zarr"]


def test_the_ending_says_what_is_written(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.csv ends as csv and --to says parquet: give one of them, or an --out"):
        export(store, "parquet", tmp_path / "x.csv")
    assert [export_format(None, Path(f"x.{end}")) for end in ("npz", "parquet", "csv", "h5ad")] == list(EXPORTS)
    assert export_format("csv", Path("x.tsv")) == "csv"
    with pytest.raises(
        InputError, match=r"cannot tell what to write to x: end --out in \.npz, \.parquet, \.csv, \.h5ad, or"
    ):
        export_format(None, Path("x"))


def test_a_file_to_import_that_is_not_there_is_said_to_be_missing(store: FeatureStore, tmp_path: Path) -> None:
    for name in ("nowhere.npz", "nowhere.parquet"):
        with pytest.raises(
            InputError, match=rf"cannot import .*{name}: there is no such file; give one that `store ex"
        ):
            import_vectors(store, tmp_path / name)
