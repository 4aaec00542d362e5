import dataclasses

import pytest

from store import FeatureSpace, StoreError

SPACE = FeatureSpace("image", "resnet18", 512, "ab" * 32, {"input_px": [224, 224], "mean": [0.5]}, "avg", "linear")


def test_the_fingerprint_is_fixed_for_all_time() -> None:
    assert SPACE.fingerprint == "832c33cdae6b4cbd23577efec014bcb3304b76b0b36cd00c3f38c51557464f0d"


def test_a_space_survives_json() -> None:
    again = FeatureSpace.from_json(SPACE.to_json())
    assert again == SPACE and again.fingerprint == SPACE.fingerprint


CHANGES = {
    "encoder": "resnet34",
    "dim": 256,
    "weights_digest": "cd" * 32,
    "preprocess": {"input_px": [256, 256], "mean": [0.5]},
    "pooling": "max",
    "convert": "log",
    "crop_bottom_px": 8,
    "view": "fourier",
    "tiles": "2x2",
    "tile_px": 512,
    "pool": "max",
    "turns": "d4",
    "stack": [{"convert": "log", "crop_bottom_px": 0, "view": "plain"}],
    "precision": "bfloat16",
    "dtype": "float16",
    "modality": "text",
}


def test_every_field_is_tried() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(FeatureSpace)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_is_part_of_the_fingerprint(name: str) -> None:
    other = dataclasses.replace(SPACE, **{name: CHANGES[name]})
    assert other.fingerprint != SPACE.fingerprint
    assert [line.partition(":")[0] for line in SPACE.differences(other)] == [name]


def test_another_schema_is_refused() -> None:
    with pytest.raises(StoreError, match="schema version 7"):
        FeatureSpace.from_json(SPACE.to_json().replace('"schema_version":1', '"schema_version":7'))
    with pytest.raises(StoreError, match="unknown or missing fields"):
        FeatureSpace.from_json(SPACE.to_json().replace('"dim"', '"dims"'))
