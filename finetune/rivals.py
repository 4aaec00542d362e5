"""What a network is compared with: heads on the features that it has to beat, not on all that is stored."""

from collections.abc import Collection
from dataclasses import replace

from extract import ENCODERS
from heads import HEADS, Entry, Leaderboard, Sweep, best


def rivals(sweep: Sweep, blocks: Collection[str], leaderboard: Leaderboard) -> Sweep:
    """Return the sweep without the stored spaces that no best head needs.

    There stay metadata, the network's own encoders as they were, the built-in ones, and whatever the best stored result
    of each task reads; all, where a task has no stored result. There goes what has learned from the rows to score.

    Args:
        sweep: Over all stored spaces.
        blocks: What the network reads, as `blocks_of` gives it.
        leaderboard: Has the stored results.
    """
    matrix = sweep.matrix
    fair = {name for name in matrix.spaces if not sweep.knows_labels(name)}
    kept = {name for name in fair if name.partition("#")[0] in blocks or matrix.spaces[name].encoder in ENCODERS}
    found = best(entry for entry in leaderboard.known().values() if _is_of(sweep, entry))
    read = {name for entry in found.values() for name in entry["blocks"]}
    kept |= fair if set(sweep.task_names) - set(found) else read & fair
    parts = {name: part for name, part in matrix.blocks.items() if name in kept or name not in matrix.spaces}
    spaces = {name: space for name, space in matrix.spaces.items() if name in kept}
    return replace(sweep, matrix=replace(matrix, blocks=parts, spaces=spaces))


def _is_of(sweep: Sweep, entry: Entry) -> bool:
    """Say whether an entry is a head's, of this split and of vectors as they are stored now."""
    spaces = {name: space.fingerprint for name, space in sweep.matrix.spaces.items()}
    return (
        entry["head"] in HEADS
        and entry["split_fingerprint"] == sweep.split.fingerprint
        and all(spaces.get(name) == fingerprint for name, fingerprint in entry["fingerprints"].items())
    )
