"""A network that makes encoders: loaded once for all blocks, or known from an earlier run and loaded when needed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

from extract.contract import Encoder
from extract.engine import Device, Precision
from extract.identity import Asked, Known, Postponed, recall, remember
from extract.runner import Choice, Runtime
from extract.tiles import PooledEncoder
from extract.weights import load_or_random, state_digest
from store import FeatureSpace, ImageBlock, TextBlock, is_one_crop, view_settings

Modality = Literal["image", "text"]
Block = ImageBlock | TextBlock


@dataclass(frozen=True)
class Options:
    """What an encoder with weights may be asked for.

    Attributes:
        weights: ``"pretrained"``, ``"random"``, or a file or folder.
        seed: For random weights.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        precision: Of the forward pass; part of the space.
        dtype: ``"float32"`` or ``"float16"``: what the vectors are stored in; part of the space.
        engine: ``"auto"`` unless a test or a benchmark wants a certain one.
        is_compiled: Whether torch compiles networks that it runs.
        fallback_random: Go on with random weights where pretrained ones are out of reach (for a built-in sample).
        is_postponed: Whether a network that is known from an earlier run (`identity`) is loaded only when it is needed.
    """

    weights: str = "pretrained"
    seed: int = 0
    device: Device = "auto"
    precision: Precision = "float32"
    dtype: Literal["float32", "float16"] = "float32"
    engine: Choice = "auto"
    is_compiled: bool = False
    fallback_random: bool = False
    is_postponed: bool = False


def load_network(name: str, modality: Modality, options: Options, warnings: list[str]) -> "Loaded":
    """Load a network, with random weights where `options` allow that; `warnings` say so."""
    falls_back = options.fallback_random and modality == "image"  # a text network needs its tokenizer too
    loaded, found = load_or_random(
        lambda weights: Loaded(name, modality, replace(options, weights=weights)),
        options.weights,
        seed=options.seed,
        falls_back=falls_back,
    )
    warnings += found
    return loaded


def recall_network(name: str, options: Options) -> "Recalled | None":
    """Return a network that is known from an earlier run, if any."""
    known = recall(_asked(name, options))
    return None if known is None else Recalled(name, known, options)


def _asked(name: str, options: Options) -> Asked:
    return Asked(name, options.weights, options.seed, options.precision)


class Recalled:
    """A network known from an earlier run; it is loaded, once, when something is to be embedded."""

    def __init__(self, name: str, known: Known, options: Options) -> None:
        self.modality: Modality = known.space.modality
        self._name, self._known, self._options = name, known, options

    @cached_property
    def _network(self) -> "Loaded":
        return Loaded(self._name, self.modality, self._options)

    def takes(self, block: ImageBlock) -> bool:
        """Whether its first layer fits."""
        return not block.parts

    def encoder(self, block: Block) -> Encoder:
        """Return the encoder for a block."""
        settings = {} if isinstance(block, TextBlock) else view_settings(block)
        known = replace(self._known, space=replace(self._known.space, **settings))
        return Postponed(_asked(self._name, self._options), known, lambda: self._network.encoder(block))


class Loaded:
    """A network loaded once, to make encoders of."""

    def __init__(self, name: str, modality: Modality, options: Options) -> None:
        from extract import catalogue, language

        self._begun = time.time()
        self._options = options
        self.modality: Modality = modality
        load: Any = catalogue.load_backbone if modality == "image" else language.load_language
        self._load: Callable[..., Any] = partial(load, name, weights=options.weights, seed=options.seed)
        self._network = self._load()
        self._widened: dict[int, Any] = {}
        self._provenance = {
            "name": name,
            "weights": options.weights,
            "seed": options.seed,
            "source": self._network.source,
        }
        if self._network.tuned_on:
            self._provenance["tuned_on"] = self._network.tuned_on

    @property
    def weights_digest(self) -> str:
        """What the spaces of its vectors say of its weights, unless it is widened for a stack."""
        return state_digest(self._network.module.state_dict())

    def takes(self, block: ImageBlock) -> bool:
        """Whether its first layer fits, or can be widened; that of a saved encoder stays as it was trained."""
        return not self._network.is_saved or self._network.in_chans == 3 * max(1, len(block.parts))

    def encoder(self, block: Block) -> Encoder:
        """Return the encoder for a block."""
        encoder = self._make(self._space(block))
        if self._options.is_postponed and not is_stack(block):
            known = Known(encoder.space, self._provenance)
            remember(_asked(self._provenance["name"], self._options), known, begun=self._begun)
        return encoder

    def encoder_of(self, space: FeatureSpace) -> Encoder:
        """Return the encoder with the preprocessing of `space` and its own weights."""
        own = self._space(block_of(space))
        return self._make(own if self.modality == "text" else replace(own, preprocess=space.preprocess))

    def _space(self, block: Block) -> FeatureSpace:
        from extract import backbone, language

        precision = self._options.precision
        if isinstance(block, TextBlock):
            return language.text_space(self._network, precision=precision)
        return backbone.image_space(self._seeing(len(block.parts)), view_settings(block), precision=precision)

    def _seeing(self, n_stacked: int) -> Any:
        """Return the network for one image, or widened for a stack."""
        n_images = max(1, n_stacked)
        if self.modality == "text" or self._network.in_chans == 3 * n_images:
            return self._network
        if n_images not in self._widened:
            self._widened[n_images] = self._load(in_chans=3 * n_images)
        return self._widened[n_images]

    def _make(self, space: FeatureSpace) -> Encoder:
        from extract import backbone, language

        make: Any = backbone.ImageEncoder if self.modality == "image" else language.TextEncoder
        runtime = Runtime(self._options.device, self._options.engine, self._options.is_compiled)
        made: Encoder = make(self._seeing(len(space.stack)), space, provenance=self._provenance, runtime=runtime)
        return pooled(made)


def is_stack(block: Block) -> bool:
    """Say whether a block's images are stacked of several."""
    return isinstance(block, ImageBlock) and bool(block.parts)


def pooled(encoder: Encoder) -> Encoder:
    """Return an encoder that takes tiles and turns where its space has any."""
    return encoder if is_one_crop(view_settings(encoder.space)) else PooledEncoder(encoder)


def block_of(space: FeatureSpace) -> Block:
    """Return an empty block whose images are seen as in a space."""
    if space.modality == "text":
        return TextBlock("", ())
    settings = view_settings(space) | {"parts": tuple(ImageBlock("", (), **part) for part in space.stack)}
    del settings["stack"]
    return ImageBlock(name="", refs=(), **settings)
