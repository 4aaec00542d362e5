"""Decode and resize to 224 px, one image at a time on one thread, beside Pillow, RGB and torchvision.

    python tests/benchmarks/bench_decode.py

One JSON line per kind of file: images/s of both, the ratio, and the time of each of our steps. Outputs are compared
before anything is timed. A and B alternate in order; figures are medians over the rounds, with the spread of the ratio.
Times are those of the processor, so that other work on the machine disturbs them less; files come from a warm cache.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import PIL
import tifffile
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parents[2]))

from extract.convert import FUNCTIONS, to_8bit
from extract.decode import read_image
from extract.resize import resize_rgb

DATA = Path(__file__).parents[3] / "shared" / "data"
PREPROCESS = {
    "input_px": [224, 224], "resize_px": 256, "crop_mode": "center", "interpolation": "bicubic", "mean": [0.5] * 3,
}  # fmt: skip
CONVERT = "percentile_clip"
PLAIN = v2.Compose([v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])


def plain_loop(path: Path) -> NDArray[Any]:
    """What a user would write; 16 bits are scaled by the range, since convert("RGB") would destroy them."""
    image: Image.Image = Image.open(path)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        low, high = np.percentile(values, (0.175, 99.825))
        image = Image.fromarray(np.rint(255 * np.clip((values - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8))
    return np.asarray(PLAIN(image.convert("RGB")))


def ours(path: Path) -> NDArray[Any]:
    """Read, convert, resize."""
    return resize_rgb(to_8bit(read_image(path), CONVERT), PREPROCESS)


def scene(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A colour picture with edges and grain, so that files have a real size."""
    shapes = cv2.resize(rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8), (width, height))
    grain = rng.normal(0, 4, (height, width, 1))
    picture: NDArray[np.uint8] = np.clip(shapes + grain, 0, 255).astype(np.uint8)
    return picture


def write_files(folder: Path, n_files: int) -> dict[str, list[Path]]:
    """Write n files of each kind."""
    rng = np.random.default_rng(0)
    kinds: dict[str, Callable[[Path], object]] = {
        "tiff 8 bit 1024": lambda p: tifffile.imwrite(p, scene(1024, 1024, rng)[..., 0]),
        "tiff 16 bit 1024": lambda p: tifffile.imwrite(p, scene(1024, 1024, rng)[..., 0].astype(np.uint16) * 16 + 7),
        "tiff rgb 1024": lambda p: tifffile.imwrite(p, scene(1024, 1024, rng), photometric="rgb"),
        "png 512": lambda p: Image.fromarray(scene(512, 512, rng)).save(p, "PNG"),
        "jpeg 512x384": lambda p: Image.fromarray(scene(384, 512, rng)).save(p, "JPEG", quality=90),
    }
    files = {}
    for kind, write in kinds.items():
        files[kind] = [folder / f"{kind} {k}" for k in range(n_files)]
        for path in files[kind]:
            write(path)
    return files


def real_files(n_files: int) -> dict[str, list[Path]]:
    """Return n real files of each kind, where they are present."""
    found = {
        "real png (emps)": sorted(DATA.glob("emps/images/*.png")),
        "real tiff 16 bit 40 px (ifc_cellcycle)": sorted(DATA.glob("ifc_cellcycle/BF/*.tif")),
        "real jpeg 341x256 (trashnet)": sorted(DATA.glob("trashnet/images/*/*.jpg")),
    }
    return {kind: paths[:: len(paths) // n_files][:n_files] for kind, paths in found.items() if len(paths) >= n_files}


def seconds(function: Callable[[Path], object], paths: list[Path]) -> float:
    """Return the seconds of one pass."""
    start = time.process_time()
    for path in paths:
        function(path)
    return time.process_time() - start


def compare(paths: list[Path], rounds: int) -> dict[str, Any]:
    """Time the plain loop and ours in alternating order."""
    worst = max(int(np.abs(ours(path).astype(int) - plain_loop(path)).max()) for path in paths)
    if worst > 2:
        raise SystemExit(f"outputs differ by {worst} levels: {paths[0]}")
    pairs = []
    for k in range(rounds):
        order = (plain_loop, ours) if k % 2 else (ours, plain_loop)
        taken = {function: seconds(function, paths) for function in order}
        pairs.append((taken[plain_loop], taken[ours]))
    ratios = sorted(plain / own for plain, own in pairs)
    plain, own = np.median(np.array(pairs), axis=0)
    return {
        "plain_per_second": round(len(paths) / plain),
        "ours_per_second": round(len(paths) / own),
        "ratio": round(float(np.median(ratios)), 2),
        "ratio_low": round(ratios[0], 2),
        "ratio_high": round(ratios[-1], 2),
        "worst_difference_levels": worst,
    }


def steps(paths: list[Path], rounds: int) -> dict[str, float]:
    """Return our own milliseconds per image, per step."""
    images = {path: read_image(path) for path in paths}
    converted = {path: to_8bit(image, CONVERT) for path, image in images.items()}
    parts: dict[str, Callable[[Path], object]] = {
        "decode_ms": read_image,
        "convert_ms": lambda path: to_8bit(images[path], CONVERT),
        "resize_ms": lambda path: resize_rgb(converted[path], PREPROCESS),
    }
    return {
        name: round(float(np.median([seconds(part, paths) for _ in range(rounds)])) / len(paths) * 1e3, 3)
        for name, part in parts.items()
    }


def conversions(rounds: int) -> dict[str, float]:
    """Return milliseconds per conversion of one 16-bit image of 1024 px."""
    image = scene(1024, 1024, np.random.default_rng(0))[..., 0].astype(np.uint16) * 16 + 7
    found = {}
    for name in FUNCTIONS:
        if name != "none":
            to_8bit(image, name)
            starts = [(time.process_time(), to_8bit(image, name), time.process_time()) for _ in range(rounds)]
            found[name] = round(float(np.median([end - start for start, _, end in starts])) * 1e3, 2)
    return found


def report(result: dict[str, Any]) -> None:
    """Print a result as one JSON line."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print one JSON line per kind of file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    about = {
        "cores": os.cpu_count(), "threads": 1, "machine": platform.machine(), "pillow": PIL.__version__,
        "torch": torch.__version__, "torchvision": torchvision.__version__, "imagecodecs": imagecodecs.__version__,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), options.files) | real_files(options.files)
        for kind, paths in files.items():
            report({"kind": kind, **compare(paths, options.rounds), **steps(paths, 5), **about})
    report({"kind": "conversions of uint16 1024 px, ms", **conversions(options.rounds), **about})


if __name__ == "__main__":
    main()
