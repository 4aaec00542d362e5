import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from extract import encoder, network, weights
from extract.encoder import ENCODERS, encoder_from_space, encoders_like, make_encoders, modality_of
from extract.network import Options
from store import Dataset, ImageBlock, InputError, StoreError, TextBlock, parse_spec
from tests.extract.made import make_encoder

IMAGES = ImageBlock("bf", (), "percentile_clip", 3)
TEXTS = TextBlock("notes", ())
RANDOM = Options(weights="random", device="cpu", engine="torch")
ITEMS = {
    "image": [np.random.default_rng(i).integers(0, 256, (50 + i, 64, 3), dtype=np.uint8) for i in range(5)],
    "text": ["flowable powder", "a", "", "Korngröße 40 µm, rod-like", "flowable powder, twice " * 20],
}


@pytest.mark.parametrize("name", [*ENCODERS, "test_resnet"])
def test_contract(name: str) -> None:
    """float32 ``(b, d)``, finite, and neither batch size nor row order changes a row."""
    modality = modality_of(name)
    made = make_encoder(name, IMAGES if modality == "image" else TEXTS, RANDOM)
    assert made.space.modality == modality
    assert (made.space.convert, made.space.crop_bottom_px) == (
        ("percentile_clip", 3) if modality == "image" else (None, 0)
    )
    prepared = [made.prepare(item) for item in ITEMS[modality]]
    vectors = made.encode(prepared)
    assert vectors.shape == (5, made.space.dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    scale = np.abs(vectors).max()
    assert np.abs(np.concatenate([made.encode([item]) for item in prepared]) - vectors).max() < 1e-5 * scale
    assert np.abs(made.encode(prepared[::-1])[::-1] - vectors).max() < 1e-5 * scale


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("texture", "image"),
        ("ngrams", "text"),
        ("efficientnet_b0", "image"),
        ("efficientnet_b0.ra_in1k", "image"),
        ("shufflenet_v2_x1_0", "image"),
        ("local-dir:somewhere", "image"),
        ("distilbert-base-uncased", "text"),
        ("sentence-transformers/all-MiniLM-L6-v2", "text"),
    ],
)
def test_name_tells_the_modality(name: str, modality: str) -> None:
    assert modality_of(name) == modality


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("eficientnet_b0", "efficientnet_b0"), ("textur", "texture"), ("shuflenet_v2_x1_0", "shufflenet_v2_x1_0")],
)
def test_unknown_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(InputError, match=f"unknown backbone '{wrong}'. Did you mean .*'{right}'"):
        make_encoder(wrong, IMAGES)


def test_name_of_the_other_modality_is_refused() -> None:
    with pytest.raises(InputError, match=r"backbone 'ngrams' takes texts, but the dataset has no \[texts"):
        make_encoder("ngrams", IMAGES)


def test_missing_local_folder_is_refused() -> None:
    with pytest.raises(InputError, match=r"local-dir:no/such.*no folder with a config\.json"):
        make_encoder("local-dir:no/such", IMAGES)


@pytest.mark.parametrize("name", ["texture", "test_resnet", "shufflenet_v2_x0_5"])
def test_encoder_is_rebuilt_from_its_space(name: str) -> None:
    made = make_encoder(name, IMAGES, replace(RANDOM, seed=5))
    again = encoder_from_space(made.space, getattr(made, "provenance", None), Options(device="cpu", engine="torch"))
    assert again.space == made.space
    items = [made.prepare(ITEMS["image"][0])]
    assert np.array_equal(made.encode(items), again.encode([again.prepare(ITEMS["image"][0])]))


def test_transform_is_built_from_the_space() -> None:
    made = make_encoder("test_resnet", IMAGES, RANDOM)
    other = replace(made.space, preprocess={**made.space.preprocess, "input_px": [96, 96], "resize_px": 100})
    again = encoder_from_space(other, made.provenance, RANDOM)  # type: ignore[attr-defined]
    assert again.space == other
    assert again.prepare(ITEMS["image"][0]).shape == (96, 96, 3)


def test_other_weights_than_the_spaces_are_refused() -> None:
    made = make_encoder("test_resnet", IMAGES, RANDOM)
    with pytest.raises(StoreError, match="weights_digest"):
        encoder_from_space(made.space, {"name": "test_resnet", "weights": "random", "seed": 1})


@pytest.mark.parametrize("name", ["texture", "test_resnet"])
def test_variants_get_the_encoder_of_the_block_they_came_from(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_encoder(name, IMAGES, replace(RANDOM, seed=5))
    seen = {"bf.blur-2": "blur:2", "bf.png-8": "png:8", "fl.blur-2": "blur:2"}
    images = {name: ImageBlock(name, (), "percentile_clip", 3, view=view) for name, view in seen.items()}
    parsed = parse_spec({"name": "n", "table": "t.csv"}, "made")
    data = Dataset(parsed, Path(), np.array(["r0"]), None, images, {}, {}, {}, None)
    loads: list[object] = []
    real = encoder.Loaded
    monkeypatch.setattr(encoder, "Loaded", lambda *args: loads.append(args) or real(*args))  # type: ignore[func-returns-value]
    full = f"image:bf@{name}"
    found = encoders_like(data, {full: made.space}, {full: getattr(made, "provenance", None)}, Options(device="cpu"))
    assert {block: one.space for block, [one] in found.items()} == {
        "image:bf.blur-2": replace(made.space, view="blur:2"),
        "image:bf.png-8": replace(made.space, view="png:8"),
    }
    assert len(loads) == (name == "test_resnet")  # once for both


def test_sample_goes_on_with_random_weights_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(name: str, *_: object) -> Path:
        raise weights.WeightsError(name, "no network")

    monkeypatch.setattr("extract.timm_backbone.hub_file", out_of_reach)
    messages: list[str] = []
    loaded = network.load_network("test_resnet", "image", Options(fallback_random=True), messages)
    assert "random weights instead of pretrained ones, seed 0" in messages[0]
    assert loaded.encoder(IMAGES).space == make_encoder("test_resnet", IMAGES, RANDOM).space
    with pytest.raises(InputError, match="out of reach"):
        make_encoder("test_resnet", IMAGES)


def test_import_loads_no_deep_learning() -> None:
    heavy = "{'torch', 'timm', 'transformers', 'torchvision', 'openvino'}"
    code = f"import sys, extract.pipeline, extract.encoder; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("names", "said"), [(["texture"], "texture has"), (["texture", "ngrams"], "texture and ngrams have")]
)
def test_weights_that_no_encoder_takes_are_named(names: list[str], said: str) -> None:
    dataset: Any = SimpleNamespace(images={"bf": IMAGES}, texts={"notes": TEXTS})
    _, warnings = make_encoders(names, dataset, Options(weights="random"))
    assert warnings == [f"--weights random changes nothing: {said} no weights. Name a network with --backbone"]
    assert make_encoders(names, dataset, Options())[1] == []
    [compiling] = make_encoders(names, dataset, Options(is_compiled=True))[1]
    assert compiling.startswith(f"--compile changes nothing: {said} no weights")
    assert make_encoders([*names, "test_resnet"], dataset, RANDOM)[1] == []
