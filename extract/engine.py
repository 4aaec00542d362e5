"""Engines: what runs a network forward. They change how fast a vector comes, never which vector."""

import copy
import ctypes
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, local
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16", "float16"]
Choice = Literal["auto", "openvino", "torch"]
Vectors = NDArray[np.float32]

SMALL_JOB = 256  # items; converting and compiling takes 1 to 4 s and saves 3 to 10 ms each
PART = 4  # rows one stream takes at a time; a larger part falls out of the cache and is slower
MAX_RELATIVE_ERROR = 1e-4  # of the whole vector, against eager float32
ONE_AT_A_TIME = Lock()  # torch's flags hold for the whole process; and on the CPU two calls halve each other's cores
OPENVINO_PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class Engine(Protocol):
    """Runs one batch. `name` and `device` are for people; neither is part of a feature space."""

    name: str
    device: str

    def __call__(self, *arrays: NDArray[Any]) -> Vectors:
        """Return float32 ``(b, d)`` for inputs that all have b rows."""


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
        self._module = module.to(memory_format=torch.channels_last)
        self._own = local()

    def __call__(self, *arrays: NDArray[Any]) -> Vectors:
        """Return float32 ``(b, d)``. On CUDA, calls from several threads overlap copies with computing.

        Raises:
            MemoryError: The batch does not fit on the device.
        """
        import torch

        dtype = getattr(torch, self._precision)
        lower = torch.autocast(self.device, dtype=dtype, enabled=self._precision != "float32")
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


class OpenVinoEngine:
    """OpenVINO on the CPU, one request at a time, arithmetic forced to the precision asked for."""

    name = "openvino"
    device = "cpu"

    def __init__(self, model: Any, *, precision: Precision = "float32"):
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": OPENVINO_PRECISION[precision],
            "PERFORMANCE_HINT": "LATENCY",  # two requests at once stood still with convnext_tiny
            "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
            "ENABLE_CPU_PINNING": False,  # decoders, and other users, share the cores
        }
        self._is_fixed = model.inputs[0].partial_shape.rank.get_length() > 2
        if self._is_fixed:  # images: a network of one shape is 5 to 10 % faster
            model.reshape({port: [PART, *port.partial_shape[1:]] for port in model.inputs})
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        n_streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(n_streams):
            self._requests.put(compiled.create_infer_request())
        self._streams = ThreadPoolExecutor(n_streams)

    def __call__(self, *arrays: NDArray[Any]) -> Vectors:
        """Return float32 ``(b, d)``; parts of the batch run side by side, and so may calls from several threads."""
        starts = range(0, len(arrays[0]), PART)
        parts = self._streams.map(self._infer, [[array[start : start + PART] for array in arrays] for start in starts])
        return np.concatenate(list(parts))

    def _infer(self, part: list[NDArray[Any]]) -> Vectors:
        n_rows = len(part[0])
        if self._is_fixed and n_rows < PART:
            part = [np.resize(array, (PART, *array.shape[1:])) for array in part]
        request = self._requests.get()
        try:
            request.start_async(
                part, share_inputs=True
            )  # infer() in two threads at once stood still with convnext_tiny
            request.wait()
            vectors: Vectors = request.get_output_tensor(0).data[:n_rows].astype(np.float32)
            return vectors
        finally:
            self._requests.put(request)


