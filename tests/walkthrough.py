"""The README and the pages in docs/ that show commands with their output: run them, compare, and write them anew.

    python tests/walkthrough.py docs/powder.md     # runs the page's commands and puts their output in

A page holds bash blocks, run in order in one empty folder, each followed by a text block with what it prints on stdout.
``text head=12`` keeps the first twelve lines; ``text loose`` may have other numbers on another machine, and
``text ranked`` other numbers, verdicts and order of lines, as what was trained has. A picture
``![words](pictures/ranks.png)`` on the line after ``<!-- powder/runs/conversions.png -->`` is a copy of that file.
Commands of a page on real data find it in ``real/``, and a pretrained network beside it.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL = [*(ROOT.parent / "shared" / "data").glob("*/"), ROOT.parent / "shared" / "weights" / "mobilenetv2_100"]
MAX_PICTURE_PX, JPG_QUALITY = 1000, 65
BLOCK = re.compile(r"```bash\n(?P<commands>.*?)```(?:\n\n```text(?P<options>[^\n]*)\n(?P<shown>.*?)```)?", re.DOTALL)
PICTURE = re.compile(r"<!-- (?P<source>\S+) -->\n!\[[^\]]*\]\((?P<copy>[^)]+)\)")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")  # none inside words, such as fingerprints
VERDICT = re.compile(r"\b(?:(?:not )?worth it|not told apart|better|worse|helps|hurts)\b")
VOLATILE = re.compile(r"\d+(?:\.\d+)? (?:s|rows/s|images/s)\b|\d{4}-\d\d-\d\dT[\d:+]+")


@dataclass(frozen=True)
class Step:
    """One block of commands: what the page shows of its output, None for nothing, and where that stands."""

    commands: str
    options: str
    shown: str | None
    place: tuple[int, int] | None

    @property
    def head(self) -> int | None:
        """How many lines of output are shown; None for all."""
        found = re.search(r"head=(\d+)", self.options)
        return int(found[1]) if found else None


def steps(page: str) -> Iterator[Step]:
    """Yield the blocks of a page in order."""
    for block in BLOCK.finditer(page):
        shown = block["shown"]
        yield Step(block["commands"], block["options"] or "", shown, None if shown is None else block.span("shown"))


def lay_out(page: str, folder: Path) -> bool:
    """Make the folder that a page's commands begin in; False where its real data is not there."""
    folder.mkdir(exist_ok=True)
    if " real/" not in page:
        return True
    (folder / "real").mkdir(exist_ok=True)
    for source in REAL:
        (folder / "real" / source.name).symlink_to(source)
    return all(source.exists() for source in REAL)


def run(step: Step, folder: Path) -> str:
    """Run a block in a folder and return what it prints on stdout, as the page shows it.

    Raises:
        subprocess.CalledProcessError: A command ended with an exit code other than 0, or 3 (rows were left out).
    """
    script = step.commands.replace("python cli.py", f"'{sys.executable}' '{ROOT / 'cli.py'}'")
    guarded = f"set -uo pipefail; trap 'c=$?; [ $c = 3 ] || exit $c' ERR\n{script}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"COLUMNS": "120", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PATH": path}
    done = subprocess.run(
        ["bash", "-c", guarded], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3):
        raise subprocess.CalledProcessError(done.returncode, step.commands, done.stdout, done.stderr[-2000:])
    lines = [line.rstrip() for line in done.stdout.strip("\n").splitlines()]
    if step.head is not None and len(lines) > step.head:
        lines = [*lines[: step.head], "…"]
    return "\n".join(lines) + "\n"


def differences(shown: str, printed: str, *, loose: bool = False, ranked: bool = False) -> list[str]:
    """Return the lines in which a page and a run differ; seconds may, and other numbers by a little.

    Args:
        shown: On the page.
        printed: By the command.
        loose: Let numbers differ by any amount.
        ranked: And verdicts, and the order of lines.
    """
    if ranked:
        shown, printed = (_unranked(text) for text in (shown, printed))
    mine, theirs = (_steady(text).splitlines() for text in (shown, printed))
    if len(mine) != len(theirs):
        return [f"{len(mine)} lines are shown, {len(theirs)} are printed", *theirs]
    pairs = zip(mine, theirs, strict=True)
    return [f"shown:   {a}\nprinted: {b}" for a, b in pairs if not _alike(a, b, loose=loose)]


def _unranked(text: str) -> str:
    """Return a text's lines in an order of their own, without numbers and verdicts."""
    lines = [VERDICT.sub("_", NUMBER.sub("#", line)) for line in text.splitlines()]
    return "\n".join(sorted(re.sub(r"[\s─]+", " ", line).strip() for line in lines))


def _steady(text: str) -> str:
    """Return a text without what another run has otherwise: times, and the last column of tables that end in them."""
    found, is_timed = [], False
    for line in VOLATILE.sub("_", text).splitlines():
        if not line.strip():
            is_timed = False
        if is_timed:
            line = re.sub(r"(\d+\.\d+|reused)$", "_", line.rstrip())
        is_timed = is_timed or line.rstrip().endswith(" seconds")
        found.append(line.rstrip())
    return "\n".join(found)


def _alike(shown: str, printed: str, *, loose: bool) -> bool:
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip() for line in (shown, printed)]
    numbers = [[float(number) for number in NUMBER.findall(line)] for line in (shown, printed)]
    if words[0] != words[1]:
        return False
    return loose or all(abs(a - b) <= 0.005 + 0.02 * abs(a) for a, b in zip(*numbers, strict=True))


def write(path: Path) -> None:
    """Run a page's commands and put their output, and the pictures that they draw, in."""
    page = path.read_text()
    with tempfile.TemporaryDirectory() as name:
        lay_out(page, Path(name))
        outputs = [(step, run(step, Path(name))) for step in steps(page)]
        for picture in PICTURE.finditer(page):
            _copy_picture(Path(name) / picture["source"], path.parent / picture["copy"])
    for step, output in reversed(outputs):
        if step.place is not None:
            page = page[: step.place[0]] + output + page[step.place[1] :]
    path.write_text(page)


def _copy_picture(source: Path, copy: Path) -> None:
    """Copy a picture, no wider than a page: photos as jpg, all else in few colours."""
    from PIL import Image

    with Image.open(source) as drawn:
        image = drawn.convert("RGB")
    image.thumbnail((MAX_PICTURE_PX, 4 * MAX_PICTURE_PX))
    copy.parent.mkdir(exist_ok=True)
    if copy.suffix == ".jpg":
        image.save(copy, quality=JPG_QUALITY, optimize=True)
    else:
        image.quantize(128).save(copy, optimize=True)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write(Path(argument))
