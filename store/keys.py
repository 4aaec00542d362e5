"""Content keys: what a vector is a vector *of*."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def file_key(path: Path, page: int | None = None) -> str:
    """Return the sha256 (hex) of a file's bytes, and of the page for multi-page files.

    Names and dates are no part of it: a renamed or copied file has the same key, a changed one another.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if page is not None:
        digest.update(f"\0page={page}".encode())
    return digest.hexdigest()


def text_key(text: str) -> str:
    """Return the sha256 (hex) of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def stack_key(keys: Iterable[str]) -> str:
    """Return the sha256 (hex) over the keys of images that are stacked, in their order."""
    return hashlib.sha256("\n".join(["stack", *keys]).encode()).hexdigest()


def json_key(content: Any) -> str:
    """Return the sha256 (hex) of JSON values, whatever the order of their keys."""
    return text_key(json.dumps(content, sort_keys=True))
