"""Which blocks are tried together, so that everyone sees what earns its place."""

from collections.abc import Mapping, Sequence
from itertools import chain, product

import numpy as np
from numpy.typing import NDArray

from store import InputError, did_you_mean

Combination = tuple[str, ...]
MODALITIES = ("image", "text")


def combinations(blocks: Sequence[str], *, wanted: Sequence[str] = ()) -> list[Combination]:
    """Return the block combinations to try, small ones first.

    Images, texts and the metadata may each be in or out. Images that are in are one space of each image block that is
    in (of several encoders or variants, such as ``image:bf.log`` and ``image:bf.fourier``, they are alternatives), or
    all spaces of one image block, or all image spaces; texts likewise. So five encoders of one image block beside
    metadata make (1 + 5 + 1) x 2 - 1 = 13 combinations, and not 2 ** 6 - 1. All spaces together come last.

    Args:
        blocks: Names such as ``image:bf@texture``, ``text:notes@ngrams``, ``metadata``.
        wanted: Combinations to keep, such as ``image+metadata`` or ``image:bf@texture``; each part is a block's name,
            with ``image:`` and ``text:`` or without, the start of one up to ``:`` or ``@``, or an encoder's name. All
            by default.

    Raises:
        InputError: A wanted part fits no block, or a wanted combination does not exist.
    """
    every = _enumerate(blocks)
    if not wanted:
        return every
    kept: list[Combination] = []
    for text in wanted:
        fitting = _fitting(text, blocks, every)
        kept += [combination for combination in fitting if combination not in kept]
    return kept


def is_meant(text: str, combination: Sequence[str]) -> bool:
    """Say whether ``image+metadata`` names these blocks: each of its parts one of them, and no block is left over."""
    parts = [part.strip() for part in text.split("+")]
    return all(any(_fits(part, name) for part in parts) for name in combination) and all(
        any(_fits(part, name) for name in combination) for part in parts
    )


def fused_columns(slices: Mapping[str, slice], blocks: Sequence[str]) -> NDArray[np.int64]:
    """Return the column numbers of some blocks side by side, ``(d,)``; narrow blocks are repeated.

    One magnification beside 1,280 image features would drown: trees would seldom draw it, and a penalty shared by
    all columns would forbid the weight it needs. So every block gets about ``sqrt(widest)`` columns. For
    L2-regularised models r copies of a column are exactly one column of sqrt(r) times the scale (block scaling:
    Westerhuis et al. 1998, 10.1002/(SICI)1099-128X(199809/10)12:5<301::AID-CEM515>3.0.CO;2-S).

    Args:
        slices: Where each block's columns lie.
        blocks: Names, in the order wanted.
    """
    parts = [np.arange(slices[name].start, slices[name].stop) for name in blocks]
    enough = np.sqrt(max((len(part) for part in parts), default=0))
    repeated = [np.tile(part, max(1, int(enough // len(part)))) if len(part) else part for part in parts]
    return np.concatenate([*repeated, np.empty(0, np.int64)]).astype(np.int64)


def fused_parts(slices: Mapping[str, slice], blocks: Sequence[str]) -> list[slice]:
    """Return where each block lies among the columns of `fused_columns`, without its repetitions."""
    alone = [slices[name].stop - slices[name].start for name in blocks]
    enough = np.sqrt(max(alone, default=0))
    wide = [width * max(1, int(enough // width)) if width else 0 for width in alone]
    starts = np.cumsum([0, *wide])
    return [slice(int(start), int(start) + width) for start, width in zip(starts[:-1], alone, strict=True)]


def base_block(name: str) -> str:
    """Return a block's place, of a variant that of its block: ``image:bf`` of ``image:bf.log@texture``."""
    return name.partition("@")[0].partition(".")[0]


def _enumerate(blocks: Sequence[str]) -> list[Combination]:
    modalities: dict[str, dict[str, list[str]]] = {}
    for name in blocks:
        places = modalities.setdefault(name.partition(":")[0], {})
        places.setdefault(base_block(name), []).append(name)
    chosen = product(*(_choices(list(places.values())) for places in modalities.values()))
    every = {tuple(sorted(chain(*choice))) for choice in chosen} - {()}
    return sorted(every, key=lambda c: (len(c), c))


def _choices(places: Sequence[Sequence[str]]) -> set[Combination]:
    """Return what may be in of one modality: at most one space of each place, all of one place, or all of all."""
    one_each = product(*([(), *((name,) for name in spaces)] for spaces in places))
    return {tuple(chain(*choice)) for choice in (*one_each, *((spaces,) for spaces in places), places)}


def _fitting(text: str, blocks: Sequence[str], every: Sequence[Combination]) -> list[Combination]:
    parts = [_meant(part.strip(), text, blocks) for part in text.split("+")]
    if all(part in blocks for part in parts):
        return [tuple(sorted(set(parts)))]
    found = [
        combination
        for combination in every
        if all(any(_fits(part, name) for part in parts) for name in combination)
        and all(any(_fits(part, name) for name in combination) for part in parts)
    ]
    if not found:
        raise InputError(f"--blocks {text!r}: these are never tried together; name the blocks in full to force it")
    return found


def _meant(part: str, text: str, blocks: Sequence[str]) -> str:
    """Return a part as blocks answer to it; where one modality has it, that may be left out."""
    spelt = [part] if part in MODALITIES else [part, *(f"{modality}:{part}" for modality in MODALITIES)]
    found = [one for one in spelt if any(_fits(one, name) for name in blocks)]
    if len(found) == 1 or part in found:
        return part if part in found else found[0]
    if found:
        raise InputError(f"--blocks {text!r}: {part!r} may be {' or '.join(found)}; give one of them")
    words = sorted({word for name in blocks for word in _words(name)})
    hint = did_you_mean(part, [*words, *(word.partition(":")[2] for word in words)])
    bases = {base_block(one) for one in spelt if "." in one.partition("@")[0]}
    if bases & {base_block(name) for name in blocks}:
        hint += " It is a variant: give the --convert, --view or other option that made it, too"
    raise InputError(f"--blocks {text!r}: {part!r} fits no block; there is {', '.join(blocks)}.{hint}")


def _fits(part: str, name: str) -> bool:
    return part in _words(name)


def _words(name: str) -> set[str]:
    """Return all that a block answers to: its name, its place, its modality, its encoder."""
    place, _, encoder = name.partition("@")
    modality, encoder = place.partition(":")[0], encoder.partition("#")[0]
    pairs = {f"{one}@{encoder}" for one in (place, base_block(name), modality)} if encoder else set()
    return {name, place, base_block(name), modality, encoder, *pairs} - {""}
