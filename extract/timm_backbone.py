"""Image backbones from timm: by name, with their pretrained weights or others, or from a folder in timm's form."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.backbone import Backbone
from extract.weights import hub_file, read_state, seeded, url_file, weights_file
from store import InputError

if TYPE_CHECKING:
    import torch

LOCAL = "local-dir:"  # timm's prefix for a folder with config.json and weights
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # timm/models/_hub.py
CODE_FIELDS = ("num_classes", "in_chans", "global_pool", "pretrained", "pretrained_cfg")


def read_local(folder: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return architecture, model arguments and pretrained configuration of a local folder in timm's form."""
    try:
        config = json.loads((folder / "config.json").read_text())
        pretrained_cfg = config.get("pretrained_cfg", {}) | {"file": str(folder)}
        return config["architecture"], dict(config.get("model_args", {})), pretrained_cfg
    except OSError:
        raise InputError(f"'{LOCAL}{folder}': no folder with a config.json there (timm's local form)") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"'{folder / 'config.json'}' is not in timm's form: expected an 'architecture'") from None


def timm_backbone(
    name: str,
    model: str,
    args: dict[str, Any],
    pretrained_cfg: dict[str, Any] | None,
    *,
    weights: str,
    seed: int,
    input_px: int | None,
) -> Backbone:
    """Return a timm network without its head.

    Args:
        name: What the user wrote, for messages.
        model: The architecture, with or without a tag.
        args: Arguments of the network, `in_chans` among them.
        pretrained_cfg: Of a local folder, what its ``config.json`` says; None for what timm knows.
        weights: ``"pretrained"``, ``"random"``, or a file or folder.
        seed: For random weights.
        input_px: Side of the square it sees; None for what its weights were made for.

    Raises:
        InputError: No such architecture or tag, weights out of reach or of another network.
    """
    import timm

    if model.split(".")[0] not in timm.list_models():
        raise InputError(f"'{name}': its architecture '{model}' is none that timm {timm.__version__} knows")
    _check_tag(model)
    file = _file(name, model, pretrained_cfg, weights)
    args = {key: value for key, value in args.items() if key not in ("num_classes", "pretrained", "pretrained_cfg")}
    size = {} if input_px is None else {"input_size": (3, input_px, input_px)}
    if input_px is not None and timm.get_pretrained_cfg(model).fixed_input_size:
        args["img_size"] = input_px
    network = _network(model, args, pretrained_cfg, file, seed)
    network.reset_classifier(0)
    preprocess = _preprocess(timm.data.resolve_data_config(size, model=network), args)
    architecture = network.pretrained_cfg.get("architecture") or model.split(".")[0]
    source = str(file or f"random, seed {seed}")
    if file is not None and args["in_chans"] != 3:
        _check_widened(name, network)
    return Backbone(network.eval(), architecture, preprocess, _pooling(network), source, args["in_chans"])


def _check_widened(name: str, network: Any) -> None:
    """Raise if timm could not widen a first layer: it warns, and leaves the layer random."""
    first = network.pretrained_cfg.get("first_conv")
    for layer in [first] if isinstance(first, str) else first or []:
        weight = network.get_submodule(layer).weight
        if not (weight[:, :3] == weight[:, 3:6]).all():
            raise InputError(f"'{name}': timm cannot widen its first layer; choose another network for stacks")


def _check_tag(model: str) -> None:
    import timm

    architecture, _, tag = model.partition(".")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and model not in tagged:
        raise InputError(f"'{model}': no such weights. Expected one of {', '.join(tagged) or architecture}")


def _network(
    model: str, args: dict[str, Any], pretrained_cfg: dict[str, Any] | None, file: Path | None, seed: int
) -> Any:
    """Create the network with the very head its weights have, so that loading can be strict."""
    import timm

    if file is None:
        with seeded(seed):
            return timm.create_model(model, pretrained=False, pretrained_cfg=pretrained_cfg, **args)
    registered = timm.get_pretrained_cfg(model)
    known = pretrained_cfg or (registered.to_dict() if registered else {})
    overlay: dict[str, Any] = {"file": str(file), "url": None, "hf_hub_id": None, "source": None}
    if not known.get("custom_load"):
        overlay["num_classes"] = args["num_classes"] = _n_classes(read_state(file), known)
    try:
        return timm.create_model(
            model, pretrained=True, pretrained_cfg=pretrained_cfg, pretrained_cfg_overlay=overlay, **args
        )
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines()][:2]
        raise InputError(f"weights '{file}' do not fit '{model}': {' '.join(lines)[:300]}") from None


def _n_classes(state: "Mapping[str, torch.Tensor]", pretrained_cfg: Mapping[str, Any]) -> int:
    """Return how many classes a state dict's head has: 0 for a headless one."""
    classifier = pretrained_cfg.get("classifier") or ""
    heads = [classifier] if isinstance(classifier, str) else classifier
    for key in (f"{head}.{part}" for head in heads for part in ("bias", "weight")):
        if key in state:
            return int(state[key].shape[0]) - int(pretrained_cfg.get("label_offset") or 0)
    return 0


def _file(name: str, model: str, pretrained_cfg: Mapping[str, Any] | None, weights: str) -> Path | None:
    """Return the file to load; None for random weights."""
    import timm

    if weights == "random":
        return None
    if weights != "pretrained":
        return weights_file(Path(weights))
    if pretrained_cfg is not None:
        return weights_file(Path(pretrained_cfg["file"]))
    config = timm.get_pretrained_cfg(model)
    if config is None or not (config.hf_hub_id or config.url):
        raise InputError(f"'{name}' has no pretrained weights: give --weights FILE-OR-FOLDER or --weights random")
    if config.hf_hub_id:
        return hub_file(name, config.hf_hub_id, [config.hf_hub_filename] if config.hf_hub_filename else HUB_FILES)
    return url_file(name, config.url)


def _preprocess(config: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    channels, height_px, width_px = config["input_size"]
    if channels != 3:
        raise InputError(f"a backbone with {channels} input channels: expected 3 (RGB)")
    extra = {key: value for key, value in args.items() if key not in CODE_FIELDS}
    resolved = {
        "input_px": [height_px, width_px],
        "resize_px": math.floor(min(height_px, width_px) / config["crop_pct"]),  # timm/data/transforms_factory.py
        "crop_mode": config["crop_mode"],
        "interpolation": config["interpolation"],
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "pixel_code": 1,
    }
    return resolved | ({"model_args": extra} if extra else {})


def _pooling(network: Any) -> str:
    for owner in (network, getattr(network, "head", None)):
        pool = getattr(owner, "global_pool", None)
        if pool is not None:
            return pool if isinstance(pool, str) else str(getattr(pool, "pool_type", type(pool).__name__))
    return "default"
