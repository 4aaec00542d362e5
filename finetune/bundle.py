"""A fine-tuned model's folder: a bundle of its last layers as heads' are, its network, and its encoders.

``bundle.json`` and ``weights.safetensors`` hold the bundle and all of the network but its encoders; each of those is a
folder of its own beside them, which `extract` takes too. An earlier bundle and its ONNX file are taken away; other
files in the folder are left alone.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract import (
    Backbone,
    Device,
    Language,
    image_space,
    load_backbone,
    load_language,
    save_backbone,
    save_language,
    state_digest,
    text_space,
)
from finetune.blueprint import Blueprint, BranchPlan, Output
from finetune.branches import module_key
from finetune.encoders import Loaded
from finetune.network import MultimodalNetwork
from finetune.outputs import network_features
from finetune.pictures import one_block
from heads import (
    FEATURES,
    WHOLE,
    Bundle,
    Calibration,
    Layer,
    bundle_kind,
    bundle_of_layers,
    describe_bundle,
    features_matrix,
    needed_spec,
    portable_spec,
    read_document,
    rebuild_bundle,
    write_document,
)
from store import Dataset, FeatureSpace, InputError, Progress, Rows, StoreError, view_settings, write_error

KIND = "finetune"
DOCUMENT = "bundle.json"
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
NETWORK = ".network/"  # no task has such a name
UNSEEN = "unseen"  # key of the document: ids of the rows that the network was not trained on
SUBSET = "subset"  # and of the rows not held out that a run with --subset drew; absent where it had all


@dataclass(frozen=True)
class FinetunedBundle:
    """A network, and what a bundle says of its task heads.

    Attributes:
        network: In evaluation mode.
        layers: Its task heads with their calibration, the training rows' reference, and the spec.
    """

    network: MultimodalNetwork
    layers: Bundle

    def predict(
        self, dataset: Dataset, *, device: Device = "auto", progress: Progress | None = None
    ) -> tuple[pd.DataFrame, dict[str, str]]:
        """Return the predictions of all rows, as `Bundle.predict` does, and why some have none, by row id."""
        rows = np.arange(dataset.n_rows)
        X, left_out = network_features(self.network, dataset, rows, device=device, progress=progress)
        return self.layers.predict(features_matrix(dataset, self.layers.spaces[FEATURES], X)), left_out


def save_bundle(
    folder: Path,
    network: MultimodalNetwork,
    dataset: Dataset,
    *,
    rows: Rows,
    calibrations: Mapping[str, Calibration],
    entries: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    is_whole: bool = False,
    device: Device = "auto",
) -> list[dict[str, Any]]:
    """Write a fine-tuned model; the document comes last, so that a half-written folder is known as one.

    Args:
        folder: Of the run; may hold other files.
        network: In evaluation mode.
        dataset: n rows.
        rows: Training rows: how far new rows lie from them is what `ood_distance` says.
        calibrations: By task.
        entries: By task: what the leaderboard says.
        about: Split fingerprint, seed, versions.
        is_whole: `rows` were taken from all that are not held out, those that are scored among them.
        device: Where the training rows are looked at.

    Returns:
        Name, folder and fingerprint of each encoder's space.

    Raises:
        InputError: The folder cannot be written to.
        StoreError: The disk is full.
    """
    X, _ = network_features(network, dataset, rows, device=device)
    matrix = features_matrix(dataset, _features_space(network), X)
    layers = {
        task.name: _layer(network, task, calibrations[task.name], entries[task.name])
        for task in network.blueprint.tasks
    }
    spec = portable_spec(needed_spec(dataset, _used(network.blueprint)), dataset.folder)
    bundle = bundle_of_layers(dataset, spec, matrix, rows, layers, about=about)
    tuned_on = f"{about['split_fingerprint']}{WHOLE * is_whole}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = _files(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as made:
            spaces = _write(bundle, network, dataset, Path(made), tuned_on)
            for part in sorted(Path(made).iterdir(), key=lambda path: path.name == DOCUMENT):
                _replace(part, folder / part.name)
        _take_away(folder, [*(earlier - _files(folder)), ONNX, f"{ONNX}.data"])
    except OSError as error:
        raise write_error(folder, error) from None
    return [{"name": name, "folder": str(folder / name), "fingerprint": fingerprint} for name, fingerprint in spaces]


def load_bundle(folder: Path) -> FinetunedBundle:
    """Return a fine-tuned model from its folder; nothing else is needed, wherever it lies.

    Raises:
        InputError: There is no bundle, or one of heads.
        StoreError: It was written by another schema version, or a file is missing or damaged.
    """
    from safetensors.numpy import load_file

    document = read_document(folder)
    if document.get("kind") != KIND:
        raise InputError(f"{folder}: is a bundle of heads, not of a fine-tuned network")
    tensors = load_file(folder / WEIGHTS)
    blueprint = Blueprint.from_json(json.dumps(document["network"]))
    encoders = {plan.name: _load_encoder(plan, folder) for plan in _owners(blueprint)}
    network = MultimodalNetwork(
        blueprint,
        [Loaded(plan, *encoders.get(plan.shares or plan.name, (None, None))) for plan in blueprint.branches],
    )
    kept = [name for name in tensors if name.startswith(NETWORK)]
    _fill(network, {name.removeprefix(NETWORK): tensors.pop(name) for name in kept})
    return FinetunedBundle(network.eval(), rebuild_bundle(document, tensors, folder))


def _write(
    bundle: Bundle, network: MultimodalNetwork, dataset: Dataset, folder: Path, tuned_on: str
) -> list[tuple[str, str]]:
    from safetensors.numpy import save_file

    document, tensors = describe_bundle(bundle, folder)
    kept = _own_tensors(network)
    tensors |= {f"{NETWORK}{name}": tensor.detach().cpu().numpy() for name, tensor in kept.items()}
    save_file(tensors, folder / WEIGHTS)
    spaces = [
        (plan.name, _save_encoder(plan, network.branches[plan.name], dataset, folder / plan.name, tuned_on))
        for plan in _owners(network.blueprint)
    ]
    network_document = json.loads(network.blueprint.without_places().to_json())
    write_document({"kind": KIND, **document, "network": network_document}, folder)
    for file in folder.rglob("*.safetensors"):  # safetensors lets nobody but their owner read them
        shutil.copymode(folder / DOCUMENT, file)
    return spaces


def _replace(new: Path, old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)


def _files(folder: Path) -> set[str]:
    """Return the files that a fine-tuned bundle in a folder says it consists of; none where there is no such bundle."""
    if bundle_kind(folder) != KIND:
        return set()
    named = json.loads((folder / DOCUMENT).read_text()).get("files", {})
    return {name for name in named if (folder / name).resolve().is_relative_to(folder.resolve())}


def _take_away(folder: Path, names: Iterable[str]) -> None:
    """Remove files, and the folders in `folder` that they leave empty."""
    for path in (folder / name for name in names):
        path.unlink(missing_ok=True)
        with suppress(OSError):
            for parent in path.relative_to(folder).parents[:-1]:
                (folder / parent).rmdir()


def _owners(blueprint: Blueprint) -> list[BranchPlan]:
    """Return the branches that have an encoder of their own."""
    return [plan for plan in blueprint.branches if plan.kind != "metadata" and plan.shares is None]


def _own_tensors(network: MultimodalNetwork) -> dict[str, Tensor]:
    """Return the state of all but the encoders."""
    starts = tuple(f"branches.{module_key(plan.name)}.encoder." for plan in network.blueprint.branches)
    return {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(starts)}


def _fill(network: MultimodalNetwork, tensors: Mapping[str, NDArray[Any]]) -> None:
    own = _own_tensors(network)
    if own.keys() != tensors.keys():
        wrong = sorted(own.keys() ^ tensors.keys())
        raise StoreError(f"{WEIGHTS}: does not fit the network that {DOCUMENT} describes ({wrong[0]}); make it again")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(tensors[name]))


def _save_encoder(plan: BranchPlan, branch: Any, dataset: Dataset, folder: Path, tuned_on: str) -> str:
    """Write a branch's encoder, and return the fingerprint of its space on the branch's first block."""
    preprocess = dict(plan.preprocess or {})
    if plan.kind == "text":
        language = Language(
            branch.encoder, branch.tokenizer, plan.encoder, preprocess, plan.pooling, plan.dim, KIND, tuned_on=tuned_on
        )
        save_language(language, folder)
        return text_space(language, precision="float32").fingerprint
    backbone = Backbone(
        branch.encoder, plan.encoder, preprocess, plan.pooling, KIND, in_chans=plan.in_chans, tuned_on=tuned_on
    )
    save_backbone(backbone, folder)
    block = one_block([dataset.images[name] for name in plan.blocks])
    return image_space(backbone, view_settings(block), precision="float32").fingerprint


def _load_encoder(plan: BranchPlan, folder: Path) -> tuple[Any, Any]:
    if plan.kind == "text":
        language = load_language(str(folder / plan.name))
        return language.module, language.tokenizer
    return load_backbone(str(folder / plan.name)).module, None


def _features_space(network: MultimodalNetwork) -> FeatureSpace:
    """Return the space of the features: this very network's, and no other's."""
    plans = network.blueprint.branches
    return FeatureSpace(
        modality="image" if any(plan.kind == "image" for plan in plans) else "text",
        encoder="+".join(plan.encoder or plan.kind for plan in plans),
        dim=network.dim,
        weights_digest=state_digest(network.state_dict()),
    )


def _layer(network: MultimodalNetwork, task: Output, calibration: Calibration, entry: Mapping[str, Any]) -> Layer:
    """Return a task head, a regression's in its own units."""
    linear = network.heads[task.name]
    coef, intercept = (tensor.detach().cpu().double().numpy() for tensor in (linear.weight, linear.bias))
    if task.name in network.units:
        units = network.units[task.name]
        mean, scale = (tensor.cpu().double().numpy() for tensor in (units.mean, units.scale))
        coef, intercept = coef * scale[:, None], intercept * scale + mean
    return Layer(coef, intercept, calibration, entry)


def _used(blueprint: Blueprint) -> set[str]:
    kinds = {plan.kind for plan in blueprint.branches}
    named = {f"{plan.kind}:{block}" for plan in blueprint.branches for block in plan.blocks}
    return named | ({"metadata"} & kinds)
