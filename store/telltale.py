"""Texts that give a class away: they name it."""

import re

import numpy as np

from store.dataset import TextBlock
from store.task import Task


def rows_named(block: TextBlock, task: Task) -> tuple[list[int], int]:
    """Return the labelled rows whose text has the name of their class, and of no other that is no part of it.

    Args:
        block: n texts.
        task: A classification of n rows.

    Returns:
        The rows, none where they are at most half; and the number of labelled rows that have a text.
    """
    phrases = [_phrase(name) for name in task.classes]
    texts = {row: _phrase(block.texts[row] or "") for row in np.flatnonzero(task.labelled).tolist() if block.texts[row]}
    named = [row for row, text in texts.items() if phrases[task.y[row]] in text]
    if 2 * len(named) <= len(texts):
        return [], len(texts)
    found = [row for row in named if all(one in phrases[task.y[row]] for one in phrases if one in texts[row])]
    return found if 2 * len(found) > len(texts) else [], len(texts)


def _phrase(text: str) -> str:
    """Return the words in lower case, each between spaces."""
    words = re.findall(r"[^\W_]+", text.lower())
    return f" {' '.join(words)} "
