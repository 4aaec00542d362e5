"""What the README says is there. That its tour prints what it shows is for test_walkthrough.py."""

import re
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from cli import app
from extract import ENCODERS
from store import SAMPLES, parse_spec
from tests.walkthrough import MAX_PICTURE_PX

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_tables_name_every_command_encoder_and_sample() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert all(f"`{name}" in README for name in names)
    assert all(f"| `{name}` |" in README for name in ENCODERS)
    assert all(f"| `{name}` | {sample.n_rows} | {sample.summary} |" in README for name, sample in SAMPLES.items())


def test_the_specs_of_the_readme_are_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    assert [parse_spec(tomllib.loads(block), "README.md").name for block in blocks] == ["tem", "waste", "grids"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_pictures_are_small_and_fit_a_page() -> None:
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".jpg")]
    assert len(pictures) > 10
    for path in pictures:
        assert path.stat().st_size < 150_000, path
        with Image.open(path) as picture:
            assert picture.width <= MAX_PICTURE_PX, path
    named = {
        name
        for page in PAGES
        for name in re.findall(r"\]\((?:docs/)?(?:pictures/)?([\w-]+\.(?:png|jpg))\)", page.read_text())
    }
    assert named == {path.name for path in pictures}
