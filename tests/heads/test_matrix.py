from pathlib import Path

import numpy as np
import pytest

from heads.matrix import load_matrix, load_matrix_like, metadata_columns
from store import FeatureStore, ImageBlock, ImageRef, InputError, MetadataColumn, TextBlock
from tests.heads.made import classes, dataset, space


def a_dataset(folder, n=6, *, metadata=None, no_file=()):
    refs = []
    for i in range(n):
        path = folder / f"{i}.bin"
        path.write_bytes(f"pixels {i}".encode())
        refs.append(None if i in no_file else ImageRef(str(path)))
    texts = TextBlock("note", tuple(f"text {i % 2}" for i in range(n)))
    return dataset(
        classes(np.arange(n) % 2),
        n=n,
        images={"bf": ImageBlock("bf", tuple(refs), "percentile_stretch")},
        texts={"note": texts},
        metadata=metadata or {},
        folder=folder,
    )


def fill(store, where, data, *, block=None, dim=4, seed=0, skip=()):
    row_keys = (block or data.images["bf"]).keys()
    distinct = dict.fromkeys(key for key in row_keys if key is not None)
    keys = [key for i, key in enumerate(distinct) if i not in skip]
    vectors = np.random.default_rng(seed).normal(size=(len(keys), dim)).astype(np.float32)
    store.write(where, keys, vectors, provenance={"from": "a test"})
    return dict(zip(keys, vectors, strict=True))


def text_space(dim=3):
    return space("ngrams", dim, modality="text", convert=None)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features.zarr")


def test_blocks_are_joined_by_key_in_dataset_order(tmp_path, store):
    data = a_dataset(tmp_path, metadata={"dose": MetadataColumn("dose", "numeric", np.arange(6.0))})
    image = fill(store, space(), data)
    text = fill(store, text_space(), data, block=data.texts["note"], dim=3)
    matrix = load_matrix(data, store)
    assert list(matrix.blocks) == ["image:bf@texture", "text:note@ngrams", "metadata"]
    assert matrix.X.shape == (6, 8) and matrix.X.dtype == np.float32
    assert (matrix.X[:, :4] == np.stack(list(map(image.get, data.images["bf"].keys())))).all()
    assert (matrix.X[:, 4:7] == np.stack(list(map(text.get, data.texts["note"].keys())))).all()
    assert matrix.X[:, 7].tolist() == [0, 1, 2, 3, 4, 5]
    assert matrix.columns == ("dose",) and matrix.complete.all() and matrix.absent == ()
    assert matrix.spaces["image:bf@texture"].fingerprint == space().fingerprint
    assert matrix.provenance["image:bf@texture"] == {"from": "a test"}
    assert matrix.select(["metadata", "text:note@ngrams"]).tolist() == [7, 4, 5, 6]


def test_only_spaces_that_fit_the_block_are_taken(tmp_path, store):
    data = a_dataset(tmp_path)
    fill(store, space(), data)
    fill(store, space("other", convert="minmax"), data)
    fill(store, space("cropped", crop_bottom_px=8), data)
    fill(store, space("viewed", view="fourier"), data)
    assert list(load_matrix(data, store).blocks) == ["image:bf@texture"]


def test_a_space_of_another_dataset_is_passed_over(tmp_path, store):
    data = a_dataset(tmp_path)
    fill(store, space(), data)
    store.write(space("elsewhere"), ["ab" * 32], np.ones((1, 4), np.float32))
    assert list(load_matrix(data, store).blocks) == ["image:bf@texture"]


def test_two_spaces_of_one_encoder_carry_their_fingerprints(tmp_path, store):
    data = a_dataset(tmp_path)
    spaces = [space(), space(weights_digest="v2")]
    for one in spaces:
        fill(store, one, data)
    assert set(load_matrix(data, store).blocks) == {f"image:bf@texture#{s.fingerprint[:8]}" for s in spaces}


def test_backbones_keep_some_encoders(tmp_path, store):
    data = a_dataset(tmp_path)
    fill(store, space(), data)
    fill(store, space("resnet18"), data)
    matrix = load_matrix(data, store, backbones=["resnet18"])
    assert list(matrix.blocks) == ["image:bf@resnet18"] and matrix.absent == ("text:note",)


def test_a_folder_means_the_space_of_its_weights_alone(tmp_path, store):
    data = a_dataset(tmp_path)
    tuned = space("resnet18", weights_digest="tuned")
    for one in (space("resnet18"), tuned, space()):
        fill(store, one, data)
    matrix = load_matrix(data, store, backbones=["runs/a/bf"], digests={"runs/a/bf": "tuned"})
    assert list(matrix.spaces.values()) == [tuned]
    both = load_matrix(data, store, backbones=["runs/a/bf", "texture"], digests={"runs/a/bf": "tuned"})
    assert {one.fingerprint for one in both.spaces.values()} == {tuned.fingerprint, space().fingerprint}
    with pytest.raises(InputError, match=r"'runs/a/bf' is not extracted .* there is resnet18, texture\. Run extract"):
        load_matrix(data, store, backbones=["runs/a/bf"], digests={"runs/a/bf": "of a later run"})


