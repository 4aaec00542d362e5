"""Heat maps of one output of a model over one of its pictures, by captum."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.explain.models import Explained, Inputs

N_STEPS = 32  # of the path from grey to the picture; captum's own default is 50
STEPS_AT_ONCE = 8
GREY = 127.5
LEAST_PX = 4  # of a feature map: with fewer places it says only in which quarter something is
NORMS_BEFORE_ATTENTION = ("norm1", "ln_1")  # timm's transformers, torchvision's
MAX_PREFIX = 5  # class and register tokens: DINOv2 has one and four (arXiv 2309.16588)

Heat = NDArray[np.float32]


def grad_cam(model: Explained, inputs: Inputs, name: str, task: str, output: int) -> Heat | None:
    """Return where the last feature map speaks for an output (Selvaraju et al. 2017, arXiv 1610.02391).

    Args:
        model: The bundle.
        inputs: Of one row.
        name: Which picture.
        task: Whose output.
        output: Class or output number.

    Returns:
        float32 ``(h, w)``, 0 and above, as large as the picture; None for a network without a map of places.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    module = feature_map(model.encoders[name], lambda: model.outputs(inputs))
    if module is None:
        return None
    pixels = _float(inputs[name])
    with as_map(module) as layer:
        found = LayerGradCam(_output(model, inputs, name, task), layer).attribute(
            pixels, target=output, relu_attributions=True
        )
    size = (pixels.shape[1], pixels.shape[2])
    return _array(LayerAttribution.interpolate(found, size, interpolate_mode="bilinear")[0, 0])


def integrated_gradients(model: Explained, inputs: Inputs, name: str, task: str, output: int) -> Heat:
    """Return how much each pixel adds to an output on the way from grey (Sundararajan et al. 2017, arXiv 1703.01365).

    Args as `grad_cam`.

    Returns:
        float32 ``(h, w)``: summed over the channels; above 0 speaks for the output. The sum over all pixels is the
        output minus that of a grey picture, up to the 32 steps' error.
    """
    from captum.attr import IntegratedGradients

    pixels = _float(inputs[name])
    found = IntegratedGradients(_output(model, inputs, name, task)).attribute(
        pixels,
        baselines=torch.full_like(pixels, GREY),
        target=output,
        n_steps=N_STEPS,
        internal_batch_size=STEPS_AT_ONCE,
    )
    return _array(found[0].sum(dim=2))


def feature_map(encoder: nn.Module, run: Callable[[], Any]) -> nn.Module | None:
    """Return the last module of a network whose output has LEAST_PX x LEAST_PX places, or the most; None without.

    A small input has only a few places in the last layers, which show nothing. Of a transformer that is the norm before
    its last attention: what follows may never reach the class token.

    Args:
        encoder: A network of images.
        run: Runs it once.
    """
    inner = [(name, module) for name, module in encoder.named_modules() if module is not encoder]
    is_transformer = any("attention" in type(module).__name__.lower() for _, module in inner)
    asked = [m for name, m in inner if not is_transformer or name.rpartition(".")[2] in NORMS_BEFORE_ATTENTION]
    found: list[tuple[int, nn.Module]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and (size := places(module, output)) is not None:
            found.append((min(*size, LEAST_PX), module))

    hooks = [module.register_forward_hook(note) for module in asked]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    largest = max((size for size, _ in found), default=0)
    return [module for size, module in found if size == largest][-1] if found else None


def places(module: nn.Module, output: Tensor) -> tuple[int, int] | None:
    """Return the height and width of the map in a module's output; None without one of more than one place.

    Maps are ``(b, c, h, w)``; of a LayerNorm ``(b, h, w, c)``, or ``(b, t, c)``, a square after up to `MAX_PREFIX`
    tokens of no place.
    """
    if output.ndim == 4:
        height, width = output.shape[1:3] if _has_channels_last(module) else output.shape[2:]
    elif output.ndim == 3 and _has_channels_last(module):
        height = width = math.isqrt(output.shape[1])
        if output.shape[1] - height * width > MAX_PREFIX:
            return None
    else:
        return None
    return (int(height), int(width)) if min(height, width) > 1 else None


def _has_channels_last(module: nn.Module) -> bool:
    """Whether it is a LayerNorm of tokens: timm's LayerNorm2d is one too, and has its channels second."""
    return isinstance(module, nn.LayerNorm) and "2d" not in type(module).__name__.lower()


@contextmanager
def as_map(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a layer that the places in a module's output go through as a map ``(b, c, h, w)``."""
    layer = nn.Identity()

    def through(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        height, width = places(module, output) or (0, 0)
        if output.ndim == 3:
            n_prefix = output.shape[1] - height * width
            tokens = output[:, n_prefix:].reshape(len(output), height, width, -1)
            seen = layer(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
            return torch.cat([output[:, :n_prefix], seen], dim=1)
        if _has_channels_last(module):
            return layer(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]
        return layer(output)  # type: ignore[no-any-return]

    hook = module.register_forward_hook(through)
    try:
        yield layer
    finally:
        hook.remove()


def _output(model: Explained, inputs: Inputs, name: str, task: str) -> Callable[[Tensor], Tensor]:
    """Return a task's outputs as a function of one picture, all other inputs as they are."""

    def run(pixels: Tensor) -> Tensor:
        others = {key: _repeated(value, len(pixels)) for key, value in inputs.items() if key != name}
        return model.outputs({**others, name: pixels})[task]

    return run


def _repeated(value: Any, b: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_repeated(one, b) for one in value)
    return value.expand(b, *value.shape[1:])


def _float(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32).requires_grad_()


def _array(heat: Tensor) -> Heat:
    return np.asarray(heat.detach().numpy(), np.float32)
