import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from heads import versions
from heads.versions import _own_version

ROOT = Path(__file__).parents[2]


def test_a_clone_says_the_version_of_its_own_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert versions()[project["name"]] == project["version"]
    assert list(versions()) == ["embedonce", "numpy", "scipy", "lightgbm"]
    assert versions()["numpy"] == metadata.version("numpy")


def test_an_installed_package_says_what_was_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} 7")
    assert _own_version(tmp_path / "pyproject.toml") == "embedonce 7"
