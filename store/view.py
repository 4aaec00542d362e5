"""Views: what of an image's pixels an encoder sees, by the words that a spec and the command line use."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.errors import InputError, did_you_mean

VIEW_FIELDS = ("convert", "crop_bottom_px", "view", "tiles", "tile_px", "pool", "turns", "stack")
"""What an image block and a feature space have in common; a space holds a block's vectors exactly if all are equal."""

PART_FIELDS = ("convert", "crop_bottom_px", "view")
"""What a stack keeps of each of its parts."""

MAX_TILES = 1024

USUAL_CONVERSION = "percentile_stretch"

PLAINLY: dict[str, Any] = {
    "convert": USUAL_CONVERSION,
    "crop_bottom_px": 0,
    "view": "plain",
    "tiles": None,
    "tile_px": None,
    "pool": "mean",
    "turns": "none",
    "stack": [],
}
"""How an image is seen where a spec says nothing; names leave it out."""
_PREFIXES = {"crop_bottom_px": "crop-", "tile_px": "tile-", "pool": "pool-", "turns": "turns-"}


@dataclass(frozen=True)
class Perturbation:
    """A registered disturbance of an image's 8-bit pixels, written ``name:strength``.

    Attributes:
        low, high: The least and the greatest strength.
        neutral: The strength that changes nothing; None where every strength does.
        meaning: What the strength is.
        axis: The same in a few words, below a chart.
        grid: What `robustness` tries, mild to severe.
    """

    low: float
    high: float
    neutral: float | None
    meaning: str
    axis: str
    grid: tuple[float, ...]


PERTURBATIONS: dict[str, Perturbation] = {
    "gaussian_noise": Perturbation(
        0, 1, 0, "standard deviation, as a part of full scale", "deviation / full scale", (0.02, 0.05, 0.1, 0.2)
    ),
    "poisson_noise": Perturbation(
        0,
        1,
        0,
        "relative noise of a white pixel: white is 1 / strength² electrons",
        "noise of a white pixel",
        (0.05, 0.1, 0.2, 0.4),
    ),
    "blur": Perturbation(
        0, 100, 0, "standard deviation of a Gaussian, in px of the file", "deviation in px", (0.5, 1, 2, 4)
    ),
    "gamma": Perturbation(
        0.1, 10, 1, "exponent: below 1 brighter, above 1 darker", "exponent (above 1: darker)", (0.5, 0.7, 1.4, 2)
    ),
    "jpeg": Perturbation(1, 100, None, "quality, as libjpeg counts", "quality (100: best)", (90, 50, 20, 10)),
    "png": Perturbation(1, 8, 8, "bits per channel that are kept; PNG itself loses nothing", "bits kept", (8,)),
}
_WHOLE = ("jpeg", "png")

CONVERSIONS: dict[str, str] = {
    "none": "refuses more than 8 bits",
    "fixed": "full scale",
    "linear": "minimum to maximum",
    "percentile_stretch": "2nd to 98th percentile",
    "percentile_clip": "0.175th to 99.825th percentile",
    "gamma": "full scale, then gamma 2.2",
    "log": "logarithm, from 0 to the maximum",
    "sqrt": "square root, from 0 to the maximum",
    "imagej": "ImageJ's Auto",
    "linear+gamma": "minimum to maximum, then gamma 2.2",
    "linear+clahe": "minimum to maximum, then CLAHE",
    "percentile_clip+gamma": "0.175th to 99.825th percentile, then gamma 2.2",
    "percentile_clip+gamma+clahe": "0.175th to 99.825th percentile, then gamma 2.2 and CLAHE",
}
"""How more than 8 bits become 8; the formulas are in docs/pixels.md."""


def parse_view(view: str) -> tuple[str, float]:
    """Return kind and strength of a checked view: ``("gaussian_noise", 0.1)``; 0 for one without a strength."""
    kind, _, strength = view.partition(":")
    return kind, float(strength or 0)


