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


SMALL_SWIN = {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2), "img_size": 56}


def made(name):
    with seeded(0):
        return timm.create_model(name, num_classes=2, **(SMALL_SWIN if name.startswith("swin") else {})).eval()


@pytest.mark.parametrize(
    ("name", "size_px", "layer"),
    [
        ("test_resnet", 160, "layer4"),
        ("test_convnext", 160, "norm_pre"),
        ("test_vit", 160, "blocks.5.norm1"),
        ("swin_tiny_patch4_window7_224", 56, "layers.1.blocks.0.norm1"),
    ],
)
def test_the_feature_map_is_the_last_that_speaks_for_the_output(name, size_px, layer):
    network = made(name)
    found = feature_map(network, lambda: network(torch.zeros(1, 3, size_px, size_px)))
    assert {module: path for path, module in network.named_modules()}[found] == layer


def test_a_network_without_places_has_no_feature_map():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.LayerNorm(8))
    assert feature_map(network, lambda: network(torch.zeros(1, 3, 2, 2))) is None


@pytest.mark.parametrize(
    ("name", "size_px", "grid"), [("test_vit", 160, (10, 10)), ("swin_tiny_patch4_window7_224", 56, (7, 7))]
)
def test_grad_cam_of_tokens_is_the_mean_gradient_times_the_activation_on_the_grid(name, size_px, grid):
    network, given = made(name), torch.randn(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))

    class Tokens:
        def __init__(self):
            self.encoders = {"x": network}

        def outputs(self, inputs):
            return {"kind": network(inputs["x"].permute(0, 3, 1, 2))}

    x = given.permute(0, 2, 3, 1)
    seen = []
    norm = feature_map(network, lambda: network(given))
    hook = norm.register_forward_hook(lambda *found: seen.append(found[2]))
    gradient = torch.autograd.grad(network(given)[0, 1], (tokens := seen[0]))[0]
    hook.remove()
    tokens, gradient = (one.reshape(1, -1, one.shape[-1])[0, -grid[0] * grid[1] :] for one in (tokens, gradient))
    want = torch.relu((tokens * gradient.mean(dim=0)).sum(dim=1)).reshape(1, 1, *grid)
    want = nn.functional.interpolate(want, (size_px, size_px), mode="bilinear")[0, 0].detach().numpy()
    got = grad_cam(Tokens(), {"x": x}, "x", "kind", 1)
    assert want.max() > 0
    assert np.allclose(got, want, atol=1e-5 * want.max())


@pytest.mark.parametrize(("side_px", "place"), [(32, 2), (16, 1), (8, 0)])
def test_the_last_map_of_four_places_or_more_is_shown(side_px, place):
    halving = nn.Sequential(*(nn.Conv2d(1, 1, 2, stride=2) for _ in range(3)), nn.AdaptiveAvgPool2d(1))
    found = feature_map(halving, lambda: halving(torch.zeros(1, 1, side_px, side_px)))
    assert found is halving[place]
