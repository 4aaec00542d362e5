"""What the README says is there. That its tour prints what it shows is for test_walkthrough.py."""

import re
import tomllib
from pathlib import Path

from cli import app
from extract import ENCODERS
from store import SAMPLES, parse_spec

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_the_tables_name_every_command_encoder_and_sample() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert all(f"`{name}" in README for name in names)
    assert all(f"| `{name}` |" in README for name in ENCODERS)
    assert all(f"| `{name}` | {sample.n_rows} | {sample.summary} |" in README for name, sample in SAMPLES.items())


def test_the_specs_of_the_readme_are_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    assert [parse_spec(tomllib.loads(block), "README.md").name for block in blocks] == ["tem", "waste", "grids"]


def test_links_and_pictures_are_there() -> None:
    root = Path(__file__).resolve().parents[1]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (root / target).exists(), target
