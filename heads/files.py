"""What a failed write means to the user."""

import errno
from pathlib import Path

from store import InputError, StoreError


def write_error(path: Path, error: OSError) -> InputError | StoreError:
    """Return what to raise for an `OSError` met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{path}: the disk is full. What was finished is kept: make room and run the command again")
    return InputError(f"{path}: cannot be written ({error.strerror or error}). Make its folder writable")
