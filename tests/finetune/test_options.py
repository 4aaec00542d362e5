from dataclasses import replace
from pathlib import Path

import pytest

from finetune import choose_settings
from store import InputError, load_dataset
from tests.finetune.trained import make_images


def test_the_command_line_is_over_the_spec(tmp_path: Path) -> None:
    dataset = load_dataset(make_images(tmp_path))
    table = {"lr": 0.5, "max_epochs": 3, "backbone": "resnet18"}
    dataset = replace(dataset, spec=dataset.spec.model_copy(update={"finetune": table}))
    settings, notes = choose_settings(
        dataset, assignments=["lr=0.25"], backbones=["test_resnet"], init="backbone", weights="random", device="cpu"
    )
    assert (settings.lr, settings.max_epochs, settings.backbone) == (0.25, 3, "test_resnet")
    assert (settings.init, settings.weights, notes) == ("backbone", "random", [])


def test_the_sample_is_shortened_without_a_gpu_and_says_how(tmp_path: Path) -> None:
    dataset = load_dataset(make_images(tmp_path))
    assert choose_settings(dataset, device="cpu")[0].max_epochs == 20
    sample = replace(dataset, spec=dataset.spec.model_copy(update={"sample": "tem"}))
    settings, [line] = choose_settings(sample, device="cpu")
    assert settings.input_px is not None and settings.max_epochs < 20
    assert line.startswith("no GPU: the built-in sample's training is shortened: input_px = ")
    settings, [line] = choose_settings(sample, assignments=["max_epochs=30"], device="cpu")
    assert settings.max_epochs == 30 and "max_epochs" not in line


def test_two_backbones_for_images_are_refused(tmp_path: Path) -> None:
    dataset = load_dataset(make_images(tmp_path))
    message = "--backbone resnet34: one backbone for images is trained at a time, and resnet18 is given already"
    with pytest.raises(InputError, match=message):
        choose_settings(dataset, backbones=["resnet18", "resnet34"])
    with pytest.raises(InputError, match="unknown backbone 'resnett'"):
        choose_settings(dataset, backbones=["resnett"])
    for text in ("distilbert-base-uncased", "runs/finetune/mistyped"):  # the latter could be a name on the hub
        with pytest.raises(InputError, match=f"backbone '{text}' takes texts, but the dataset has no"):
            choose_settings(dataset, backbones=[text])
