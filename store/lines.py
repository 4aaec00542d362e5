"""Long names in lines: paths, blocks and classes have no spaces to break at."""

import re
from collections.abc import Callable

_PLACES = re.compile(r"(?<=[ /_\-])|(?=@)")  # after a space or a joint, and before an encoder


def broken(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Return a text in lines that fit, broken between its words, and within one that does not fit alone.

    Args:
        text: One line; of a block that does not fit, the encoder begins a line.
        fits: Whether a line is short enough.
    """
    if fits(text):
        return [text]
    lines = [""]
    for word in _PLACES.split(text):
        for part in [word] if fits(word) else word:  # letter by letter
            if lines[-1] and (part.startswith("@") or not fits((lines[-1] + part).rstrip())):
                lines.append("")
            lines[-1] += part
    return [line.strip() for line in lines]