def test_an_unknown_backbone_names_the_nearest(tmp_path, store):
    data = a_dataset(tmp_path)
    fill(store, space(), data)
    with pytest.raises(InputError, match=r"'textur' is not extracted.*Did you mean 'texture'"):
        load_matrix(data, store, backbones=["textur"])


def test_rows_not_extracted_yet_ask_for_extract(tmp_path, store):
    data = a_dataset(tmp_path)
    fill(store, space(), data, skip=(1, 4))
    with pytest.raises(InputError, match="image:bf@texture: 2 of 6 contents are not extracted yet: run extract"):
        load_matrix(data, store)


def test_nothing_extracted_asks_for_extract(tmp_path, store):
    with pytest.raises(InputError, match="nothing is extracted for image:bf, text:note: run extract"):
        load_matrix(a_dataset(tmp_path), store)


def test_failed_and_missing_images_keep_their_row(tmp_path, store):
    data = a_dataset(tmp_path, no_file=(2,))
    fill(store, space(), data, skip=(0,))
    store.fail(space(), {data.images["bf"].keys()[0]: "cut in half"})
    matrix = load_matrix(data, store)
    assert matrix.complete.tolist() == [False, True, False, True, True, True]
    assert np.isnan(matrix.X[[0, 2]]).all() and matrix.ids.tolist() == data.ids.tolist()
    assert matrix.without_vector() == {"image:bf@texture": 2}


def test_metadata_alone_needs_no_store(tmp_path, store):
    data = dataset(classes([0, 1]), n=2, metadata={"dose": MetadataColumn("dose", "numeric", np.array([1.0, np.nan]))})
    matrix = load_matrix(data, store)
    assert matrix.columns == ("dose", "dose:missing") and matrix.complete.all()


def test_metadata_is_transformed_encoded_and_indicated():
    columns = {
        "magnification": MetadataColumn("magnification", "numeric", np.array([1.0, np.e, np.nan]), "log"),
        "kv": MetadataColumn("kv", "numeric", np.array([5.0, 10.0, 15.0])),
        "maker": MetadataColumn("maker", "categorical", np.array(["b", None, "a"], dtype=object)),
    }
    made = metadata_columns(columns)
    assert list(made) == ["magnification", "magnification:missing", "kv", "maker=a", "maker=b", "maker:missing"]
    assert np.allclose(made["magnification"], [0, 1, np.nan], equal_nan=True)
    assert made["magnification:missing"].tolist() == [0, 0, 1]
    assert made["maker=b"].tolist() == [1, 0, 0] and made["maker:missing"].tolist() == [0, 1, 0]


def test_monotone_metadata_marks_its_columns_only(tmp_path, store):
    columns = {
        "dose": MetadataColumn("dose", "numeric", np.array([1.0, np.nan] * 3), monotone="decreasing"),
        "kv": MetadataColumn("kv", "numeric", np.arange(6.0), monotone="increasing"),
        "maker": MetadataColumn("maker", "categorical", np.array(["a", "b"] * 3, dtype=object)),
    }
    data = a_dataset(tmp_path, metadata=columns)
    fill(store, space(), data)
    matrix = load_matrix(data, store)
    assert matrix.columns == ("dose", "dose:missing", "kv", "maker=a", "maker=b")
    assert matrix.monotone(data.metadata).tolist() == [0, 0, 0, 0, -1, 0, 1, 0, 0]


def test_metadata_of_new_rows_has_the_fitted_columns():
    new = {
        "kv": MetadataColumn("kv", "numeric", np.array([5.0, np.nan])),
        "maker": MetadataColumn("maker", "categorical", np.array(["never seen", "a"], dtype=object)),
    }
    made = metadata_columns(new, ["maker=b", "maker=a", "kv"])
    assert list(made) == ["maker=b", "maker=a", "kv"]
    assert made["maker=b"].tolist() == [0, 0] and made["maker=a"].tolist() == [0, 1]


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(InputError, match="metadata column 'kv' is not in this table; it has none"):
        metadata_columns({}, ["kv"])


def test_the_log_of_zero_is_refused():
    with pytest.raises(InputError, match="the log of 0 does not exist"):
        metadata_columns({"m": MetadataColumn("m", "numeric", np.array([0.0, 1.0]), "log")})


def test_a_matrix_like_the_fitted_one_has_its_blocks_in_order(tmp_path, store):
    data = a_dataset(tmp_path, metadata={"dose": MetadataColumn("dose", "numeric", np.arange(6.0))})
    fill(store, space(), data)
    fill(store, space("resnet18"), data)
    wanted = {"image:bf@resnet18": space("resnet18")}
    like = load_matrix_like(data, store, spaces=wanted, columns=["dose:missing", "dose"])
    whole = load_matrix(data, store)
    assert list(like.blocks) == ["image:bf@resnet18", "metadata"] and like.columns == ("dose:missing", "dose")
    assert (like.X[:, :4] == whole.X[:, whole.blocks["image:bf@resnet18"]]).all()