def check_convert(name: str) -> str:
    """Return a conversion's name.

    Raises:
        ValueError: There is no such conversion.
    """
    if name not in CONVERSIONS:
        raise ValueError(
            f"convert {name!r} is not one of {', '.join(CONVERSIONS)}.{did_you_mean(name, list(CONVERSIONS))}"
        )
    return name


def perturbation_views(words: Sequence[str]) -> list[str]:
    """Return the views of perturbations, each once.

    Args:
        words: Perturbations, each for its whole grid, or views such as ``blur:2``; every perturbation by default.

    Raises:
        InputError: A word is neither.
    """
    found: list[str] = []
    for word in words or PERTURBATIONS:
        kind = word.partition(":")[0]
        if kind not in PERTURBATIONS:
            hint = did_you_mean(kind, list(PERTURBATIONS))
            raise InputError(f"{word!r} is no perturbation.{hint} Expected one of {', '.join(PERTURBATIONS)}")
        try:
            found += [check_view(word)] if ":" in word else [f"{kind}:{one:.12g}" for one in PERTURBATIONS[kind].grid]
        except ValueError as error:
            raise InputError(str(error)) from None
    return list(dict.fromkeys(found))


def check_view(text: str) -> str:
    """Return a view's one spelling: ``plain``, ``fourier``, or such as ``gaussian_noise:0.1``.

    Raises:
        ValueError: No such view, or a strength that is missing, no number, or out of range.
    """
    if text in ("plain", "fourier"):
        return text
    kind, _, strength = text.partition(":")
    if kind not in PERTURBATIONS:
        known = ("plain", "fourier", *PERTURBATIONS)
        raise ValueError(f"there is no view {text!r}.{did_you_mean(kind, known)} Expected one of {', '.join(known)}")
    found = PERTURBATIONS[kind]
    wanted = f"from {found.low:g} to {found.high:g}: {found.meaning}"
    try:
        value = float(strength)
    except ValueError:
        raise ValueError(f"view {text!r} needs a strength, as in '{kind}:{found.grid[0]:g}', {wanted}") from None
    if not found.low <= value <= found.high or (kind in _WHOLE and value % 1):
        raise ValueError(f"the strength of view {text!r} is to be {'whole, ' * (kind in _WHOLE)}{wanted}")
    return f"{kind}:{value:.12g}"


def check_tiles(text: str) -> str:
    """Return ``"2x3"`` (rows x columns).

    Raises:
        ValueError: It is no such pair, or too many tiles.
    """
    match = re.fullmatch(r"0*(\d+) *[x×] *0*(\d+)", text)
    if not match or not 1 <= int(match[1]) * int(match[2]) <= MAX_TILES:
        raise ValueError(f"tiles {text!r} is to be rows x columns, such as '2x2', at most {MAX_TILES} in all")
    return f"{int(match[1])}x{int(match[2])}"


def n_tiles(tiles: str) -> tuple[int, int]:
    """Return rows and columns of checked tiles."""
    rows, columns = tiles.split("x")
    return int(rows), int(columns)


def view_settings(of: Any) -> dict[str, Any]:
    """Return the `VIEW_FIELDS` of an image block or a feature space, by name."""
    return {name: getattr(of, name) for name in VIEW_FIELDS}


def view_words(settings: Mapping[str, Any], usual: Mapping[str, Any] = PLAINLY) -> list[str]:
    """Return words for what of some `VIEW_FIELDS` is not as usual: ``["log", "blur-2", "2x2", "turns-d4"]``.

    They stand in names, so that ``+`` and ``:`` become ``-``.
    """
    changed = [name for name in settings if settings[name] != usual[name] and settings[name] is not None]
    return [_words(name, settings[name]) for name in changed]


def _words(name: str, value: Any) -> str:
    if name == "stack":
        value = "-".join(["stack", *("-".join(view_words(part) or ["plain"]) for part in value)])
    return re.sub("[^A-Za-z0-9_.-]", "-", f"{_PREFIXES.get(name, '')}{value}")


def is_one_crop(settings: Mapping[str, Any]) -> bool:
    """Whether an image gives one vector as it is, neither cut into tiles nor turned."""
    return settings["tiles"] is None and settings["tile_px"] is None and settings["turns"] == "none"
