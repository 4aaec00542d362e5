"""The OpenVINO engine, and the cache of models converted for it."""

import hashlib
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.engine import Precision, Vectors
from store import usable_cores

if TYPE_CHECKING:
    import torch

PART = 4  # rows one stream takes at a time; a larger part falls out of the cache and is slower
_FIRST_CALLS = threading.Lock()
OPENVINO_PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVinoEngine:
    """OpenVINO on the CPU: as many requests at once as suit the cores, arithmetic forced to the precision asked for."""

    name = "openvino"
    device = "cpu"

    def __init__(self, model: Any, *, precision: Precision = "float32"):
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": OPENVINO_PRECISION[precision],
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": len(usable_cores()),
            "ENABLE_CPU_PINNING": False,  # decoders, and other users, share the cores
        }
        _make_first_calls()
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
            request.infer(part, share_inputs=True)
            vectors: Vectors = request.get_output_tensor(0).data[:n_rows].astype(np.float32)
            return vectors
        finally:
            self._requests.put(request)


def _make_first_calls() -> None:
    """Fill OpenVINO's tables of types, by one thread at a time: several at once wait for each other for ever."""
    import openvino

    with _FIRST_CALLS:
        openvino.Type.f32.to_dtype()  # one table from types,
        openvino.Tensor(np.zeros(1, np.float32))  # one from arrays


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
