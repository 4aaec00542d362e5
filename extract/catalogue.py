"""Image backbones by name: timm's, torchvision's, and the encoder folders that `save_backbone` wrote."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from extract.backbone import Backbone
from extract.timm_backbone import LOCAL, read_local, timm_backbone
from extract.torchvision_backbone import torchvision_backbone
from extract.weights import read_state, weights_file
from store import InputError, one_line

HEADLESS = "embedonce"  # key of config.json in a folder that `save_backbone` wrote


def image_names() -> tuple[list[str], list[str]]:
    """Return timm's names, and the torchvision names that timm lacks."""
    import timm
    from torchvision import models

    import extract.residual  # noqa: F401 - adds a network to timm's

    known = set(timm.list_models())
    return sorted(known), sorted(set(models.list_models(module=models)) - known)


def is_image_name(name: str) -> bool:
    """Whether timm or torchvision has it; ``architecture.tag``, ``local-dir:PATH`` and encoder folders count."""
    if name.startswith(LOCAL) or "architecture" in _read_config(Path(name)):
        return True
    timm_names, torchvision_names = image_names()
    return name.split(".")[0] in timm_names or name in torchvision_names


def load_backbone(
    name: str,
    *,
    weights: str = "pretrained",
    seed: int = 0,
    in_chans: int | None = None,
    input_px: int | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Backbone:
    """Return a headless network.

    Args:
        name: A timm name (with or without its tag), a folder in timm's local form (``local-dir:PATH``, or its path), or
            a torchvision name that timm lacks.
        weights: ``"pretrained"``, ``"random"``, or a file or folder.
        seed: For random weights.
        in_chans: Input channels, a multiple of 3: timm repeats the weights of the first layer and scales them to the
            same sum, so that a stack of equal images gives what one image would. None: 3, or what a saved encoder has.
        input_px: Side of the square it sees, instead of what its weights were made for.
        model_args: Further arguments of a timm network, such as ``{"norm": "group"}`` of `residual`.

    Raises:
        InputError: No such folder or file, no pretrained weights, out of reach, weights of another network, or a
            network that cannot be widened.
    """
    folder = Path(name.removeprefix(LOCAL))
    if HEADLESS in _read_config(folder):
        return _saved_backbone(folder, weights=weights, seed=seed, in_chans=in_chans, input_px=input_px)
    how: Any = {"weights": weights, "seed": seed, "input_px": input_px}
    extra = {**(model_args or {}), "in_chans": in_chans or 3}
    if not name.startswith(LOCAL) and "architecture" not in _read_config(folder):
        return _library_backbone(name, extra, **how)
    model, args, config = read_local(folder)
    return timm_backbone(name, model, args | extra, config, **how)


def _library_backbone(name: str, args: dict[str, Any], **how: Any) -> Backbone:
    """Return the network that timm or torchvision has by this name, whatever folder has it too."""
    if name not in _torchvision_names():
        return timm_backbone(name, name, args, None, **how)
    if args["in_chans"] != 3:
        raise InputError(f"'{name}' is a torchvision network and takes 3 channels; stacks need a timm network")
    return torchvision_backbone(name, **how)


@cache
def _torchvision_names() -> frozenset[str]:
    return frozenset(image_names()[1])


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the ``config.json`` of a folder; empty where there is none."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _saved_backbone(folder: Path, *, weights: str, seed: int, in_chans: int | None, input_px: int | None) -> Backbone:
    """Return the network that `save_backbone` wrote; its very tensors, and the preprocessing recorded with them."""
    config = _read_config(folder)
    saved = config[HEADLESS]
    own, preprocess = saved["in_chans"], saved["preprocess"]
    if in_chans not in (None, own):
        raise InputError(
            f"'{folder}' was trained on {_n_images(own)}, and this block has {_n_images(int(in_chans or 0))}"
        )
    args = {**preprocess.get("model_args", {}), "in_chans": own}
    made = _library_backbone(config["architecture"], args, weights="random", seed=seed, input_px=input_px)
    if weights != "random":
        file = weights_file(folder if weights == "pretrained" else Path(weights))
        try:
            made.module.load_state_dict(read_state(file))
        except RuntimeError as error:
            raise InputError(f"weights '{file}' do not fit '{folder}': {one_line(error)}") from None
        made = replace(made, source=str(file))
    preprocess = preprocess if input_px is None else made.preprocess
    return replace(
        made, preprocess=preprocess, pooling=saved["pooling"], is_saved=True, tuned_on=saved.get("tuned_on", "")
    )


def _n_images(in_chans: int) -> str:
    return "single images" if in_chans == 3 else f"stacks of {in_chans // 3} images"
