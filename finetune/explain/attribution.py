"""Heat maps of one output of a model over one of its pictures, by captum."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.explain.models import Explained, Inputs

N_STEPS = 32  # of the path from grey to the picture; captum's own default is 50
STEPS_AT_ONCE = 8
GREY = 127.5

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
        float32 ``(h, w)``, 0 and above, as large as the picture; None for a network without a feature map.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    layer = feature_map(model.encoders[name], lambda: model.outputs(inputs))
    if layer is None:
        return None
    pixels = _float(inputs[name])
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
    """Return the last module of a network that gives a map ``(b, c, h, w)`` of more than one place; None without."""
    found: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            found.append(module)

    inner = [module for module in encoder.modules() if module is not encoder]
    hooks = [module.register_forward_hook(note) for module in inner]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    is_transformer = any("attention" in type(module).__name__.lower() for module in inner)
    return None if is_transformer or not found else found[-1]


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
