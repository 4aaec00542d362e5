"""A fine-tuned model as one ONNX file, for programs that have neither Python nor torch.

Inputs, any number of rows: each image branch under its name, uint8 ``(b, h, w, 3 p)``, resized as ``preprocess`` in
``bundle.json`` says; a text branch's tokens as ``NAME_ids`` and ``NAME_mask``, int64 ``(b, t)``; ``metadata``, float32
``(b, m)``, NaN where missing. Outputs, by task: calibrated probabilities ``(b, c)``, or outputs ``(b, t)`` in units.
"""

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.blueprint import BranchPlan
from finetune.branches import Input
from finetune.bundle import ONNX, FinetunedBundle, load_bundle
from store import InputError, one_line

MAX_ERROR = 1e-4  # of probabilities, and of outputs relative to their size
MAX_ONE_FILE_BYTES = 2**31 - 2**24  # protobuf's limit, less what is not weights
N_TOKENS = 7


class _Deployed(nn.Module):
    """The network with flat inputs and calibrated outputs."""

    def __init__(self, bundle: FinetunedBundle) -> None:
        super().__init__()
        self.network = bundle.network
        self.plans = bundle.network.blueprint.branches
        self.temperatures = {name: m.fitted.calibration.temperature for name, m in bundle.layers.models.items()}

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        left = iter(arrays)
        inputs: dict[str, Input] = {
            plan.name: (next(left), next(left)) if plan.kind == "text" else next(left) for plan in self.plans
        }
        found = self.network(inputs)
        return tuple(
            (found[task.name] / self.temperatures[task.name]).softmax(dim=1)
            if task.kind == "classification"
            else found[task.name]
            for task in self.network.blueprint.tasks
        )


def export_onnx(folder: Path) -> dict[str, Any]:
    """Write ``model.onnx`` beside a bundle, read it with another library, and compare.

    Returns:
        ``file``, and ``error``: the largest difference from torch, of probabilities, or of outputs relative to their
        size, on rows that the export has not seen.

    Raises:
        InputError: The network cannot be exported, or what was exported gives other numbers; the bundle stays.
    """
    bundle = load_bundle(folder)
    network, path = _Deployed(bundle).eval(), folder / ONNX
    try:
        _export(network, path)
        error = _largest_error(network, path)
    except Exception as problem:
        path.unlink(missing_ok=True)
        raise InputError(
            f"{folder}: this network cannot be exported to ONNX: {one_line(problem)}. The bundle is kept"
        ) from problem
    if not error <= MAX_ERROR:
        path.unlink(missing_ok=True)
        raise InputError(f"{path}: its numbers differ from the network's by {error:.1e}, so it is not kept")
    return {"file": str(path), "error": error}


def _export(network: _Deployed, path: Path) -> None:
    names = [name for plan in network.plans for name in _names(plan)]
    axes = [axis for plan in network.plans for axis in _axes(plan)]
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter talks of its progress
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(_example(network, n_rows=2, seed=0)),
            str(path),
            dynamo=True,
            input_names=names,
            output_names=[task.name for task in network.network.blueprint.tasks],
            dynamic_shapes=(tuple(axes),),
            external_data=n_bytes > MAX_ONE_FILE_BYTES,
            verbose=False,
        )


def _names(plan: BranchPlan) -> list[str]:
    return [f"{plan.name}_ids", f"{plan.name}_mask"] if plan.kind == "text" else [plan.name]


def _axes(plan: BranchPlan) -> list[Mapping[int, Any]]:
    """Return which axes of a branch's inputs may have any length: rows, and of texts the tokens."""
    free = torch.export.Dim.DYNAMIC
    return [{0: free, 1: free}] * 2 if plan.kind == "text" else [{0: free}]


def _example(network: _Deployed, *, n_rows: int, seed: int) -> list[Tensor]:
    """Return inputs of random rows, some tokens and numbers of them missing."""
    generator = torch.Generator().manual_seed(seed)
    made: list[Tensor] = []
    for plan in network.plans:
        if plan.kind == "image":
            shape = (n_rows, *(plan.preprocess or {})["input_px"], plan.in_chans)
            made.append(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))
        elif plan.kind == "text":
            n_tokens = N_TOKENS + n_rows
            n_known = int((plan.config or {})["vocab_size"])
            mask = torch.ones(n_rows, n_tokens, dtype=torch.int64)
            mask[0, N_TOKENS // 2 :] = 0
            made += [torch.randint(0, n_known, mask.shape, generator=generator), mask]
        else:
            values = torch.randn(n_rows, plan.dim, generator=generator)
            values[0, 0] = torch.nan
            made.append(values)
    return made


def _largest_error(network: _Deployed, path: Path) -> float:
    import openvino

    core = openvino.Core()
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    example = _example(network, n_rows=3, seed=1)
    with torch.inference_mode():
        want = [tensor.numpy() for tensor in network(*example)]
    got: Sequence[Any] = list(model([tensor.numpy() for tensor in example]).values())
    return max(float((np.abs(g - w) / np.maximum(1, np.abs(w))).max()) for g, w in zip(got, want, strict=True))
