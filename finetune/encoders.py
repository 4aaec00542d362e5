"""The encoders of branches: loaded with their weights, or left out of a built-in sample."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from extract import (
    ENCODERS,
    Backbone,
    WeightsError,
    load_backbone,
    load_language,
    load_or_random,
    modality_of,
    vector_length,
)
from finetune.blueprint import BranchPlan
from finetune.choice import Part, choose_parts
from finetune.settings import BranchSettings, FinetuneSettings
from store import Dataset, InputError

FROM_SCRATCH = "residual"


@dataclass(frozen=True)
class Loaded:
    """A branch with its encoder.

    Attributes:
        plan: What it is.
        encoder: The headless network; None for metadata.
        tokenizer: Of text.
    """

    plan: BranchPlan
    encoder: nn.Module | None = None
    tokenizer: Any = None


def load_branches(
    dataset: Dataset, parts: Sequence[Part], settings: FinetuneSettings, *, n_columns: int, seed: int
) -> tuple[list[Loaded], list[str]]:
    """Return the branches with the weights that the settings name, and what to tell the user.

    A built-in sample goes on with random weights where the hub is out of reach, and without its texts.

    Raises:
        InputError: Unknown encoder, weights out of reach or not fitting, an input size that it does not take.
    """
    loaded: dict[str, Loaded] = {}
    notes: list[str] = []
    for part in parts:
        own = settings.branch(part.name, part.kind)
        owner = loaded.get(_owner(part, parts, settings))
        if part.kind == "metadata":
            loaded[part.name] = Loaded(BranchPlan(part.name, "metadata", (), own, n_columns))
        elif owner is not None:
            loaded[part.name] = replace(owner, plan=_sharing(owner.plan, part, own))
        elif found := _load_or_do_without(part, settings, notes, seed=seed, is_sample=dataset.spec.sample is not None):
            loaded[part.name] = found
    return list(loaded.values()), list(dict.fromkeys(notes))


def check_encoders(dataset: Dataset, settings: FinetuneSettings) -> None:
    """Raise an `InputError` for a branch whose encoder nobody knows or cannot be trained on it; nothing is loaded."""
    for part in choose_parts(dataset, settings):
        if part.kind != "metadata":
            _check_encoder(part, str(_chosen(part, settings).encoder))


def _chosen(part: Part, settings: FinetuneSettings) -> BranchSettings:
    """Return a branch's settings with encoder and weights filled in."""
    own = settings.branch(part.name, part.kind)
    name = own.encoder or (settings.text_backbone if part.kind == "text" else settings.backbone)
    weights = "random" if name == FROM_SCRATCH else own.weights or settings.weights
    return own.model_copy(update={"encoder": name, "weights": weights})


def _owner(part: Part, parts: Sequence[Part], settings: FinetuneSettings) -> str:
    """Return the first branch that can have the same encoder as `part`; itself where nothing is shared."""
    if settings.modalities != "shared" or part.kind != "image":
        return part.name
    return next(other.name for other in parts if _same(part, other, settings))


def _same(one: Part, other: Part, settings: FinetuneSettings) -> bool:
    keys = ("encoder", "weights", "norm", "channels", "narrow")
    a, b = (_chosen(part, settings) for part in (one, other))
    return (one.kind, one.n_images) == (other.kind, other.n_images) and all(
        getattr(a, k) == getattr(b, k) for k in keys
    )


def _sharing(owner: BranchPlan, part: Part, own: BranchSettings) -> BranchPlan:
    """Return the plan of a branch that has the owner's encoder, which is said to be its own too."""
    settings = own.model_copy(update={key: getattr(owner.settings, key) for key in ("encoder", "weights")})
    return replace(owner, name=part.name, blocks=part.blocks, settings=settings, shares=owner.name)


