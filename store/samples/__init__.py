"""Built-in samples: synthetic datasets from physical models, whose planted structure is known and documented."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from store.errors import InputError, did_you_mean
from store.progress import Progress
from store.samples import cells, garbage, powder, reflectance, tem
from store.samples.files import write_text

__all__ = ["SAMPLES", "Sample", "write_sample"]


class Sample(NamedTuple):
    """One built-in sample.

    Attributes:
        n_rows: How many rows by default.
        min_rows: With fewer a class folder, a class or one of five groups is not there, and nothing can be fitted.
        summary: What it is, in a line.
        spec: Its ``dataset.toml``; ``{command}`` stands for what it was written by.
        write: Writes everything else: ``write(folder, n_rows=, seed=, progress=)``.
    """

    n_rows: int
    min_rows: int
    summary: str
    spec: str
    write: Callable[..., None]


SAMPLES: Mapping[str, Sample] = {
    "tem": Sample(tem.N_ROWS, 30, tem.SUMMARY, tem.DATASET_TOML, tem.write_tem),
    "cells": Sample(cells.N_ROWS, 5, cells.SUMMARY, cells.DATASET_TOML, cells.write_cells),
    "powder": Sample(powder.N_ROWS, 20, powder.SUMMARY, powder.DATASET_TOML, powder.write_powder),
    "reflectance": Sample(
        reflectance.N_ROWS, 5, reflectance.SUMMARY, reflectance.DATASET_TOML, reflectance.write_reflectance
    ),
    "garbage": Sample(garbage.N_ROWS, 15, garbage.SUMMARY, garbage.DATASET_TOML, garbage.write_garbage),
}


def write_sample(
    name: str,
    folder: Path,
    *,
    n_rows: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write a built-in sample, or leave it alone where it is complete already; an interrupted one goes on.

    Args:
        name: One of SAMPLES.
        folder: Made if absent. Otherwise empty, or with the same sample in it.
        n_rows: How many rows; the sample's own number by default. Row i is the same whatever their number.
        seed: Another seed gives other images.
        progress: Called with (files done, files in all).

    Returns:
        The path of its ``dataset.toml``.

    Raises:
        InputError: Unknown name, too few rows, or a folder that holds something else or cannot be written.
    """
    if name not in SAMPLES:
        raise InputError(f"unknown sample {name!r}.{did_you_mean(name, SAMPLES)} Choose from: {', '.join(SAMPLES)}.")
    sample = SAMPLES[name]
    n_rows = sample.n_rows if n_rows is None else n_rows
    if n_rows < sample.min_rows:
        raise InputError(f"the sample {name!r} needs at least {sample.min_rows} rows (got {n_rows}); give more --rows.")
    if seed < 0:
        raise InputError(f"seed {seed} is negative: expected 0 or more. Give another seed.")
    command = f"embedonce sample {name} --rows {n_rows} --seed {seed}"
    spec, unfinished = folder / "dataset.toml", folder / "dataset.unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_complete(name, folder, command):
            write_text(unfinished, sample.spec.replace("{command}", command))
            sample.write(folder, n_rows=n_rows, seed=seed, progress=progress)
            unfinished.replace(spec)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"cannot write the sample {name!r} to {folder}: {reason}. Choose another folder.") from error
    return spec


def _is_complete(name: str, folder: Path, command: str) -> bool:
    """Whether the folder holds this very sample, whole; InputError where it holds anything else."""
    if not any(folder.iterdir()):
        return False
    spec = next((path for ending in ("toml", "unfinished") if (path := folder / f"dataset.{ending}").is_file()), None)
    text = spec.read_text(encoding="utf-8", errors="replace") if spec else ""
    if _sample_name(text) != name:
        raise InputError(f"{folder} is not empty and holds no {name!r} sample. Choose an empty or a new folder.")
    made_by = [line.removeprefix("# Written by: ") for line in text.splitlines() if line.startswith("# Written by: ")]
    if made_by and made_by != [command]:
        raise InputError(f"{folder} holds the sample of '{made_by[0]}', not of '{command}'. Choose a new folder.")
    return spec is not None and spec.suffix == ".toml"


def _sample_name(text: str) -> object:
    try:
        return tomllib.loads(text).get("sample")
    except tomllib.TOMLDecodeError:
        return None
