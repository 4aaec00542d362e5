"""What networks turned out to be is remembered, and never believed against the network itself."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from extract import Options, extract_features, load_backbone, make_encoders, save_backbone, weights
from extract.identity import Asked, Known, Postponed, recall, remember
from store import Dataset, FeatureStore, StoreError, load_dataset

OPTIONS = Options(device="cpu", engine="torch", is_postponed=True)
Make = Callable[..., Path]


def saved(folder: Path, seed: int = 0) -> Path:
    save_backbone(load_backbone("test_resnet", weights="random", seed=seed), folder)
    return folder


def postponed(name: str, dataset: Dataset, options: Options = OPTIONS) -> bool:
    [[made]] = make_encoders([name], dataset, options)[0].values()
    return isinstance(made, Postponed)


def identities(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "embedonce" / "identities").glob("*"))


def test_a_run_that_lacks_nothing_imports_neither_torch_nor_timm(make_dataset: Make, tmp_path: Path) -> None:
    spec, folder = make_dataset(), saved(tmp_path / "net")
    code = (
        "import sys\nfrom pathlib import Path\nfrom extract import Options, extract_features, make_encoders\n"
        "from store import FeatureStore, load_dataset\n"
        f"dataset = load_dataset(Path({str(spec)!r}))\n"
        f"encoders, _ = make_encoders([{str(folder)!r}], dataset, Options(device='cpu', is_postponed=True))\n"
        f"[one] = extract_features(dataset, encoders, FeatureStore({str(tmp_path / 'f.zarr')!r}))\n"
        "heavy = {'torch', 'timm', 'torchvision', 'transformers', 'openvino'} & set(sys.modules)\n"
        "print(one.name, one.present, one.device, one.engine, sorted(heavy))"
    )
    dataset = load_dataset(spec)
    encoders, _ = make_encoders([str(folder)], dataset, OPTIONS)
    extract_features(dataset, encoders, FeatureStore(tmp_path / "f.zarr"))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert run.stdout.strip() == "image:bf@test_resnet 24 none none []"


def test_what_is_remembered_is_what_the_network_is_however_images_are_seen(make_dataset: Make, tmp_path: Path) -> None:
    dataset, name = load_dataset(make_dataset()), str(saved(tmp_path / "net"))
    turned = replace(dataset, images={"bf": replace(dataset.images["bf"], turns="flips", tiles="1x2", convert="log")})
    options = replace(OPTIONS, dtype="float16")
    assert not postponed(name, dataset)
    [[known]] = make_encoders([name], turned, options)[0].values()
    [[true]] = make_encoders([name], turned, replace(options, is_postponed=False))[0].values()
    assert isinstance(known, Postponed) and known.space == true.space and known.provenance == true.provenance
    stores = [FeatureStore(tmp_path / "a.zarr"), FeatureStore(tmp_path / "b.zarr")]
    reports = [extract_features(turned, {"image:bf": [one]}, s) for one, s in zip((known, true), stores, strict=True)]
    assert [(one.embedded, one.engine, one.device) for [one] in reports] == [(24, "torch", "cpu")] * 2
    keys = [key for key in dataset.images["bf"].keys() if key is not None]  # noqa: SIM118 - not a dict's
    assert (stores[0].read(known.space, keys) == stores[1].read(true.space, keys)).all()


CHANGES: dict[str, Callable[[Path], object]] = {
    "other weights": lambda net: saved(net, seed=1),
    "another configuration": lambda net: (net / "config.json").write_text((net / "config.json").read_text() + " "),
    "one more file": lambda net: (net / "pytorch_model.bin").write_bytes(b"1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_loaded_anew(make_dataset: Make, tmp_path: Path, change: str) -> None:
    dataset, net = load_dataset(make_dataset()), saved(tmp_path / "net")
    assert [postponed(str(net), dataset) for _ in range(2)] == [False, True]
    CHANGES[change](net)
    assert [postponed(str(net), dataset) for _ in range(2)] == [False, True]


def test_another_question_folder_or_library_is_another_memory(
    make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, options = load_dataset(make_dataset()), replace(OPTIONS, weights="random")
    assert [postponed("test_resnet", dataset, options) for _ in range(2)] == [False, True]
    assert not postponed("test_resnet", dataset, replace(options, seed=1))
    assert not postponed("test_resnet", dataset, replace(options, precision="bfloat16"))
    assert not postponed("test_vit", dataset, options)
    with monkeypatch.context() as patch:
        patch.setattr("extract.identity.version", lambda name: f"other {name}")
        assert not postponed("test_resnet", dataset, options)
    monkeypatch.chdir(tmp_path)
    assert [postponed("test_resnet", dataset, options) for _ in range(2)] == [False, True]
    saved(tmp_path / "test_resnet", seed=3)  # a folder of that name goes first
    assert not postponed("test_resnet", dataset, options)


def test_a_weights_file_is_read_again_when_it_changes(make_dataset: Make, tmp_path: Path) -> None:
    dataset, options = load_dataset(make_dataset()), replace(OPTIONS, weights=str(tmp_path / "w.pth"))
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "w.pth")
        assert [postponed("test_resnet", dataset, options) for _ in range(2)] == [False, True]


def test_files_that_changed_while_they_were_loaded_are_not_remembered(make_dataset: Make, tmp_path: Path) -> None:
    dataset, net = load_dataset(make_dataset()), saved(tmp_path / "net")
    [[made]] = make_encoders([str(net)], dataset, replace(OPTIONS, is_postponed=False))[0].values()
    asked, known = Asked(str(net), "pretrained", 0, "float32"), Known(made.space, made.provenance or {})
    remember(asked, known, begun=(net / "config.json").stat().st_ctime)
    assert recall(asked) is None and identities(tmp_path) == []
    remember(asked, known, begun=time.time() + 1)
    assert recall(asked) == known


def test_another_revision_in_the_hubs_cache_is_another_network(make_dataset: Make, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--timm--test"
    for name, text in {"refs/main": "r1", "snapshots/r1/model.safetensors": "weights"}.items():
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text(text)
    [[made]] = make_encoders(["test_resnet"], load_dataset(make_dataset()), Options("random"))[0].values()
    asked = Asked("test_resnet", "pretrained", 0, "float32")
    known = Known(made.space, {"source": str(repository / "snapshots/r1/model.safetensors")})
    remember(asked, known, begun=time.time() + 1)
    assert recall(asked) == known
    (repository / "refs" / "main").write_text("r2")
    assert recall(asked) is None


def test_a_memory_that_is_wrong_embeds_nothing_and_is_deleted(make_dataset: Make, tmp_path: Path) -> None:
    dataset, name, store = load_dataset(make_dataset()), str(saved(tmp_path / "net")), FeatureStore(tmp_path / "f.zarr")
    postponed(name, dataset)
    [file] = identities(tmp_path)
    kept: dict[str, Any] = json.loads(file.read_text())
    space = json.loads(kept["space"]) | {"weights_digest": "0" * 64}
    file.write_text(json.dumps(kept | {"space": json.dumps(space)}))
    encoders, _ = make_encoders([name], dataset, OPTIONS)
    with pytest.raises(StoreError, match=r"is not what it was remembered as: weights_digest: .*run the command again"):
        extract_features(dataset, encoders, store)
    assert store.spaces() == [] and identities(tmp_path) == []
    [report] = extract_features(dataset, make_encoders([name], dataset, OPTIONS)[0], store)
    assert report.embedded == 24


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"content": "", "places": []}', '{"content": 1, "places": 2}'])
def test_a_damaged_memory_is_none(make_dataset: Make, tmp_path: Path, text: str) -> None:
    dataset, name = load_dataset(make_dataset()), str(saved(tmp_path / "net"))
    postponed(name, dataset)
    [file] = identities(tmp_path)
    file.write_text(text)
    assert [postponed(name, dataset) for _ in range(2)] == [False, True]


def test_without_a_place_to_write_every_run_loads(make_dataset: Make, tmp_path: Path) -> None:
    dataset, name = load_dataset(make_dataset()), str(saved(tmp_path / "net"))
    (tmp_path / "cache").write_text("a file")
    assert [postponed(name, dataset) for _ in range(2)] == [False, False]


def test_random_weights_in_place_of_others_are_not_remembered_as_those(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach(name: str, *_: object) -> Path:
        raise weights.WeightsError(name, "no network")

    monkeypatch.setattr("extract.timm_backbone.hub_file", out_of_reach)
    dataset, options = load_dataset(make_dataset()), replace(OPTIONS, fallback_random=True)
    for _ in range(2):
        encoders, warnings = make_encoders(["test_resnet"], dataset, options)
        assert len(warnings) == 1 and not isinstance(encoders["image:bf"][0], Postponed)


def test_datasets_with_stacks_and_the_library_itself_load_the_network(make_dataset: Make, tmp_path: Path) -> None:
    name = "test_resnet"
    dataset, options = load_dataset(make_dataset()), replace(OPTIONS, weights="random")
    assert [postponed(name, dataset, options) for _ in range(2)] == [False, True]
    assert not postponed(name, dataset, replace(options, is_postponed=False))
    stacked = make_dataset('[images.fl]\ncolumn = "file"\n[images.both]\nstack = ["bf", "fl"]\n', folder=tmp_path / "s")
    made, _ = make_encoders([name], load_dataset(stacked), options)
    assert not any(isinstance(one, Postponed) for found in made.values() for one in found)
