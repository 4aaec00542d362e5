from pathlib import Path

import pytest
from PIL import Image

from tests import walkthrough
from tests.walkthrough import PICTURE, ROOT, differences, lay_out, steps

PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if "```bash" in page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_page_shows_what_its_commands_print(path: Path, tmp_path: Path) -> None:
    page = path.read_text()
    folder = tmp_path / "here"
    if not lay_out(page, folder):
        pytest.skip("its real data is not there")
    for step in steps(page):
        printed = walkthrough.run(step, folder)
        if step.shown is not None:
            options = {"loose": "loose" in step.options, "ranked": "ranked" in step.options}
            assert not differences(step.shown, printed, **options), step.commands
    for picture in PICTURE.finditer(page):
        assert (folder / picture["source"]).exists(), picture["source"]
        assert (path.parent / picture["copy"]).exists(), picture["copy"]


def test_other_numbers_words_and_lines_are_differences_and_times_are_not() -> None:
    shown = "head  score  seconds\n linear  0.81 [0.70, 0.90]  1.25\n\n185 rows in 2.5 s\n"
    assert not differences(shown, shown.replace("1.25", "9.99").replace("2.5 s", "7.0 s").replace("0.81", "0.812"))
    assert differences(shown, shown.replace("0.81", "0.91"))
    assert not differences(shown, shown.replace("0.81", "0.91"), loose=True)
    assert differences(shown, shown.replace("linear", "lightgbm"))
    assert differences(shown, shown + "more\n")
    assert not differences("ngrams d873ff6e4547", "ngrams d873ff6e4547")
    assert differences("ngrams d873ff6e4547", "ngrams d873ff6e4548")


def test_what_was_trained_may_have_other_verdicts_and_another_order() -> None:
    shown = " runs   score\n ──────\n a  finetune  0.81 [0.7, 0.9]  better\n b  linear  0.80  not told apart\n"
    other = " runs   score\n ───\n b  linear  0.90  better\n a  finetune  0.7 [0.65, 0.9]  worse\n"
    assert not differences(shown, other, ranked=True)
    assert differences(shown, other, loose=True)
    assert differences(shown, other.replace("linear", "lightgbm"), ranked=True)
    assert differences(shown, other + " c  linear  0.9  better\n", ranked=True)


def test_a_page_is_written_with_what_its_commands_print(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\nseq 3 | tee kept\n```\n\n```text head=2\nold\n```\n\n```bash\ncat kept\n```\n")
    walkthrough.write(page)
    assert "```text head=2\n1\n2\n…\n```" in page.read_text()


def test_pictures_are_copied_no_wider_than_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    draw = "from PIL import Image; Image.effect_noise((1600, 800), 50).save('noise.png')"
    names = ("few.png", "photo.jpg")
    pictures = "\n".join(f"<!-- noise.png -->\n![Noise](pictures/{name})" for name in names)
    page.write_text(f'```bash\npython -c "{draw}"\n```\n{pictures}\n')
    walkthrough.write(page)
    for name, kind in zip(names, ("PNG", "JPEG"), strict=True):
        with Image.open(tmp_path / "pictures" / name) as copy:
            assert (copy.format, copy.size) == (kind, (1000, 500))


def test_a_command_that_fails_is_not_passed_over(tmp_path: Path) -> None:
    [step] = steps("```bash\nfalse\necho on\n```\n")
    with pytest.raises(walkthrough.subprocess.CalledProcessError):
        walkthrough.run(step, tmp_path)
