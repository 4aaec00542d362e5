"""The versions of what computes numbers, recorded beside them."""

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

OWN = "embedonce"
PACKAGES = ("numpy", "scipy", "lightgbm")
CLONE = Path(__file__).parents[1] / "pyproject.toml"


def versions() -> dict[str, str]:
    """Return the versions of what computed the numbers."""
    return {OWN: _own_version(CLONE), **{name: _version_of(name) for name in PACKAGES}}


_version_of = cache(metadata.version)  # reads the package's metadata: once, not for every entry


@cache
def _own_version(project: Path) -> str:
    """Return what a clone's own ``pyproject.toml`` says, whatever is installed beside it; without one, what is."""
    if not project.is_file():
        return metadata.version(OWN)
    return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
