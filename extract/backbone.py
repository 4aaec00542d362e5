"""Image backbones from timm and torchvision as encoders: one headless network, normalisation included."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.engine import Precision
from extract.resize import prepare_image
from extract.runner import ANYWHERE, Place, Runner
from extract.weights import hub_file, read_state, seeded, state_digest, url_file, weights_file
from store import FeatureSpace, InputError

if TYPE_CHECKING:
    import torch

LOCAL = "local-dir:"  # timm's prefix for a folder with config.json and weights
HEADLESS = "embedonce"  # key of config.json in a folder that `save_backbone` wrote
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # timm/models/_hub.py
CODE_FIELDS = ("num_classes", "in_chans", "global_pool", "pretrained", "pretrained_cfg")
GOOGLENET = {"transform_input": True, "aux_logits": True, "init_weights": False}  # as its published weights want it


@dataclass(frozen=True)
class Backbone:
    """A headless network for images.

    Attributes:
        module: Takes normalised float32 ``(b, in_chans, h, w)``, gives ``(b, d)``; in evaluation mode.
        architecture: Its name without path or tag.
        preprocess: The resolved preprocessing, as `FeatureSpace` keeps it.
        pooling: How positions became one vector.
        source: Where the weights came from, for people.
        in_chans: 3 for each image.
        is_saved: Whether it comes from an encoder folder, and takes so many channels and no others.
        tuned_on: Fingerprint of the split whose training rows its weights have learned from; "" for none that is known.
    """

    module: "torch.nn.Module"
    architecture: str
    preprocess: Mapping[str, Any]
    pooling: str
    source: str
    in_chans: int = 3
    is_saved: bool = False
    tuned_on: str = ""


class ImageEncoder:
    """An `Encoder` of images: the transform is built from the space, so what is recorded is what runs."""

    def __init__(
        self, backbone: Backbone, space: FeatureSpace, *, provenance: Mapping[str, Any], place: Place = ANYWHERE
    ) -> None:
        self.space = space
        self.provenance = dict(provenance)
        height_px, width_px = space.preprocess["input_px"]
        shape = (2, height_px, width_px, backbone.in_chans)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        module = with_normalisation(backbone.module, space.preprocess, backbone.in_chans // 3)
        self.runner = Runner(module, (noise,), _cache_key(space), place, space.precision)

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the pixels the network sees, as `prepare_image` has them."""
        return prepare_image(pixels, self.space.preprocess)

    def encode(self, batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 ``(b, d)`` for b prepared images.

        Raises:
            MemoryError: The batch does not fit on the device.
        """
        return self.runner(np.stack(batch))

    @property
    def batch_size(self) -> int:
        """Rows per batch to begin with: less for larger inputs, more on a GPU."""
        rows = 256 if self.runner.resolve_device() == "cuda" else 32
        n_pixels: int = math.prod(self.space.preprocess["input_px"])
        return max(1, rows * 224 * 224 // n_pixels)


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


def image_space(backbone: Backbone, settings: Mapping[str, Any], *, precision: Precision) -> FeatureSpace:
    """Return the space of a backbone's vectors, seen as `view_settings` has it."""
    return FeatureSpace(
        modality="image",
        encoder=backbone.architecture,
        dim=vector_length(backbone),
        weights_digest=state_digest(backbone.module.state_dict()),
        preprocess=backbone.preprocess,
        pooling=backbone.pooling,
        precision=precision,
        **settings,
    )


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
    in_chans = in_chans or 3
    if name in _torchvision_names():
        if in_chans != 3:
            raise InputError(f"'{name}' is a torchvision network and takes 3 channels; stacks need a timm network")
        return _torchvision_backbone(name, weights, seed, input_px)
    is_folder = name.startswith(LOCAL) or "architecture" in _read_config(folder)
    model, args, config = _read_local(folder) if is_folder else (name, {}, None)
    args = {**args, **(model_args or {}), "in_chans": in_chans}
    return _timm_backbone(name, model, args, config, weights=weights, seed=seed, input_px=input_px)


def with_normalisation(
    module: "torch.nn.Module", preprocess: Mapping[str, Any], n_images: int = 1
) -> "torch.nn.Module":
    """Return a module that takes uint8 ``(b, h, w, 3 n_images)`` and begins with ``(x / 255 - mean) / std``."""
    import torch

    class Normalised(torch.nn.Module):
        scale: torch.Tensor
        shift: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = module
            mean, std = (torch.tensor(preprocess[key] * n_images).view(1, -1, 1, 1) for key in ("mean", "std"))
            self.register_buffer("scale", 1 / (255 * std))
            self.register_buffer("shift", -mean / std)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            x = pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
            result: torch.Tensor = self.network(x)
            return result

    return Normalised().eval()


def vector_length(backbone: Backbone) -> int:
    """Return d, by running one black image: what libraries call the number of features is not always it."""
    import torch

    height_px, width_px = backbone.preprocess["input_px"]
    try:
        with torch.inference_mode():
            vectors = backbone.module(torch.zeros(1, backbone.in_chans, height_px, width_px))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"'{backbone.architecture}' takes no input of {height_px} x {width_px} px: {reason}") from None
    if vectors.ndim != 2:
        raise InputError(f"'{backbone.architecture}' gives {tuple(vectors.shape)} per image, not one vector")
    return int(vectors.shape[1])