def _load_or_do_without(
    part: Part, settings: FinetuneSettings, notes: list[str], *, seed: int, is_sample: bool
) -> Loaded | None:
    """Return a branch; of a built-in sample out of the hub's reach with random weights, of a text None."""
    chosen = _chosen(part, settings)

    def load(weights: str) -> Loaded:
        return _load(part, chosen.model_copy(update={"weights": weights}), settings, seed=seed)

    falls_back = is_sample and part.kind != "text"  # which needs its tokenizer too
    try:
        found, warnings = load_or_random(load, str(chosen.weights), seed=seed, falls_back=falls_back)
    except WeightsError as error:
        if not is_sample:
            raise
        if settings.preset is not None:
            raise InputError(
                f"preset {settings.preset!r} reads texts, and {error} For texts random weights do not help: give --set "
                f"text_backbone=FOLDER, a text encoder on this machine, or --set blocks=… without text:{part.name}"
            ) from None
        notes.append(f"text:{part.name} is left out: {error}")
        return None
    notes += warnings
    return found


def _load(part: Part, chosen: BranchSettings, settings: FinetuneSettings, *, seed: int) -> Loaded:
    _check_encoder(part, str(chosen.encoder))
    load = _load_text if part.kind == "text" else _load_image
    return load(part, chosen, input_px=settings.input_px, seed=seed)


def _check_encoder(part: Part, name: str) -> None:
    modality = "text" if part.kind == "text" else "image"
    if modality_of(name) != modality:
        raise InputError(f"[finetune]: {name!r} does not take {modality}s, but branch {part.name!r} has {modality}s")
    if name in ENCODERS:
        raise InputError(f"[finetune]: {name!r} has no weights to train; choose another encoder for {part.name!r}")


def _load_image(part: Part, chosen: BranchSettings, *, input_px: int | None, seed: int) -> Loaded:
    is_residual = chosen.encoder == FROM_SCRATCH
    backbone = load_backbone(
        str(chosen.encoder),
        weights=str(chosen.weights),
        seed=seed,
        in_chans=3 * part.n_images,
        input_px=input_px,
        model_args=_residual_args(chosen) if is_residual else None,
    )
    plan = BranchPlan(
        name=part.name,
        kind="image",
        blocks=part.blocks,
        settings=chosen,
        dim=_dim(backbone),
        encoder=backbone.architecture,
        in_chans=backbone.in_chans,
        preprocess=backbone.preprocess,
        pooling=backbone.pooling,
        source=backbone.source,
    )
    return Loaded(plan, backbone.module)


def _residual_args(chosen: BranchSettings) -> dict[str, Any]:
    """Return the arguments of `residual`; what it has by default is no part of a space."""
    narrow = {} if chosen.narrow == 1 else {"narrow": chosen.narrow}
    return {"norm": chosen.norm, "channels": chosen.channels, **narrow}


def _dim(backbone: Backbone) -> int:
    """Return d, having checked that instance norm has something to normalise over: it needs a map of 2 x 2."""
    norm = backbone.preprocess.get("model_args", {}).get("norm")
    least_px = 64
    if norm == "instance" and min(backbone.preprocess["input_px"]) < least_px:
        raise InputError(f"[finetune]: residual with instance norm needs input_px = {least_px} or more")
    return vector_length(backbone)


def _load_text(part: Part, chosen: BranchSettings, *, input_px: int | None, seed: int) -> Loaded:
    del input_px
    language = load_language(str(chosen.encoder), weights=str(chosen.weights), seed=seed)
    config: Mapping[str, Any] = json.loads(language.module.config.to_json_string(use_diff=False))  # type: ignore
    plan = BranchPlan(
        name=part.name,
        kind="text",
        blocks=part.blocks,
        settings=chosen,
        dim=language.dim,
        encoder=language.architecture,
        preprocess=language.preprocess,
        pooling=chosen.pooling or language.pooling,
        config=config,
        source=language.source,
    )
    return Loaded(plan, language.module, language.tokenizer)
