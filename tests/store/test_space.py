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


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "image.linear@resnet18"),
        ({"convert": "percentile_stretch"}, "image@resnet18"),
        ({"convert": None, "view": "fourier", "tiles": "2x2", "pool": "max"}, "image.fourier.2x2.pool-max@resnet18"),
        ({"convert": "percentile_clip+gamma", "view": "blur:1.5"}, "image.percentile_clip-gamma.blur-1.5@resnet18"),
        ({"crop_bottom_px": "auto-1", "tile_px": 64}, "image.linear.crop-auto-1.tile-64@resnet18"),
        ({"precision": "bfloat16", "dtype": "float16"}, "image.linear.bfloat16.stored-float16@resnet18"),
        (
            {
                "convert": None,
                "stack": [
                    {"convert": "percentile_stretch", "crop_bottom_px": 0, "view": "plain"},
                    {"convert": None, "crop_bottom_px": 0, "view": "fourier"},
                ],
            },
            "image.stack-plain-fourier@resnet18",
        ),
        ({"modality": "text", "convert": None}, "text@resnet18"),
    ],
)
def test_a_name_says_what_is_not_as_usual(changed: dict[str, object], name: str) -> None:
    assert dataclasses.replace(SPACE, **changed).name == name  # type: ignore[arg-type]
