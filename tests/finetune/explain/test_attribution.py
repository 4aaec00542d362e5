import numpy as np
import pytest
import timm
import torch
from torch import nn

from extract import seeded
from finetune.explain.attribution import feature_map, grad_cam, integrated_gradients


class Corner(nn.Module):
    """Looks at the upper left quarter of 8 x 8 pixels, and weighs its mean."""

    def __init__(self):
        super().__init__()
        self.map = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(torch.tensor([[1.0, 1, 1], [-1.0, -1, -1]])[:, :, None, None] / 3)

    def forward(self, pixels):
        found = self.map(pixels.permute(0, 3, 1, 2).float())
        return found[:, :, :4, :4].mean(dim=(2, 3))


class Model:
    tasks = ("kind",)

    def __init__(self):
        self.encoders = {"image:bf": Corner()}

    def outputs(self, inputs):
        return {"kind": self.encoders["image:bf"](inputs["image:bf"]) + inputs["bias"]}


@pytest.fixture
def inputs():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    return {"image:bf": torch.from_numpy(pixels), "bias": torch.zeros(1, 2)}


def test_integrated_gradients_add_up_to_the_output_less_that_of_grey(inputs):
    model = Model()
    heat = integrated_gradients(model, inputs, "image:bf", "kind", 0)
    grey = {**inputs, "image:bf": torch.full((1, 8, 8, 3), 127.5)}
    want = (model.outputs(inputs)["kind"] - model.outputs(grey)["kind"])[0, 0].item()
    assert heat.sum() == pytest.approx(want, rel=1e-4)
    assert heat.shape == (8, 8)
    assert not heat[4:].any()
    assert not heat[:, 4:].any()


def test_the_other_class_has_the_opposite_gradients(inputs):
    heats = [integrated_gradients(Model(), inputs, "image:bf", "kind", output) for output in (0, 1)]
    assert np.allclose(heats[0], -heats[1], atol=1e-5)


def test_grad_cam_is_warm_where_the_map_speaks_for_the_class(inputs):
    heat = grad_cam(Model(), inputs, "image:bf", "kind", 0)
    assert heat.shape == (8, 8)
    assert heat.min() >= 0
    assert heat.max() > 0


@pytest.mark.parametrize(("name", "has_map"), [("test_resnet", True), ("test_convnext", True), ("test_vit", False)])
def test_networks_of_convolutions_have_a_feature_map(name, has_map):
    with seeded(0):
        network = timm.create_model(name, num_classes=0).eval()
    found = feature_map(network, lambda: network(torch.zeros(1, 3, 160, 160)))
    assert (found is not None) == has_map
