import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from extract.backbone import vector_length
from extract.catalogue import load_backbone
from extract.engine import relative_error
from extract.network import Options
from extract.weights import seeded
from store import ImageBlock, InputError
from tests.extract.made import make_encoder

LOCAL = Path("../shared/weights/mobilenetv2_100")
RANDOM = Options(weights="random", device="cpu", engine="torch")
BLOCK = ImageBlock("bf", (), "none")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise, like a photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((width, height))
    return np.clip(np.asarray(coarse) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_vectors_equal_eager_timm_on_timms_own_transform(name: str) -> None:
    with seeded(3):
        network = timm.create_model(name, pretrained=False)
    network.reset_classifier(0)
    network.eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    pictures = [picture(200, 260), picture(300, 180, 1)]
    with torch.inference_mode():
        want = network(torch.stack([transform(Image.fromarray(pixels)) for pixels in pictures])).numpy()
    made = make_encoder(name, BLOCK, Options(weights="random", seed=3, device="cpu", engine="torch"))
    got = made.encode([made.prepare(pixels) for pixels in pictures])
    assert got.shape == want.shape
    assert relative_error(got, want) < 2e-3  # resizing may differ by one grey level


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5"])
def test_torchvision_name_gives_features_not_classes(name: str) -> None:
    made = make_encoder(name, BLOCK, RANDOM)
    assert made.space.dim in (1024, 512, 1280)
    assert made.space.encoder == name
    assert made.space.preprocess["input_px"] == [224, 224]


def test_random_weights_are_those_of_the_seed() -> None:
    digests = [
        make_encoder("test_resnet", BLOCK, Options(weights="random", seed=s)).space.weights_digest for s in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_weights_file_with_and_without_head(tmp_path: Path) -> None:
    with seeded(9):
        network = timm.create_model("test_resnet", num_classes=7)
    save_file(network.state_dict(), tmp_path / "tuned.safetensors")
    with_head = make_encoder("test_resnet", BLOCK, Options(weights=str(tmp_path / "tuned.safetensors")))
    network.reset_classifier(0)
    torch.save(network.state_dict(), tmp_path / "headless.pth")
    headless = make_encoder("test_resnet", BLOCK, Options(weights=str(tmp_path / "headless.pth")))
    assert with_head.space == headless.space


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    for name in ("test_resnet", "shufflenet_v2_x0_5"):
        with pytest.raises(InputError, match="do not fit"):
            make_encoder(name, BLOCK, Options(weights=str(tmp_path / "vit.safetensors")))


def test_name_without_pretrained_weights_says_so() -> None:
    bare = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(InputError, match="has no pretrained weights"):
        load_backbone(bare)


def test_unknown_tag_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"efficientnet_b0\.ra_in1k"):
        load_backbone("efficientnet_b0.no_such_tag")


def test_folder_that_is_not_timms_is_refused(tmp_path: Path) -> None:
    for content in ("no json", "[]", "{}"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match="not in timm's form"):
            load_backbone(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetwork"}))
    with pytest.raises(InputError, match="its architecture 'resnetwork' is none that timm"):
        load_backbone(f"local-dir:{tmp_path}")


def local_folder(path: Path, **model_args: object) -> str:
    """A timm folder of test_efficientnet with seeded weights."""
    with seeded(4):
        network = timm.create_model("test_efficientnet", num_classes=5)
    save_file(network.state_dict(), path / "model.safetensors")
    config = {"architecture": "test_efficientnet", "num_classes": 5, "model_args": model_args}
    config["pretrained_cfg"] = {"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.875,
                                "interpolation": "bilinear", "num_classes": 5, "classifier": "classifier",
                                "first_conv": "conv_stem"}  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    return f"local-dir:{path}"


def test_local_folder_decides_weights_and_preprocessing_but_not_its_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    name = local_folder(tmp_path / "a")
    made = make_encoder(name, BLOCK, Options(device="cpu"))
    assert made.space.encoder == "test_efficientnet"
    assert made.space.preprocess["input_px"] == [96, 96]
    assert made.space.preprocess["resize_px"] == 109
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert make_encoder(f"local-dir:{tmp_path / 'b'}", BLOCK, Options(device="cpu")).space == made.space


def test_architecture_arguments_of_a_folder_are_part_of_the_space(tmp_path: Path) -> None:
    plain = make_encoder(local_folder(tmp_path), BLOCK, Options(device="cpu")).space
    padded = make_encoder(local_folder(tmp_path, pad_type="same"), BLOCK, Options(device="cpu")).space
    assert plain.weights_digest == padded.weights_digest
    assert plain.fingerprint != padded.fingerprint


@pytest.mark.skipif(not LOCAL.is_dir(), reason="../shared/weights is not here")
def test_real_weights_load_from_a_local_folder() -> None:
    made = make_encoder(f"local-dir:{LOCAL}", BLOCK, Options(device="cpu", engine="torch"))
    assert (made.space.encoder, made.space.dim) == ("mobilenetv2_100", 1280)
    network = timm.create_model(f"local-dir:{LOCAL}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    with torch.inference_mode():
        want = network(transform(Image.fromarray(picture(300, 400)))[None]).numpy()
    assert relative_error(made.encode([made.prepare(picture(300, 400))]), want) < 2e-2


@pytest.mark.parametrize(
    ("name", "resize_px", "dim"), [("test_vit", 101, 64), ("test_resnet", 101, 96), ("shufflenet_v2_x0_5", 109, 1024)]
)
def test_another_input_size_is_seen_and_recorded(name: str, resize_px: int, dim: int) -> None:
    backbone = load_backbone(name, weights="random", input_px=96)
    assert (backbone.preprocess["input_px"], backbone.preprocess["resize_px"]) == ([96, 96], resize_px)
    assert vector_length(backbone) == dim


def test_a_network_that_takes_no_other_size_says_so() -> None:
    with pytest.raises(InputError, match=r"'vit_b_32' takes no input of 96 x 96 px: "):
        vector_length(load_backbone("vit_b_32", weights="random", input_px=96))
