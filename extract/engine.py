"""Engines: what runs a network forward. They change how fast a vector comes, never which vector."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16", "float16"]
Vectors = NDArray[np.float32]

MAX_RELATIVE_ERROR = 1e-4  # of the whole vector, against eager float32


class Engine(Protocol):
    """Runs one batch. `name` and `device` are for people; neither is part of a feature space."""

    name: str
    device: str

    def __call__(self, *arrays: NDArray[Any]) -> Vectors:
        """Return float32 ``(b, d)`` for inputs that all have b rows."""


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
