"""The runner of a network: picks its engine when the first batch comes."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from extract.engine import Device, Engine, Precision, Vectors, check_agreement
from store import InputError, first_line

if TYPE_CHECKING:
    import torch

Choice = Literal["auto", "openvino", "torch"]
_MAKING = Lock()  # of all runners: torch's tracer is one for the whole process
SMALL_JOB = 256  # items; converting and compiling takes 1 to 4 s and saves 3 to 10 ms each


@dataclass(frozen=True)
class Runtime:
    """Where a network runs, and how.

    Attributes:
        device: ``"auto"`` takes CUDA where there is one.
        engine: For tests and benchmarks.
        is_compiled: Whether the torch engine compiles the network: minutes at first, for long runs on a GPU.
    """

    device: Device = "auto"
    engine: Choice = "auto"
    is_compiled: bool = False


ANY_RUNTIME = Runtime()


def resolve_device(device: Device) -> str:
    """Return ``"cpu"`` or ``"cuda"``.

    Raises:
        InputError: A GPU is asked for, and there is none.
    """
    import torch

    has_gpu = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise InputError("--device cuda: there is no GPU that torch can use here; leave the option out, or give cpu")
    return "cuda" if has_gpu else "cpu"


@dataclass
class Runner:
    """Makes the engine when the first batch comes, so that a run with nothing to embed loads none.

    Attributes:
        module: Takes the arrays of one batch as tensors, gives ``(b, d)``.
        example: A small batch to convert and to check with.
        key: What the converted model depends on; names it in the cache.
        runtime: Which device, and which engine if not OpenVINO on the CPU where that pays, and torch elsewhere.
        expected: How many items will come; None for unknown, taken as many.
        note: Why OpenVINO, or a compiled network, was not used although it was asked for, or "".
    """

    module: "torch.nn.Module"
    example: tuple[NDArray[Any], ...]
    key: str
    runtime: Runtime = ANY_RUNTIME
    precision: Precision = "float32"
    expected: int | None = None
    note: str = ""
    _engine: Engine | None = field(default=None, repr=False)

    @property
    def engine(self) -> Engine:
        """The engine, made on first use."""
        with _MAKING:
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
        """Return ``"cpu"`` or ``"cuda"``; raises as the function of this name."""
        return resolve_device(self.runtime.device)

    def _make(self) -> Engine:
        from extract.openvino_engine import cache_folder
        from extract.torch_engine import TorchEngine

        device = self.resolve_device()
        folder = cache_folder() / hashlib.sha256(self.key.encode()).hexdigest()[:32]
        if device == "cpu" and self._wants_openvino(folder):
            try:
                made = self._openvino(folder)
                self.note = "--compile is for torch, and OpenVINO runs this" if self.runtime.is_compiled else ""
                return made
            except Exception as error:  # noqa: BLE001 - a tracer raises whatever the model's code makes it raise
                self.note = f"OpenVINO does not take this model, so torch runs it: {first_line(error)}"
        engine = TorchEngine(self.module, self.example, device=device, precision=self.precision)
        if self.runtime.is_compiled:
            self.note = "; ".join(filter(None, [self.note, engine.compile(self.example)]))
        return engine

    def _wants_openvino(self, folder: Path) -> bool:
        if self.runtime.engine != "auto":
            return self.runtime.engine == "openvino"
        return self.expected is None or self.expected >= SMALL_JOB or folder.is_dir()

    def _openvino(self, folder: Path) -> Engine:
        from extract.openvino_engine import OpenVinoEngine, convert, read_converted, write_converted
        from extract.torch_engine import ONE_AT_A_TIME

        if cached := read_converted(folder):
            return OpenVinoEngine(cached, precision=self.precision)
        with ONE_AT_A_TIME:  # the tracer also sees what another network computes meanwhile
            model = convert(self.module, self.example)
        engine = OpenVinoEngine(model)
        check_agreement(engine, self.module, self.example)
        write_converted(model, folder)
        return engine if self.precision == "float32" else OpenVinoEngine(model, precision=self.precision)
