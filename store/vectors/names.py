"""What spaces are called: which of them a name may mean."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from store.errors import InputError, did_you_mean
from store.space import FeatureSpace

TUNED = "tuned-"
"""In a dataset, stands before the fingerprint of a fine-tuned encoder's space, which has the name of the original's."""


def tuned_mark(fingerprint: str, provenance: Mapping[str, Any]) -> str:
    """Return what ends the name of a fine-tuned encoder's space, ``#tuned-1f00ba12``; nothing of another's."""
    return f"#{TUNED}{fingerprint[:8]}" if "tuned_on" in provenance else ""


def find_space(name: str, spaces: Sequence[FeatureSpace], url: str) -> FeatureSpace:
    """Return the one space of a store that a name means; `FeatureStore.find` says which names there are."""
    fits = match_spaces(name, spaces)
    if len(fits) == 1:
        return fits[0]
    listed = ", ".join(f"{s.name} ({s.fingerprint[:12]})" for s in fits or spaces) or "none yet"
    if fits:
        remedy = "Give one of these names, or the first letters of a fingerprint"
        raise InputError(f"space {name!r} is {len(fits)} spaces: {listed}. {remedy}")
    hint = did_you_mean(name, [s.name for s in spaces])
    raise InputError(f"the store {url} has no space {name!r}.{hint} It holds: {listed}")


def match_spaces(name: str, spaces: Sequence[FeatureSpace]) -> list[FeatureSpace]:
    """Return the spaces that a name may mean."""
    plain, _, start = name.partition("#")
    alike = [space for space in spaces if space.fingerprint.startswith(start.removeprefix(TUNED))]
    fits = [space for space in alike if space.name == plain] or _fitting_block(plain, alike)
    return fits or [space for space in spaces if name and space.fingerprint.startswith(name)]


def _fitting_block(name: str, spaces: Sequence[FeatureSpace]) -> list[FeatureSpace]:
    """Return the spaces that a name without block, view or conversion may mean."""
    match = re.fullmatch(r"(image|text)(?::[^.@]*)?(\.[^@]*)?@(.*)", name)
    if match is None:
        return []
    modality, words, encoder = match.groups(default="")
    fits = [space for space in spaces if (space.modality, space.encoder) == (modality, encoder)]
    return [space for space in fits if not words or space.name == f"{modality}{words}@{encoder}"]
