import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from extract import residual
from extract.catalogue import load_backbone
from extract.network import Options
from extract.residual import NORMS, Residual
from store import ImageBlock, InputError
from tests.extract.made import make_encoder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two narrow stages: quick to make."""
    monkeypatch.setattr(residual, "STEM", 32)
    monkeypatch.setattr(residual, "STAGES", ((32, 1), (64, 2)))


def test_the_path_has_the_channels_and_strides_of_the_study() -> None:
    network = Residual(norm="instance")
    shapes = []
    for stage in network.stages:
        for block in stage:
            block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.inference_mode():
        stem, vector = network.stem(torch.zeros(1, 3, 64, 64)), network(torch.zeros(1, 3, 64, 64))
    assert stem.shape[1:] == (64, 32, 32)
    assert [shape[0] for shape in shapes] == [128, 128, 256, 256, 512, 512, 512, 1024, 1024, 1024]
    assert [shape[1] for shape in shapes] == [16, 16, 8, 8, 4, 4, 4, 2, 2, 2]
    assert vector.shape == (1, 1024)


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", "BatchNorm2d"), ("group", "GroupNorm"), ("instance", "InstanceNorm2d")]
)
def test_every_normalisation_is_the_one_asked_for(small: None, norm: str, kind: str) -> None:
    backbone = load_backbone("residual", weights="random", model_args={"norm": norm})
    found = {type(module).__name__ for module in backbone.module.modules() if "Norm" in type(module).__name__}
    assert found == {kind} and set(NORMS) == {"batch", "group", "instance"}
    assert backbone.preprocess["model_args"] == {"norm": norm}


def test_rows_of_a_training_batch_depend_on_each_other_with_batch_norm_alone(small: None) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        for norm in NORMS:
            network = Residual(norm=norm).train()  # type: ignore[arg-type]
            changed = (network(x)[:1] - network(x[:2])[:1]).abs().max()
            assert (changed > 1e-2) == (norm == "batch")


def test_narrow_divides_all_channels_and_keeps_the_size_of_groups() -> None:
    network = Residual(norm="group", narrow=8)
    assert [stage[0].first.conv.out_channels for stage in network.stages] == [16, 32, 64, 128]  # type: ignore[index]
    norms = [network.stem.norm, network.stages[3][0].first.norm]  # type: ignore[index]
    assert [(norm.num_channels, norm.num_groups) for norm in norms] == [(8, 4), (128, 32)]
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, network.num_features) == (2, 128)
    assert Residual(norm="group").stem.norm.num_groups == 32


def test_grey_sees_the_mean_of_the_channels(small: None) -> None:
    network = Residual(norm="instance", channels="grey").eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        grey = network(x.mean(dim=1, keepdim=True).expand_as(x))
        assert network.stem.conv.weight.shape == (32, 1, 7, 7)
        assert torch.allclose(network(x), grey, atol=1e-5)


def test_it_has_no_pretrained_weights_and_says_what_to_give() -> None:
    with pytest.raises(InputError, match=r"'residual' has no pretrained weights: give --weights"):
        load_backbone("residual")


def test_a_tuned_path_is_extracted_from_its_folder(small: None, tmp_path: Path) -> None:
    made = load_backbone("residual", weights="random", seed=3, model_args={"norm": "group", "channels": "grey"})
    save_file(made.module.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "residual", "model_args": {"norm": "group", "channels": "grey"},
              "pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 1.0, "first_conv": "stem.conv"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    encoder = make_encoder(f"local-dir:{tmp_path}", ImageBlock("bf", (), "none"), Options(device="cpu", engine="torch"))
    assert (encoder.space.encoder, encoder.space.dim) == ("residual", 64)
    assert encoder.space.preprocess["input_px"] == [64, 64]
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    prepared = encoder.prepare(pixels)
    mean, std = encoder.space.preprocess["mean"], encoder.space.preprocess["std"]
    with torch.inference_mode():
        x = torch.from_numpy((prepared / 255 - mean) / std).permute(2, 0, 1)[None].float()
        want = made.module(x).numpy()
    assert np.allclose(encoder.encode([prepared]), want, atol=1e-4)