# --- encoder folders ---


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
    made = load_backbone(
        config["architecture"],
        weights="random",
        seed=seed,
        in_chans=own,
        input_px=input_px,
        model_args=preprocess.get("model_args"),
    )
    if weights != "random":
        file = weights_file(folder if weights == "pretrained" else Path(weights))
        try:
            made.module.load_state_dict(read_state(file))
        except RuntimeError as error:
            raise InputError(f"weights '{file}' do not fit '{folder}': {' '.join(str(error).split())[:300]}") from None
        made = replace(made, source=str(file))
    preprocess = preprocess if input_px is None else made.preprocess
    return replace(
        made, preprocess=preprocess, pooling=saved["pooling"], is_saved=True, tuned_on=saved.get("tuned_on", "")
    )


def _n_images(in_chans: int) -> str:
    return "single images" if in_chans == 3 else f"stacks of {in_chans // 3} images"


# --- timm ---


def _read_local(folder: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return architecture, model arguments and pretrained configuration of a local folder in timm's form."""
    try:
        config = json.loads((folder / "config.json").read_text())
        pretrained_cfg = config.get("pretrained_cfg", {}) | {"file": str(folder)}
        return config["architecture"], dict(config.get("model_args", {})), pretrained_cfg
    except OSError:
        raise InputError(f"'{LOCAL}{folder}': no folder with a config.json there (timm's local form)") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"'{folder / 'config.json'}' is not in timm's form: expected an 'architecture'") from None


def _timm_backbone(
    name: str,
    model: str,
    args: dict[str, Any],
    pretrained_cfg: dict[str, Any] | None,
    *,
    weights: str,
    seed: int,
    input_px: int | None,
) -> Backbone:
    import timm

    if model.split(".")[0] not in timm.list_models():
        raise InputError(f"'{name}': its architecture '{model}' is none that timm {timm.__version__} knows")
    _check_tag(model)
    file = _timm_file(name, model, pretrained_cfg, weights)
    args = {key: value for key, value in args.items() if key not in ("num_classes", "pretrained", "pretrained_cfg")}
    size = {} if input_px is None else {"input_size": (3, input_px, input_px)}
    if input_px is not None and timm.get_pretrained_cfg(model).fixed_input_size:
        args["img_size"] = input_px
    network = _timm_network(model, args, pretrained_cfg, file, seed)
    network.reset_classifier(0)
    preprocess = _timm_preprocess(timm.data.resolve_data_config(size, model=network), args)
    architecture = network.pretrained_cfg.get("architecture") or model.split(".")[0]
    source = str(file or f"random, seed {seed}")
    if file is not None and args["in_chans"] != 3:
        _check_widened(name, network)
    return Backbone(network.eval(), architecture, preprocess, _timm_pooling(network), source, args["in_chans"])


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


def _timm_network(
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


def _timm_file(name: str, model: str, pretrained_cfg: Mapping[str, Any] | None, weights: str) -> Path | None:
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


def _timm_preprocess(config: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
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


def _timm_pooling(network: Any) -> str:
    for owner in (network, getattr(network, "head", None)):
        pool = getattr(owner, "global_pool", None)
        if pool is not None:
            return pool if isinstance(pool, str) else str(getattr(pool, "pool_type", type(pool).__name__))
    return "default"


# --- torchvision ---


@cache
def _torchvision_names() -> frozenset[str]:
    return frozenset(image_names()[1])


def _torchvision_backbone(name: str, weights: str, seed: int, input_px: int | None) -> Backbone:
    from torchvision import models

    published = models.get_model_weights(name).DEFAULT
    network = _torchvision_network(name, seed)
    file = _torchvision_file(name, published.url, weights)
    if file is not None:
        try:
            network.load_state_dict(read_state(file))
        except RuntimeError as error:
            raise InputError(f"weights '{file}' do not fit '{name}': {' '.join(str(error).split())[:300]}") from None
    _behead(network)
    preprocess = _torchvision_preprocess(published.transforms(), input_px)
    return Backbone(network.eval(), name, preprocess, "default", str(file or f"random, seed {seed}"))


def _torchvision_network(name: str, seed: int) -> "torch.nn.Module":
    from torchvision import models

    make: Callable[..., torch.nn.Module] = models.get_model
    with seeded(seed):
        return make(name, weights=None, **(GOOGLENET if name == "googlenet" else {}))


def _torchvision_file(name: str, url: str, weights: str) -> Path | None:
    if weights == "random":
        return None
    return url_file(name, url) if weights == "pretrained" else weights_file(Path(weights))


def _behead(network: "torch.nn.Module") -> None:
    """Take off the last linear layer; where the head is convolutional (SqueezeNet), leave the mean over positions."""
    import torch

    name = next(name for name in ("fc", "classifier", "heads", "head") if hasattr(network, name))
    head = getattr(network, name)
    linear = [path for path, module in head.named_modules(prefix=name) if isinstance(module, torch.nn.Linear)]
    if not linear:
        setattr(network, name, torch.nn.AdaptiveAvgPool2d(1))
        return
    parent, _, child = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, torch.nn.Identity())


def _torchvision_preprocess(transforms: Any, input_px: int | None) -> dict[str, Any]:
    own_px = transforms.crop_size[0]
    side_px = input_px or own_px
    return {
        "input_px": [side_px, side_px],
        "resize_px": transforms.resize_size[0] * side_px // own_px,
        "crop_mode": "center",
        "interpolation": transforms.interpolation.value,
        "mean": list(transforms.mean),
        "std": list(transforms.std),
        "pixel_code": 1,
    }


def _cache_key(space: FeatureSpace) -> str:
    """What a converted model depends on: the network with its weights and normalisation, and who converted it."""
    import openvino
    import timm
    import torch
    import torchvision

    versions = [module.__version__ for module in (openvino, timm, torch, torchvision)]
    network = [space.encoder, space.weights_digest, space.pooling, dict(space.preprocess)]
    return json.dumps([1, versions, network], sort_keys=True)
