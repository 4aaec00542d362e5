import numpy as np
import pytest
import torch

from extract.backbone import with_normalisation
from extract.engine import MAX_RELATIVE_ERROR, relative_error
from extract.torch_engine import TorchEngine, fold_batch_norm
from tests.extract.networks import NORMALISE, images, network


def test_pixels_are_normalised_inside_the_network() -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    batch = images(3, 8)
    want = ((batch / 255 - NORMALISE["mean"]) / NORMALISE["std"]).mean(axis=(1, 2))
    got = TorchEngine(with_normalisation(Mean(), NORMALISE), (batch,), device="cpu", precision="float32")(batch)
    assert got.dtype == np.float32
    assert np.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_batch_norm_is_folded_and_nothing_else_changes(name: str) -> None:
    module, batch = network(name), images(3)
    folded = fold_batch_norm(module, (batch,))
    with torch.inference_mode():
        want, got = module(torch.from_numpy(batch)), folded(torch.from_numpy(batch))
    assert relative_error(got.numpy(), want.numpy()) < 1e-5
    assert not any(isinstance(child, torch.nn.BatchNorm2d) for child in folded.modules())
    assert any(isinstance(child, torch.nn.BatchNorm2d) for child in module.modules())


def test_output_that_something_else_reads_is_not_folded_away() -> None:
    class Forked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)
            self.norm.running_mean.fill_(3)  # type: ignore[union-attr]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x.permute(0, 3, 1, 2).float())
            return (self.norm(y) + y).mean(dim=(2, 3))

    module = Forked().eval()
    assert fold_batch_norm(module, (images(2, 8),)) is module


@pytest.mark.gpu
def test_cuda_agrees_with_eager_float32() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    module, batch = network(), images(9)
    with torch.inference_mode():
        want = module(torch.from_numpy(batch)).numpy()
    got = TorchEngine(module, (batch,), device="cuda", precision="float32")(batch)
    assert relative_error(got, want) < MAX_RELATIVE_ERROR
