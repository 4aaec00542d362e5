"""The PyTorch engine: on CUDA, and where OpenVINO does not take a model."""

import copy
import ctypes
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock, local
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.engine import MAX_RELATIVE_ERROR, Precision, Vectors, relative_error
from store import first_line

if TYPE_CHECKING:
    import torch

ONE_AT_A_TIME = Lock()  # torch's flags hold for the whole process; and on the CPU two calls halve each other's cores


class TorchEngine:
    """PyTorch: channels-last; on the CPU with batch norm folded into the convolutions."""

    name = "torch"

    def __init__(
        self, module: "torch.nn.Module", example: Sequence[NDArray[Any]], *, device: str, precision: Precision
    ):
        import torch

        self.device = device
        self._precision = precision
        if device == "cpu":
            keep_freed_memory()
            module = fold_batch_norm(module, example)
        module = module.to(device)
        self._module: Callable[..., torch.Tensor] = module.to(memory_format=torch.channels_last)
        self._own = local()

    def __call__(self, *arrays: NDArray[Any]) -> Vectors:
        """Return float32 ``(b, d)``. On CUDA, calls from several threads overlap copies with computing.

        Raises:
            MemoryError: The batch does not fit on the device.
        """
        import torch

        lower = torch.autocast(self.device, dtype=_dtype(self._precision), enabled=self._precision != "float32")
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=self._precision != "float32")
        try:
            with torch.inference_mode(), self._stream():
                inputs = [self._move(torch.from_numpy(array)) for array in arrays]
                with ONE_AT_A_TIME, lower, exact:
                    vectors = self._module(*inputs)
                return np.asarray(vectors.float().cpu().numpy())
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(str(error)) from None

    def compile(self, example: Sequence[NDArray[Any]]) -> str:
        """Let torch compile the network, if that gives the same vectors; return why it stays as it is, or ""."""
        import torch

        plain, want = self._module, self(*example)
        limit = MAX_RELATIVE_ERROR if self._precision == "float32" else 8 * torch.finfo(_dtype(self._precision)).eps
        try:
            self._module = torch.compile(plain)
            error = relative_error(self(*example), want)
            if error <= limit:
                return ""
            reason = f"its vectors differ by {error:.1e}, more than {limit:.1g}"
        except Exception as failure:  # noqa: BLE001 - a compiler raises whatever it meets; none may be installed
            reason = first_line(failure)
        self._module = plain
        return f"torch cannot compile this model, so it runs as it is: {reason}"

    def _move(self, tensor: "torch.Tensor") -> "torch.Tensor":
        return tensor if self.device == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def _stream(self) -> AbstractContextManager[Any]:
        """Each calling thread has its own CUDA stream: one copies while another computes."""
        import torch

        if self.device == "cpu":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)


def _dtype(precision: Precision) -> "torch.dtype":
    import torch

    found: torch.dtype = getattr(torch, precision)
    return found


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: giving activations back to the kernel costs half of the speed.

    For the whole process; where the C library is another one, nothing happens.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def fold_batch_norm(module: "torch.nn.Module", example: Sequence[NDArray[Any]]) -> "torch.nn.Module":
    """Return a copy with each batch norm folded into the convolution right before it.

    One forward pass shows which follows which. A copy that gives other vectors is thrown away.

    Args:
        module: In evaluation mode; not changed.
        example: Inputs of one forward pass.
    """
    import torch

    inputs = [torch.from_numpy(array) for array in example]
    folded = copy.deepcopy(module)
    with torch.inference_mode():
        want = module(*inputs)
    try:
        with torch.no_grad():
            pairs = _conv_norm_pairs(folded, inputs)
            for conv, norm in pairs:
                _fold(folded, conv, norm)
        with torch.inference_mode():
            got = folded(*inputs)
    except (AttributeError, RuntimeError, TypeError):  # the model looks into the norm that is gone
        return module
    return folded if relative_error(got.float().numpy(), want.float().numpy()) <= MAX_RELATIVE_ERROR else module


def _conv_norm_pairs(module: "torch.nn.Module", inputs: "Sequence[torch.Tensor]") -> list[tuple[str, str]]:
    """Names of (convolution, batch norm) where the norm's input is the convolution's very output."""
    import torch

    made: dict[int, tuple[str, torch.Tensor]] = {}  # the tensor is kept so that its id stays its own
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def after_conv(name: str, output: torch.Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        made[id(output)] = (name, output)

    def before_norm(name: str, given: torch.Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        if id(given) in made:
            pairs.append((made[id(given)][0], name))

    hooks: list[Any] = []
    for name, child in module.named_modules():
        if isinstance(child, torch.nn.Conv2d):
            hooks.append(child.register_forward_hook(lambda _m, _a, out, name=name: after_conv(name, out)))
        elif isinstance(child, torch.nn.BatchNorm2d):
            hooks.append(child.register_forward_pre_hook(lambda _m, args, name=name: before_norm(name, args[0])))
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]


def _fold(module: "torch.nn.Module", conv_name: str, norm_name: str) -> None:
    """Fold one norm and leave its activation (timm's norms carry one) in its place."""
    import torch

    conv: Any = module.get_submodule(conv_name)
    norm: Any = module.get_submodule(norm_name)
    fused = torch.nn.utils.fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = fused
    rest = getattr(norm, "act", None) or torch.nn.Identity()
    parent, _, child = norm_name.rpartition(".")
    setattr(module.get_submodule(parent), child, rest)
