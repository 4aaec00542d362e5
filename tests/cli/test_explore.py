"""`explore` as a user meets it."""

from pathlib import Path

from tests.cli.commands import Make, run, run_json


def test_explore_prints_tables_and_draws_three_pictures(make_dataset: Make) -> None:
    spec = make_dataset('[tasks.size]\ncolumn = "size"\n')
    shown = run("explore", "--data", spec)
    for words in (
        "tiny: 24 rows in 8 groups",
        "striped   12     50.0%   8",
        "Metadata",
        "bf      24     24     0            64 x 64   16 bit grey",
        "What brightness alone tells",
    ):
        assert words in shown.stdout
    folder = spec.parent / "runs" / "explore"
    assert sorted(file.name for file in folder.iterdir()) == ["classes.png", "examples.png", "intensity.png"]
    assert not (spec.parent / "splits.json").exists()  # it looks, and decides nothing


def test_explore_finds_that_contrast_tells_stripes_and_prints_json(make_dataset: Make) -> None:
    spec = make_dataset()
    found = run_json("explore", "--data", spec, "--out", spec.parent / "there", "--rows", 20, "--seed", 1)
    [image] = found["images"]
    contrast = next(one for one in image["brightness"] if one["measure"] == "spread")
    assert contrast["of_label"] > 0.9 and contrast["of_label_within_groups"] > 0.9 and contrast["of_group"] < 0.1
    assert (image["n_read"], found["looked_at"], found["unreadable"]) == (20, 20, [])
    assert {Path(file).parent for file in found["pictures"].values()} == {spec.parent / "there"}
    assert all(Path(file).exists() for file in found["pictures"].values())


def test_explore_goes_on_without_images_and_past_unreadable_ones(make_dataset: Make) -> None:
    spec = make_dataset()
    (spec.parent / "images" / "s_300X_01.tif").write_bytes(b"nothing")
    shown = run("explore", "--data", spec, code=3)
    assert "row 'r01', image 'bf': is no tif, png, jpg or bmp" in shown.stdout
    text = spec.read_text()
    spec.write_text(
        text[: text.index("[images.bf]")] + '[texts.note]\ncolumn = "note"\n[tasks.kind]\ncolumn = "kind"\n'
    )
    found = run_json("explore", "--data", spec)
    assert (found["images"], list(found["pictures"])) == ([], ["classes"])
    assert "no images: nothing is said about pixels" in run("explore", "--data", spec).stdout


def test_explore_says_where_it_cannot_write(make_dataset: Make) -> None:
    spec = make_dataset()
    (spec.parent / "file").write_text("")
    out = spec.parent / "file" / "pictures"
    assert f"error: {out}: cannot be written" in run("explore", "--data", spec, "--out", out, code=2).stderr
