import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from extract.backbone import Backbone, image_space, with_normalisation
from extract.catalogue import load_backbone
from extract.encoder import folder_digests, make_encoders
from extract.engine import relative_error
from extract.language import load_language, text_space, with_pooling
from extract.network import Options
from extract.saving import save_backbone, save_language
from extract.weights import seeded, state_digest
from store import Dataset, ImageBlock, InputError, TextBlock, view_settings
from tests.extract.made import make_encoder
from tests.extract.recorded import make_dataset

TORCH = Options(device="cpu", engine="torch")
BLOCK = ImageBlock("bf", (), "none")
STACK = ImageBlock("both", (), None, parts=(BLOCK, BLOCK))


def tuned(name: str, **how: Any) -> Backbone:
    """A network whose weights are those of no seed."""
    made = load_backbone(name, weights="random", **how)
    with torch.no_grad():
        for parameter in made.module.parameters():
            parameter.mul_(1.01)
    return made


def own_vectors(backbone: Backbone, batch: np.ndarray) -> np.ndarray:
    module = with_normalisation(backbone.module, backbone.preprocess, backbone.in_chans // 3)
    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(batch)).numpy())


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("test_resnet", {}),
        ("test_vit", {}),
        ("test_vit", {"input_px": 96}),
        ("test_efficientnet", {"input_px": 64}),
        ("test_convnext", {}),
        ("mobilenetv3_small_050", {"input_px": 64}),
        ("shufflenet_v2_x0_5", {"input_px": 64}),
        ("residual", {"input_px": 64, "in_chans": 6, "model_args": {"norm": "group", "channels": "grey"}}),
        ("test_resnet", {"in_chans": 6}),
    ],
)
def test_an_encoder_folder_gives_the_networks_own_vectors(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    backbone, folder = tuned(name, **how), tmp_path / "runs" / "finetune" / "bf"
    save_backbone(backbone, folder)
    block = BLOCK if backbone.in_chans == 3 else STACK
    made = make_encoder(str(folder), block, TORCH)
    shape = (2, *backbone.preprocess["input_px"], backbone.in_chans)
    batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert relative_error(made.encode(list(batch)), own_vectors(backbone, batch)) < 1e-4
    assert made.space == image_space(backbone, view_settings(block), precision="float32")
    untouched = image_space(load_backbone(name, weights="random", **how), view_settings(block), precision="float32")
    assert [line.split(":")[0] for line in untouched.differences(made.space)] == ["weights_digest"]


def test_timm_reads_the_folder_of_its_own_architecture(tmp_path: Path) -> None:
    backbone = tuned("test_resnet")
    save_backbone(backbone, tmp_path / "bf")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'bf'}", pretrained=True).eval()
    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(theirs(x), backbone.module(x))
    config = timm.data.resolve_data_config(model=theirs)
    assert list(config["input_size"][1:]) == backbone.preprocess["input_px"]


def test_the_local_dir_form_is_the_same_folder(tmp_path: Path) -> None:
    save_backbone(tuned("test_resnet"), tmp_path)
    plain, prefixed = (make_encoder(name, BLOCK, TORCH).space for name in (str(tmp_path), f"local-dir:{tmp_path}"))
    assert plain == prefixed


def test_a_folder_may_be_called_as_its_own_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tuned("test_resnet")
    save_backbone(backbone, tmp_path / "test_resnet")
    monkeypatch.chdir(tmp_path)
    assert make_encoder("test_resnet", BLOCK, TORCH).space.weights_digest == state_digest(backbone.module.state_dict())


def test_only_folders_have_a_digest_and_it_is_that_of_their_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_backbone(tuned("test_resnet"), Path("runs/bf"))
    Path("test_vit").mkdir()  # a folder that happens to have a network's name
    names = ["runs/bf", "local-dir:runs/bf", "texture", "test_vit", "runs/none"]
    digest = make_encoder("runs/bf", BLOCK, TORCH).space.weights_digest
    assert folder_digests(names) == dict.fromkeys(names[:2], digest)


def test_random_weights_of_a_folder_are_not_its_own(tmp_path: Path) -> None:
    save_backbone(tuned("test_resnet"), tmp_path)
    made = [make_encoder(str(tmp_path), BLOCK, replace(TORCH, weights=w)).space for w in ("pretrained", "random")]
    assert [line.split(":")[0] for line in made[0].differences(made[1])] == ["weights_digest"]


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_backbone(tuned("test_resnet"), tmp_path / "a")
    save_backbone(tuned("test_vit"), tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(InputError, match=r"weights '.*model.safetensors' do not fit '.*a'"):
        make_encoder(str(tmp_path / "a"), BLOCK, TORCH)


def stacked(folder: Path) -> Dataset:
    extra = '[images.fl]\ncolumn = "file"\nconvert = "none"\n[images.both]\nstack = ["bf", "fl"]\n'
    return make_dataset(folder, extra=extra)


def test_a_saved_encoder_takes_the_blocks_it_was_trained_on(tmp_path: Path) -> None:
    save_backbone(tuned("test_resnet"), tmp_path / "one")
    save_backbone(tuned("test_resnet", in_chans=6), tmp_path / "two")
    encoders, warnings = make_encoders([str(tmp_path / "one")], stacked(tmp_path), TORCH)
    assert list(encoders) == ["image:bf", "image:fl"]
    assert warnings == [f"'{tmp_path / 'one'}' takes no stacks: [images.both] is left out"]
    encoders, warnings = make_encoders([str(tmp_path / "two")], stacked(tmp_path), TORCH)
    assert list(encoders) == ["image:both"]
    assert warnings == [f"'{tmp_path / 'two'}' takes stacks: [images.bf] and [images.fl] are left out"]
    with pytest.raises(InputError, match="was trained on stacks of 2 images, and this block has single images"):
        make_encoder(str(tmp_path / "two"), BLOCK, TORCH)
    with pytest.raises(InputError, match="was trained on single images, and this block has stacks of 2 images"):
        make_encoder(str(tmp_path / "one"), STACK, TORCH)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_text_folder_gives_the_networks_own_vectors(tmp_path: Path, pooling: str) -> None:
    from tests.finetune.made import text_folder

    original = replace(
        load_language(str(text_folder(tmp_path / "distilbert"))),
        pooling=pooling,
        architecture="distilbert-base-uncased",
    )
    original = replace(original, preprocess={**original.preprocess, "max_tokens": 9})
    space = text_space(original, precision="float32")
    with seeded(1), torch.no_grad():
        for parameter in original.module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    save_language(original, tmp_path / "notes")
    made = make_encoder(str(tmp_path / "notes"), TextBlock("notes", ()), TORCH)
    assert made.space == text_space(original, precision="float32")
    assert [line.split(":")[0] for line in space.differences(made.space)] == ["weights_digest"]
    texts = ["a powder", "rods and tubes of a flow", "powder " * 20]
    tokens = original.tokenizer(texts, padding=True, truncation=True, max_length=9, return_tensors="pt")
    with torch.inference_mode():
        want = with_pooling(original.module, pooling)(tokens["input_ids"], tokens["attention_mask"]).numpy()
    assert relative_error(made.encode(texts), want) < 1e-4
    assert json.loads((tmp_path / "notes" / "config.json").read_text())["model_type"] == "distilbert"
