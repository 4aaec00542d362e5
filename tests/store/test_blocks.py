"""Which stored spaces belong to which block of a dataset."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store import Dataset, FeatureSpace, FeatureStore, InputError, load_dataset
from store.blocks import block_names, block_spaces, find_block, find_block_space

EXTRA = '[images.low]\ncolumn = "file"\nconvert = "linear"\n[texts.note]\ncolumn = "note"\n'
BF = FeatureSpace("image", "texture", 3, "v1", convert="percentile_stretch")
LOW = replace(BF, convert="linear")
NOTE = FeatureSpace("text", "ngrams", 4, "v1")


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Dataset:
    return load_dataset(make_dataset(EXTRA))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features.zarr")


def fill(store: FeatureStore, space: FeatureSpace, keys: Sequence[str | None]) -> None:
    content = [key for key in keys if key is not None]
    store.write(space, content, np.zeros((len(content), space.dim)))


def test_blocks_are_named_by_modality(dataset: Dataset) -> None:
    assert block_names(dataset) == ["image:bf", "image:low", "text:note"]
    assert find_block(dataset, "image:low") is dataset.images["low"]
    for name in ("image:note", "bf", "video:bf"):
        with pytest.raises(InputError, match=f"block '{name}' is needed, this dataset has image:bf, image:low, text:n"):
            find_block(dataset, name)


def test_a_space_stands_at_the_blocks_it_fits(dataset: Dataset, store: FeatureStore) -> None:
    keys = dataset.images["bf"].keys()
    for space in (BF, LOW, replace(BF, view="fourier"), replace(BF, crop_bottom_px=8), replace(BF, convert="fixed")):
        fill(store, space, keys)
    fill(store, NOTE, dataset.texts["note"].keys())
    found = block_spaces(dataset, store)
    assert {name: at.space for name, at in found.items()} == {
        "image:bf@texture": BF,
        "image:low@texture": LOW,
        "text:note@ngrams": NOTE,
    }
    assert found["image:bf@texture"].block == "image:bf"
    assert list(found["image:bf@texture"].keys) == keys


def test_a_space_that_holds_only_another_datasets_rows_is_not_listed(dataset: Dataset, store: FeatureStore) -> None:
    fill(store, BF, ["ab" * 32])
    assert block_spaces(dataset, store) == {}
    fill(store, BF, dataset.images["bf"].keys()[:1])
    assert list(block_spaces(dataset, store)) == ["image:bf@texture"]


def test_spaces_of_one_encoder_are_told_apart_by_fingerprint(dataset: Dataset, store: FeatureStore) -> None:
    other = replace(BF, weights_digest="v2")
    for space in (BF, other):
        fill(store, space, dataset.images["bf"].keys())
    names = sorted(f"image:bf@texture#{space.fingerprint[:8]}" for space in (BF, other))
    assert list(block_spaces(dataset, store)) == names
    assert find_block_space(dataset, store, f"image:bf@texture#{other.fingerprint[:8]}")[1].space == other
    assert find_block_space(dataset, store, other.fingerprint[:6])[1].space == other
    for name in ("image:bf@texture", "image@texture"):
        with pytest.raises(InputError, match=f"'{name}' is 2 in this dataset: {names[0]} .*{names[1]} .*Give one of"):
            find_block_space(dataset, store, name)


def test_a_space_is_found_by_any_of_its_names(dataset: Dataset, store: FeatureStore) -> None:
    fill(store, BF, dataset.images["bf"].keys())
    fill(store, NOTE, dataset.texts["note"].keys())
    for name in ("image:bf@texture", "image@texture", BF.fingerprint, BF.fingerprint[:5]):
        full, at = find_block_space(dataset, store, name)
        assert (full, at.space) == ("image:bf@texture", BF)
    with pytest.raises(InputError, match=r"no space 'image:bf@textur'\. Did you mean 'image:bf@texture'.*It holds:"):
        find_block_space(dataset, store, "image:bf@textur")
    with pytest.raises(InputError, match="has no space ''"):
        find_block_space(dataset, store, "")


def test_a_space_of_files_seen_otherwise_is_found_by_any_of_its_names(
    make_dataset: Callable[..., Path], store: FeatureStore
) -> None:
    dataset, seen = load_dataset(make_dataset()), replace(BF, convert="log", tiles="2x2")
    keys = dataset.images["bf"].keys()
    for space in (BF, seen, replace(seen, stack=[{"convert": "log"}]), replace(BF, convert="sqrt", encoder="other")):
        fill(store, space, keys)
    names = ("image:bf.log.2x2@texture", "image.log.2x2@texture", seen.fingerprint, seen.fingerprint[:8])
    for name in names:
        full, at = find_block_space(dataset, store, name)
        assert (full, at.space, at.block, list(at.keys)) == (names[0], seen, "image:bf", keys)
    assert find_block_space(dataset, store, "image@texture")[1].space == BF, "as the spec has it comes first"
    assert find_block_space(dataset, store, "image@other")[0] == "image:bf.sqrt@other", "its encoder's only space"
    assert list(block_spaces(dataset, store)) == ["image:bf@texture"]
    for name in ("image:no.log.2x2@texture", "image:bf.log@texture"):
        with pytest.raises(InputError, match=f"no space '{name}'.*It holds: image:bf@texture .*image:bf.log.2x2@tex"):
            find_block_space(dataset, store, name)


def test_an_empty_store_says_so(dataset: Dataset, store: FeatureStore) -> None:
    with pytest.raises(InputError, match="It holds: nothing yet"):
        find_block_space(dataset, store, "image:bf@texture")


def test_one_space_that_fits_two_blocks_needs_the_blocks_name(
    make_dataset: Callable[..., Path], store: FeatureStore
) -> None:
    dataset = load_dataset(make_dataset('[images.again]\ncolumn = "file"\n'))
    fill(store, BF, dataset.images["bf"].keys())
    assert find_block_space(dataset, store, "image:again@texture")[1].block == "image:again"
    for name in ("image@texture", BF.fingerprint[:8]):
        with pytest.raises(InputError, match="is 2 in this dataset"):
            find_block_space(dataset, store, name)


def test_a_fine_tuned_encoders_space_says_so_and_leaves_the_originals_name_alone(
    dataset: Dataset, store: FeatureStore
) -> None:
    held = dataset.images["bf"].keys()
    keys = [key for key in held if key is not None]
    plain, tuned = (replace(BF, encoder="resnet18", weights_digest=digest) for digest in ("v1", "v2"))
    store.write(plain, keys, np.zeros((len(keys), 3)), provenance={"name": "resnet18"})
    store.write(tuned, keys, np.zeros((len(keys), 3)), provenance={"name": "runs/finetune/bf", "tuned_on": "f00"})
    name = f"image:bf@resnet18#tuned-{tuned.fingerprint[:8]}"
    assert {name: at.space for name, at in block_spaces(dataset, store).items()} == {
        "image:bf@resnet18": plain, name: tuned
    }  # fmt: skip
    assert find_block_space(dataset, store, name)[1].space == store.find(name) == tuned
    assert store.provenance(tuned)["tuned_on"] == "f00" and store.provenance(BF) == {}
