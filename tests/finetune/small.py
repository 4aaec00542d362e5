"""What the tests of inputs share: a network that is nothing but its blueprint, and a dataset of a few images."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from store import Dataset, load_dataset

PREPROCESS = {
    "input_px": [32, 32],
    "resize_px": 36,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "pixel_code": 1,
}
AS_IT_IS = {**PREPROCESS, "resize_px": 32}
"""Of images of 32 x 32 px: they are not resized at all."""
N_ROWS = 12


def image_branch(name: str, *blocks: str, preprocess: dict[str, Any] = PREPROCESS) -> Any:
    return SimpleNamespace(name=name, kind="image", blocks=blocks or (name,), preprocess=preprocess)


def text_branch(name: str, max_tokens: int = 64) -> Any:
    return SimpleNamespace(name=name, kind="text", blocks=(name,), preprocess={"max_tokens": max_tokens})


@cache
def tokenizer() -> Any:
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "note", *map(str, range(10))]
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})


def network(*branches: Any, tasks: tuple[str, ...] = ("kind",), columns: tuple[str, ...] = (), **modules: Any) -> Any:
    """A stand-in: its blueprint, a tokenizer by branch, and `norms`, the modules to look for batch norm in."""
    tasks_of = tuple(SimpleNamespace(name=name) for name in tasks)
    blueprint = SimpleNamespace(branches=branches, tasks=tasks_of, columns=columns)
    found = list(modules.pop("norms", []))
    of_branches = {name: SimpleNamespace(tokenizer=one) for name, one in modules.items()}
    return SimpleNamespace(blueprint=blueprint, branches=of_branches, modules=lambda: found)


def make_dataset(folder: Path, blocks: str, *, size: tuple[int, int] = (40, 50), depth: str = "uint8") -> Dataset:
    """Twelve images and their table: `kind` is a or b (rare) or missing, `size` two numbers, `flow` where kind is a."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["id,file,kind,long,wide,flow,magnification,notes,count"]
    for i in range(N_ROWS):
        name = f"{i}.png" if depth == "uint8" else f"{i}.tif"
        if depth == "uint8":
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / "images" / name)
        else:
            tifffile.imwrite(folder / "images" / name, rng.gamma(2, 400, size).astype(depth))
        kind = "" if i == 0 else "b" if i % 4 == 1 else "a"
        lines.append(
            f"r{i},{name},{kind},{i}.5,{'' if i == 2 else i / 2},{i}.25,{'' if i == 3 else i + 1},note {i},{i + 1}"
        )
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "dataset.toml").write_text(
        'name = "x"\ntable = "labels.csv"\nroot = "images"\nid = "id"\nweight = "count"\n' + blocks + _TASKS
    )
    return load_dataset(folder / "dataset.toml")


_TASKS = """
[tasks.kind]
column = "kind"
[tasks.size]
columns = ["long", "wide"]
[tasks.flow]
column = "flow"
kind = "regression"
when = "kind == 'a'"
"""
