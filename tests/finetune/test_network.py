import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from extract import load_backbone
from finetune.blueprint import Blueprint
from finetune.branches import module_key
from finetune.network import MultimodalNetwork, make_network
from finetune.settings import read_settings
from heads import standardise
from store import InputError, StoreError
from tests.finetune.made import N, data, image, network, pixels, text_folder
from tests.heads.made import classes, numbers

ALL = np.arange(N)


def shapes(made: torch.nn.Module, *, without: str = ".encoder.") -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in made.named_parameters() if without not in name}


# --- the five studies ---


def test_tem_has_the_dimensions_of_the_study() -> None:
    tasks = tuple(classes(np.arange(N) % c, name=f"task{c}") for c in (2, 4, 7))
    made = network(data(image("tem"), metadata=True, tasks=tasks), preset="tem", backbone="resnet18")
    assert shapes(made) == {
        "branches.metadata.projection.0.weight": (32, 2),  # the magnification, and where it is missing
        "branches.metadata.projection.0.bias": (32,),
        **{f"heads.task{c}.{part}": shape for c in (2, 4, 7) for part, shape in (("weight", (c, 544)), ("bias", (c,)))},
    }
    assert isinstance(made.branches["metadata"].projection[1], torch.nn.ReLU)
    assert len(made.fusion) == 0 and made.dim == 512 + 32


def test_cells_has_one_stem_of_six_channels_and_trains_the_last_stage() -> None:
    settings = read_settings({"preset": "cells", "weights": "random"}, ["backbone=test_convnext", "input_px=64"])
    made = make_network(data(image("bf"), image("fl")), settings, rows=ALL, seed=0)
    assert list(made.branches) == ["stack"] and made.blueprint.branches[0].blocks == ("bf", "fl")
    assert made.branches["stack"].encoder.stem[0].weight.shape[1] == 6
    assert shapes(made) == {"heads.kind.weight": (3, 64), "heads.kind.bias": (3,), "heads.size.weight": (2, 64),
                            "heads.size.bias": (2,)}  # fmt: skip
    with torch.device("meta"):
        names = [name for name, _ in timm.create_model("convnext_large", num_classes=0).named_parameters()]
    assert read_settings({"preset": "cells"}).backbone == "convnext_large"
    assert sum(name.startswith("stages.3.") for name in names) > 20 and "head.norm.weight" in names


def test_powder_has_the_dimensions_of_the_study() -> None:
    tasks = (*(numbers(np.arange(N), name=name) for name in ("aor", "hr", "ci", "flow")), classes([0, 1] * 6))
    made = network(data(image("sem"), metadata=True, tasks=tasks), preset="powder", backbone="efficientnet_b0")
    found = shapes(made)
    assert [found[f"branches.metadata.projection.{i}.weight"] for i in (0, 2)] == [(32, 2), (16, 32)]
    assert [found[f"fusion.{i}.weight"] for i in (0, 2)] == [(256, 1280 + 16), (128, 256)]
    assert {found[f"heads.{name}.weight"] for name in ("aor", "hr", "ci", "flow")} == {(1, 128)}
    assert found["heads.kind.weight"] == (2, 128)


def test_reflectance_has_two_paths_of_1024_and_a_layer_of_512() -> None:
    task = numbers(np.random.default_rng(0).random((N, 10)), name="reflectance", columns=tuple("abcdefghij"))
    settings = read_settings({"preset": "reflectance"}, ["input_px=64"])
    made = make_network(data(image("sem"), image("sem.fourier", "fourier"), tasks=(task,)), settings, rows=ALL, seed=0)
    assert [plan.dim for plan in made.blueprint.branches] == [1024, 1024]
    assert shapes(made) == {"fusion.0.weight": (512, 2048), "fusion.0.bias": (512,),
                            "heads.reflectance.weight": (10, 512), "heads.reflectance.bias": (10,)}  # fmt: skip
    own, spectrum = (made.branches[name].encoder for name in ("sem", "sem.fourier"))
    assert own.stem.conv.weight.shape == (64, 3, 7, 7) and spectrum.stem.conv.weight.shape == (64, 1, 7, 7)
    norms = {type(module).__name__ for module in own.modules() if "Norm" in type(module).__name__}
    assert norms == {"InstanceNorm2d"}
    assert not set(own.parameters()) & set(spectrum.parameters())


