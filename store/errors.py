"""The two errors a user may meet, what others' errors say in a line, and the hint for a misspelt word."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class InputError(Exception):
    """The user can repair it: a spec, a table, an option, a file. The command ends with exit code 2."""


class StoreError(Exception):
    """Stored data disagrees with what it should be: damage, a foreign space, a full disk."""


def write_error(path: Path, error: OSError) -> InputError | StoreError:
    """Return what to raise for an `OSError` met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{path}: the disk is full. What was finished is kept: make room and run the command again")
    return InputError(f"{path}: cannot be written ({error.strerror or error}). Make its folder writable")


def one_line(error: BaseException) -> str:
    """Return an error's whole message in one line, at most 300 characters; the error's type where it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says anything, at most 200 characters; else the error's type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def did_you_mean(word: str, choices: Iterable[str], *, n: int = 1) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest of `choices`, or ``""`` when none is near.

    Args:
        word: What the user wrote.
        choices: What would have been right.
        n: How many near words to name.
    """
    near = get_close_matches(word, list(choices), n=n, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(x) for x in near)}?" if near else ""
