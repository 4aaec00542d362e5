import re
import tomllib
from pathlib import Path

import pytest

from finetune.choice import choose_parts
from finetune.presets import NEEDED, PRESETS
from finetune.settings import AugmentSettings, BranchSettings, FinetuneSettings, read_settings
from store import SAMPLES, InputError, load_dataset, write_sample

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "finetune.md").read_text()


def test_assignments_go_over_the_table_and_the_table_over_the_preset() -> None:
    table = {"preset": "tem", "lr": 0.5, "augment": {"rotate_deg": 5}, "branches": {"metadata": {"dropout": 0.1}}}
    settings = read_settings(table, ["batch_size=7", "augment.hflip=0.25", "branches.bf.width=256"])
    assert (settings.backbone, settings.lr, settings.batch_size) == ("resnet18", 0.5, 7)
    assert (settings.augment.rotate_deg, settings.augment.hflip, settings.augment.vflip) == (5, 0.25, 0.5)
    assert settings.branches["metadata"] == BranchSettings(width=32, activation="relu", dropout=0.1)
    assert settings.branches["bf"].width == 256


def test_values_are_toml_or_bare_words() -> None:
    settings = read_settings(
        {}, ["lr=1e-3", "backbone=convnext_tiny", 'freeze=["stem", "stages.0"]', "fusion=[64, 32]", "ema = 0.99"]
    )
    assert (settings.lr, settings.backbone, settings.ema) == (1e-3, "convnext_tiny", 0.99)
    assert (settings.freeze, settings.fusion) == (("stem", "stages.0"), (64, 32))


def test_a_single_value_is_a_list_of_one() -> None:
    settings = read_settings({}, ["freeze=backbone", "fusion=64"])
    assert (settings.freeze, settings.fusion) == (("backbone",), (64,))


def test_none_switches_off_what_a_preset_has_on() -> None:
    settings = read_settings({"preset": "cells"}, ["input_px=none", "clip_norm=none"])
    assert settings.input_px is None and settings.clip_norm is None


def test_a_preset_is_chosen_by_an_assignment_too() -> None:
    assert read_settings({"preset": "tem"}, ["preset=garbage"]).fusion == (512,)


def test_the_name_of_a_branch_goes_over_its_kind() -> None:
    settings = read_settings({"branches": {"image": {"width": 8, "dropout": 0.5}, "fl": {"width": 4}}})
    assert settings.branch("fl", "image") == BranchSettings(width=4, dropout=0.5)
    assert settings.branch("bf", "image") == BranchSettings(width=8, dropout=0.5)
    assert settings.branch("notes", "text") == BranchSettings()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_says_what_it_needs(preset: str) -> None:
    assert read_settings({"preset": preset}).preset == preset
    assert preset in NEEDED


def test_settings_survive_json() -> None:
    settings = read_settings({"preset": "powder"}, ["task_weights={a=1, b=2.5}"])
    again = FinetuneSettings.model_validate_json(settings.model_dump_json(exclude_unset=True))
    assert again == settings and again.task_weights == {"a": 1.0, "b": 2.5}


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(InputError) as error:
        read_settings({"lrr": 1, "branches": {"bf": {"widht": 3}}}, ["augment.hflp=1", "optimizer=adamx", "batch_size"])
    text = str(error.value)
    assert text.startswith("[finetune]: ")
    assert "unknown key 'lrr'. Did you mean 'lr'?" in text
    assert "unknown key 'branches.bf.widht'. Did you mean 'width'?" in text
    assert "unknown key 'augment.hflp'. Did you mean 'hflip'?" in text
    assert "Did you mean 'adamw'" in text or "Did you mean 'adam'" in text
    assert "--set 'batch_size': expected key=value" in text


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("preset=tme", r"unknown preset 'tme'\. Did you mean 'tem'\? There is tem, cells"),
        ("batch_size=0", r"batch_size: needs a number from 1 on, or 'auto' \(got 0\)"),
        ("task_weights=even", r"task_weights: needs 'equal', 'uncertainty', or a number .* \(got 'even'\)"),
        ("task_weights={a=-1}", "a number from 0 on for each task"),
        ("ema=1.5", r"ema: .*less than 1 \(got 1.5\)"),
        ("lr=fast", r"lr: .* \(got 'fast'\)"),
        ("augment=strong", "augment: .*'strong'"),
    ],
)
def test_a_wrong_value_is_shown_with_what_was_expected(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_settings({}, [assignment])


def test_freeze_and_train_only_exclude_each_other() -> None:
    with pytest.raises(InputError, match="freeze and train_only both say what trains: keep one"):
        read_settings({"preset": "cells"}, ["freeze=backbone"])


def shown(default: object) -> str:
    """As TOML has it; `none` for what is off."""
    plain = {None: "none", False: "false", (): "[]"}
    if isinstance(default, str):
        return f'"{default}"'
    return plain[default] if default in ((), None) or default is False else str(default)  # type: ignore[index]


@pytest.mark.parametrize("table", [FinetuneSettings, BranchSettings, AugmentSettings])
def test_the_page_has_every_key_with_its_default(table: type) -> None:
    for key, field in table.model_fields.items():  # type: ignore[attr-defined]
        if key not in ("branches", "augment"):
            assert re.search(rf"^\| `{key}` \| `{re.escape(shown(field.default))}` \| \S", PAGE, re.MULTILINE), key
    assert all(re.search(rf"^\| `{preset}` \|", PAGE, re.MULTILINE) for preset in PRESETS)


def test_the_example_of_the_page_is_valid() -> None:
    [block] = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    settings = read_settings(tomllib.loads(block)["finetune"])
    assert (settings.preset, settings.branches["metadata"].width, settings.augment.vflip) == ("tem", 32, 0.5)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_the_sample_of_its_name(preset: str, tmp_path: Path) -> None:
    assert preset in SAMPLES
    write_sample(preset, tmp_path, n_rows=30, seed=0)
    parts = choose_parts(load_dataset(tmp_path / "dataset.toml"), read_settings({"preset": preset}))
    kinds = [part.kind for part in parts]
    assert all(kind in kinds for kind in NEEDED[preset])
    assert sum(part.n_images for part in parts) == sum(NEEDED[preset].get(kind, 0) for kind in ("image", "fourier"))
