import dataclasses

import pytest

from store import FeatureSpace, StoreError

SPACE = FeatureSpace("image", "resnet18", 512, "ab" * 32, {"input_px": [224, 224], "mean": [0.5]}, "avg", "linear")


def test_the_fingerprint_is_fixed_for_all_time() -> None:
    assert SPACE.fingerprint == "67d424321878309c5e48295d8946920c3320df47886d4fba7e43574c45599a06"


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