@dataclass
class Runner:
    """Makes the engine when the first batch comes, so that a run with nothing to embed loads none.

    Attributes:
        module: Takes the arrays of one batch as tensors, gives ``(b, d)``.
        example: A small batch to convert and to check with.
        key: What the converted model depends on; names it in the cache.
        device: ``"auto"`` takes CUDA where there is one.
        choice: ``"auto"`` takes OpenVINO on the CPU where that pays.
        expected: How many items will come; None for unknown, taken as many.
        note: Why OpenVINO was not used although it was asked for, or "".
    """

    module: "torch.nn.Module"
    example: tuple[NDArray[Any], ...]
    key: str
    device: Device = "auto"
    precision: Precision = "float32"
    choice: Choice = "auto"
    expected: int | None = None
    note: str = ""
    _engine: Engine | None = field(default=None, repr=False)
    _making: Any = field(default_factory=Lock, repr=False)

    @property
    def engine(self) -> Engine:
        """The engine, made on first use."""
        with self._making:
            if self._engine is None:
                self._engine = self._make()
            return self._engine

    def __call__(self, *arrays: NDArray[Any]) -> Vectors:
        """Return float32 ``(b, d)``."""
        return self.engine(*arrays)

    def describe(self) -> tuple[str, str]:
        """Return device and engine; the engine is ``"none"`` if none was needed."""
        return (self.resolve_device(), "none") if self._engine is None else (self._engine.device, self._engine.name)

    def resolve_device(self) -> str:
        """Return ``"cpu"`` or ``"cuda"``."""
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device

    def _make(self) -> Engine:
        device = self.resolve_device()
        folder = cache_folder() / hashlib.sha256(self.key.encode()).hexdigest()[:32]
        if device == "cpu" and self._wants_openvino(folder):
            try:
                return self._openvino(folder)
            except Exception as error:  # noqa: BLE001 - a tracer raises whatever the model's code makes it raise
                self.note = f"OpenVINO does not take this model, so torch runs it: {_one_line(error)}"
        return TorchEngine(self.module, self.example, device=device, precision=self.precision)

    def _wants_openvino(self, folder: Path) -> bool:
        if self.choice != "auto":
            return self.choice == "openvino"
        return self.expected is None or self.expected >= SMALL_JOB or folder.is_dir()

    def _openvino(self, folder: Path) -> Engine:
        if cached := read_converted(folder):
            return OpenVinoEngine(cached, precision=self.precision)
        model = convert(self.module, self.example)
        engine = OpenVinoEngine(model)
        check_agreement(engine, self.module, self.example)
        write_converted(model, folder)
        return engine if self.precision == "float32" else OpenVinoEngine(model, precision=self.precision)


def convert(module: "torch.nn.Module", example: Sequence[NDArray[Any]]) -> Any:
    """Return an OpenVINO model of `module` for any number of rows (and, for text, of tokens).

    The frontend is called directly: ``openvino.convert_model`` reports every conversion to its maker.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    inputs = tuple(torch.from_numpy(array) for array in example)
    with warnings.catch_warnings():  # torch 2.15 calls tracing deprecated; tracers warn of every shape check
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(module, example_input=inputs)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape({port: _shape(array) for port, array in zip(model.inputs, example, strict=True)})
    return model


def _shape(array: NDArray[Any]) -> Any:
    """Rows are free; so are tokens; an image's height, width and channels are not."""
    import openvino

    return openvino.PartialShape([-1, -1] if array.ndim == 2 else [-1, *array.shape[1:]])


def check_agreement(engine: Engine, module: "torch.nn.Module", example: Sequence[NDArray[Any]]) -> None:
    """Raise ValueError unless `engine` gives what `module` gives, within `MAX_RELATIVE_ERROR`."""
    import torch

    with torch.inference_mode():
        want = module(*(torch.from_numpy(array) for array in example)).float().numpy()
    error = relative_error(engine(*example), want)
    if not error <= MAX_RELATIVE_ERROR:
        raise ValueError(f"its vectors differ from eager float32 by {error:.1e}, more than {MAX_RELATIVE_ERROR:g}")


def relative_error(got: Vectors, want: Vectors) -> float:
    """Return the largest over rows of |got - want| / |want|, Euclidean norms."""
    size = np.linalg.norm(want, axis=1)
    return float(np.max(np.linalg.norm(got - want, axis=1) / np.where(size > 0, size, 1)))


def cache_folder() -> Path:
    """Return the user's cache folder for converted models (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embedonce" / "openvino"


def read_converted(folder: Path) -> Any | None:
    """Return the converted model in `folder`, or None if there is none or its bytes are not what was written."""
    import openvino

    try:
        if (folder / "sha256").read_text() != _digest(folder):
            return None
    except OSError:
        return None
    return openvino.Core().read_model(folder / "model.xml")


def write_converted(model: Any, folder: Path) -> None:
    """Keep a converted model for later runs; without a place to write, later runs convert again."""
    import openvino

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as name:
            part = Path(name) / "part"
            part.mkdir()
            openvino.save_model(model, part / "model.xml", compress_to_fp16=False)
            (part / "sha256").write_text(_digest(part))
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
    except (OSError, RuntimeError):  # read-only or full; or another process was quicker
        return


def _digest(folder: Path) -> str:
    files = [(folder / name).read_bytes() for name in ("model.xml", "model.bin")]
    return hashlib.sha256(b"".join(files)).hexdigest()


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


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