def test_garbage_has_the_dimensions_of_the_study(tmp_path: Path) -> None:
    folder = text_folder(tmp_path, dim=768)
    made = network(data(image("photo"), texts=("words",), tasks=(classes(ALL % 4),)), f"text_backbone={folder}",
                   preset="garbage", backbone="mobilenetv2_100")  # fmt: skip
    found = shapes(made)
    assert found["branches.photo.projection.0.weight"] == (256, 1280)
    assert found["branches.words.projection.0.weight"] == (256, 768)
    assert found["fusion.0.weight"] == (512, 512) and found["heads.kind.weight"] == (4, 512)
    kinds = [type(layer).__name__ for layer in made.branches["words"].projection]
    assert kinds == ["Linear", "ReLU", "LayerNorm"]
    assert made.blueprint.branch("words").pooling == "cls"


@pytest.mark.parametrize(
    ("preset", "blocks", "message"),
    [
        ("tem", {}, r"preset 'tem' needs 1 metadata block, and there is none: add \[metadata.NAME\]"),
        ("cells", {}, "preset 'cells' needs 2 image blocks, and there is 1"),
        ("reflectance", {}, "preset 'reflectance' needs 1 fourier block, and there is none: .* view = \"fourier\""),
        ("garbage", {"metadata": True}, r"preset 'garbage' needs 1 text block, and there is none: add \[texts.NAME\]"),
    ],
)
def test_a_preset_whose_blocks_are_not_there_is_refused(preset: str, blocks: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network(data(image("bf"), **blocks), preset=preset)


# --- branches ---


def test_an_inflated_stem_gives_of_equal_images_what_one_image_gives(shared: Path) -> None:
    local = f"local-dir:{shared}/weights/mobilenetv2_100"
    table = {"weights": "pretrained", "backbone": local, "input_px": 64}
    one = network(data(image("bf")), **table).eval()
    both = network(data(image("bf"), image("fl")), modalities="stacked", **table).eval()
    x = pixels()
    with torch.inference_mode():
        want, got = one.features({"bf": x}), both.features({"stack": torch.cat([x, x], dim=3)})
    assert want.abs().mean() > 0.1 and torch.allclose(got, want, atol=1e-3)


def test_shared_branches_have_one_encoder_and_their_own_projections() -> None:
    blocks = data(image("bf"), image("fl"), image("bf.fourier", "fourier"))
    made = network(blocks, "branches.image.width=8", modalities="shared")
    bf, fl, spectrum = (made.branches[name] for name in ("bf", "fl", "bf.fourier"))
    assert bf.encoder is fl.encoder is not spectrum.encoder
    assert bf.projection[0].weight is not fl.projection[0].weight
    assert made.blueprint.branch("fl").shares == "bf" and made.blueprint.branch("bf.fourier").shares is None
    assert not any(name.startswith("branches.fl.encoder") for name in made.state_dict())
    with torch.inference_mode():
        x = pixels()
        parts = made.eval().features({"bf": x, "fl": x, "bf.fourier": x}).split([8, 8, 96], dim=1)
        alone = made.branches["fl"].projection(bf.encoder(bf.normalise(x)))
    assert torch.allclose(parts[1], alone, atol=1e-5)


def test_a_copy_of_shared_branches_shares_its_own_encoder() -> None:
    made = network(data(image("bf"), image("fl")), modalities="shared")
    copied = copy.deepcopy(made)
    assert copied.branches["bf"].encoder is copied.branches["fl"].encoder is not made.branches["bf"].encoder


def test_a_block_with_another_encoder_does_not_share() -> None:
    made = network(data(image("bf"), image("fl")), "branches.fl.encoder=test_vit", modalities="shared", input_px=64)
    assert made.blueprint.branch("fl").shares is None
    assert [plan.encoder for plan in made.blueprint.branches] == ["test_resnet", "test_vit"]


def test_a_stack_of_the_spec_stands_for_its_blocks() -> None:
    bf, fl = image("bf"), image("fl")
    made = network(data(bf, fl, image("both", parts=(bf, fl)), image("dark")), modalities="stacked")
    assert [(plan.name, plan.in_chans) for plan in made.blueprint.branches] == [("both", 6), ("dark", 3)]


def test_an_image_branch_sees_normalised_pixels() -> None:
    made = network(data(image("bf")), input_px=64).eval()
    plain = load_backbone("test_resnet", weights="random")
    x = pixels()
    mean, std = (torch.tensor(plain.preprocess[key]) for key in ("mean", "std"))
    with torch.inference_mode():
        want = plain.module(((x / 255 - mean) / std).permute(0, 3, 1, 2))
        assert torch.allclose(made.features({"bf": x}), want, atol=1e-5)
        assert torch.allclose(made.features({"bf": x.float()}), want, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_text_is_pooled_over_its_own_tokens(tmp_path: Path, pooling: str) -> None:
    made = network(
        data(texts=("notes",)), f"text_backbone={text_folder(tmp_path)}", f"branches.text.pooling={pooling}"
    ).eval()
    tokenizer, encoder = made.branches["notes"].tokenizer, made.branches["notes"].encoder
    texts = ["a powder", "rods and tubes of flowable powder"]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        got = made.features({"notes": (tokens["input_ids"], tokens["attention_mask"])})
        alone = [encoder(**tokenizer([text], return_tensors="pt")).last_hidden_state[0] for text in texts]
    want = [{"cls": one[0], "mean": one.mean(dim=0), "max": one.amax(dim=0)}[pooling] for one in alone]
    assert torch.allclose(got, torch.stack(want), atol=1e-5)


def test_metadata_is_standardised_on_the_training_rows_and_gaps_become_their_mean() -> None:
    rows = np.array([0, 1, 2, 10])
    settings = read_settings({})
    made = make_network(data(metadata=True), settings, rows=rows, seed=0).eval()
    assert made.blueprint.columns == ("magnification", "magnification:missing")
    X = np.array([[np.log(100), 0], [np.log(400), 0], [np.nan, 1]], np.float32)
    training = np.array([[np.log(100), 0], [np.log(400), 0], [np.log(100), 0], [np.nan, 1]], np.float32)
    want = standardise(training, np.arange(4)).apply(X)
    assert want[2, 0] == 0 and np.allclose(made.features({"metadata": torch.from_numpy(X)}), want, atol=1e-5)


def test_a_metadata_column_that_does_not_vary_becomes_zero() -> None:
    made = make_network(data(metadata=True), read_settings({}), rows=np.arange(3), seed=0).eval()
    found = made.features({"metadata": torch.tensor([[np.log(100), 0.0], [np.log(400), 1.0]])})
    assert found[:, 1].tolist() == [0.0, 0.0] and found[0, 0] != 0


def test_a_projection_is_linear_activation_norm_and_dropout() -> None:
    own = {"width": 5, "activation": "gelu", "layer_norm": True, "dropout": 0.5}
    made = network(data(image("bf")), branches={"bf": own}).eval()
    linear, activation, norm, dropout = made.branches["bf"].projection
    assert (linear.out_features, dropout.p) == (5, 0.5) and isinstance(activation, torch.nn.GELU)
    with torch.inference_mode():
        x = pixels()
        raw = made.branches["bf"].encoder(made.branches["bf"].normalise(x))
        want = torch.nn.functional.layer_norm(torch.nn.functional.gelu(linear(raw)), (5,), norm.weight, norm.bias)
        assert torch.allclose(made.features({"bf": x}), want, atol=1e-5)


# --- outputs ---


def test_regressions_are_in_their_own_units() -> None:
    made = network(data(image("bf"), tasks=(numbers(1000 + np.arange(N), name="size"),)), input_px=64).eval()
    with torch.inference_mode():
        x = {"bf": pixels()}
        raw = made.heads["size"](made.features(x))
        assert torch.allclose(made(x)["size"], raw * np.std(np.arange(N)) + 1000 + np.mean(np.arange(N)), rtol=1e-5)


def test_names_with_dots_or_of_methods_are_fine() -> None:
    tasks = (classes(ALL % 2, name="type"), classes(ALL % 2, name="train"), classes(ALL % 2, name="items"))
    made = network(data(image("bf.log"), tasks=tasks), input_px=64)
    assert set(made({"bf.log": pixels()})) == {"type", "train", "items"}
    assert "bf.log" in made.branches and module_key(module_key("type")) == module_key("type") != "type"


def test_random_numbers_come_from_the_seed_alone() -> None:
    states = [network(data(image("bf")), seed=seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["heads.kind.weight"], states[2]["heads.kind.weight"])


def test_a_blueprint_is_read_as_it_was_written(tmp_path: Path) -> None:
    blocks = data(image("bf"), image("fl"), image("bf.fourier", "fourier"), texts=("notes",), metadata=True)
    made = network(blocks, f"text_backbone={text_folder(tmp_path)}", "branches.fourier.encoder=test_vit", "input_px=96",
                   "fusion=[16]", modalities="shared").eval()  # fmt: skip
    blueprint = Blueprint.from_json(made.blueprint.to_json())
    assert blueprint == made.blueprint


def test_a_blueprint_of_another_version_is_refused() -> None:
    text = network(data(image("bf"))).blueprint.to_json()
    with pytest.raises(StoreError, match="network of schema version 9, expected 1"):
        Blueprint.from_json(text.replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(StoreError, match="is not as it was written"):
        Blueprint.from_json(text.replace('"fusion"', '"fuse"'))


# --- bad input ---


def test_a_preset_runs_on_some_of_its_blocks() -> None:
    of = data(image("bf"), image("spectrum", "fourier"))

    def made_with(*assignments: str) -> MultimodalNetwork:
        given = ["input_px=64", "branches.fourier.narrow=16", *assignments]
        return make_network(of, read_settings({"preset": "reflectance"}, given), rows=ALL, seed=0)

    assert list(made_with("blocks=image:spectrum").branches) == ["spectrum"]
    made = made_with("branches.image.narrow=8")
    assert [plan.model_args.get("narrow", 1) for plan in made.blueprint.branches] == [8, 16]
    assert [plan.dim for plan in made.blueprint.branches] == [128, 64]


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["backbone=test_resnt"], "unknown backbone 'test_resnt'. Did you mean 'test_resnet'"),
        (["backbone=texture"], "'texture' has no weights to train"),
        (["backbone=bert-base-uncased"], "does not take images, but branch 'bf' has images"),
        (['blocks=["image:fb"]'], r"blocks has 'image:fb', which is not there. Did you mean 'image:bf'\? There is"),
        (["branches.bff.width=3"], r"\[finetune.branches.bff\] is for a branch that is not there. Did you mean 'bf'"),
        (["modalities=stacked"], "modalities = 'stacked' is for several image blocks, and there is bf"),
        (["backbone=residual", "branches.image.norm=instance", "input_px=32"], "needs input_px = 64 or more"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_dataset_is_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        network(data(image("bf"), metadata=True), *assignments)


def test_two_blocks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two blocks are called 'notes'"):
        network(data(image("notes"), texts=("notes",)))


def test_a_dataset_without_blocks_or_tasks_is_refused() -> None:
    with pytest.raises(InputError, match="no image, text or metadata block"):
        network(data())
    from dataclasses import replace

    with pytest.raises(InputError, match="has no task"):
        network(replace(data(image("bf")), tasks={}))


def test_a_class_that_the_training_rows_lack_is_named() -> None:
    task = classes([0, 1, 2] * 4, labels=("I", "II", "III"))
    with pytest.raises(InputError, match="task 'kind': no training row is of class 'III', so it cannot be learnt"):
        make_network(data(metadata=True, tasks=(task,)), read_settings({}), rows=np.array([0, 1, 3]), seed=0)
    missing = classes(np.full(N, -1), labels=("I", "II"))
    with pytest.raises(InputError, match="task 'kind': no training row has a label"):
        make_network(data(metadata=True, tasks=(missing,)), read_settings({}), rows=ALL, seed=0)


def test_a_built_in_sample_goes_on_with_random_weights_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import dataclasses

    of = data(image("bf"), texts=("notes",))
    sample = dataclasses.replace(of, spec=of.spec.model_copy(update={"sample": "tem"}))
    made = network(sample, weights="pretrained", text_backbone="no-such-owner/no-such-model")
    assert list(made.branches) == ["bf"]
    assert any(note.startswith("random weights instead of pretrained ones, seed 0: ") for note in made.notes)
    assert any(note.startswith("text:notes is left out: ") for note in made.notes)
    with pytest.raises(InputError, match="the pretrained weights of 'test_resnet' are out of reach"):
        network(of, weights="pretrained")
