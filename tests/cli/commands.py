"""Run commands in this process, and spoil files for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tifffile
from typer.testing import CliRunner, Result

from cli import app

Make = Callable[..., Path]


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def run_json(*words: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*words, "--json", code=code).stdout)
    return found


def repaint(path: Path) -> None:
    pixels = tifffile.imread(path)
    tifffile.imwrite(path, pixels[::-1] + 1)


def cut_in_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
