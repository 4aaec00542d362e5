import re
from collections.abc import Callable
from pathlib import Path

import pytest

from store import Dataset, InputError, load_dataset, parse_spec, view_settings, with_variants
from store.blocks import _fitting_spaces
from store.space import FeatureSpace

Make = Callable[..., Path]
STACK = '[images.two]\ncolumn = "file"\nconvert = "log"\n[images.both]\nstack = ["bf", "two"]\n'


@pytest.fixture
def dataset(make_dataset: Make) -> Dataset:
    return load_dataset(make_dataset('[texts.name]\nfrom_filename = "bf"\n'))


def test_without_options_the_dataset_stays_itself(dataset: Dataset) -> None:
    assert with_variants(dataset) is dataset


def test_a_variant_that_is_the_block_itself_keeps_the_name(dataset: Dataset) -> None:
    changed = with_variants(dataset, converts=["percentile"], views=["plain"], turns="none")
    assert changed.images == dataset.images and changed.spec == dataset.spec


def test_one_variant_is_named_by_all_that_differs(dataset: Dataset) -> None:
    changed = with_variants(dataset, converts=["percentile"], views=["blur:2.0"], tiles="2x2", turns="d4")
    [(name, block)] = changed.images.items()
    assert name == block.name == "bf.blur-2.2x2.turns-d4"
    assert (block.convert, block.view, block.tiles, block.turns) == ("percentile_stretch", "blur:2", "2x2", "d4")
    assert block.refs == dataset.images["bf"].refs and block.keys() == dataset.images["bf"].keys()


@pytest.mark.parametrize(
    ("converts", "views", "names"),
    [
        (["log", "sqrt"], [], ["bf.log", "bf.sqrt"]),
        ([], ["plain", "fourier"], ["bf", "bf.fourier"]),
        (["log", "percentile_clip+gamma"], ["plain", "fourier"], ["bf.log", "bf.fourier", "bf.percentile_clip-gamma"]),
        (["log"], ["plain", "jpeg:50"], ["bf.log", "bf.log.jpeg-50"]),
        (["log", "percentile"], [], ["bf.log", "bf"]),
        (["log", "sqrt"], ["jpeg:50"], ["bf.log.jpeg-50", "bf.sqrt.jpeg-50"]),
        (["log", "sqrt"], ["plain", "blur:1.5"], ["bf.log", "bf.log.blur-1.5", "bf.sqrt", "bf.sqrt.blur-1.5"]),
        (["log", "sqrt"], ["fourier"], ["bf.fourier"]),
    ],
)
def test_names_say_what_differs(dataset: Dataset, converts: list[str], views: list[str], names: list[str]) -> None:
    assert list(with_variants(dataset, converts=converts, views=views).images) == names


def test_variants_survive_the_spec_of_a_bundle(dataset: Dataset, make_dataset: Make) -> None:
    changed = with_variants(dataset, converts=["log", "sqrt"], tile_px=32)
    assert changed.spec.texts["name"].from_filename == "bf.log.tile-32"
    assert changed.spec.images["bf.sqrt.tile-32"].tile_px == 32
    assert parse_spec(changed.spec.model_dump(mode="json", exclude_none=True), "bundle") == changed.spec
    assert changed.spec.tasks == dataset.spec.tasks


def test_every_variant_has_its_own_fingerprint(dataset: Dataset) -> None:
    views = ["plain", "fourier", "blur:1", "blur:2", "gaussian_noise:0.1"]
    made = [with_variants(dataset, converts=["log", "sqrt"], views=views)]
    made += [
        with_variants(dataset, **{key: word}) for key, word in (("tiles", "2x2"), ("tile_px", 32), ("turns", "d4"))
    ]
    made += [with_variants(dataset, tiles="2x2", pool="max"), with_variants(dataset, turns="flips")]
    blocks = [block for changed in made for block in changed.images.values()]
    names = [block.name for block in blocks]
    assert len(set(names)) == len(names)
    spaces = [FeatureSpace("image", "x", 2, "0" * 64, **view_settings(block)) for block in blocks]
    assert len(blocks) == 9 + 5 and len({space.fingerprint for space in spaces}) == len(blocks)
    assert [space.name for space in spaces] == [f"image{name.removeprefix('bf')}@x" for name in names]
    for block, space in zip(blocks, spaces, strict=True):
        assert _fitting_spaces(block, spaces) == [space]


def test_stacks_follow_their_parts(make_dataset: Make) -> None:
    dataset = load_dataset(make_dataset(STACK))
    changed = with_variants(dataset, views=["plain", "fourier"], turns="flips")
    views = ("turns-flips", "fourier.turns-flips")
    assert list(changed.images) == [f"{name}.{view}" for name in ("bf", "two", "both") for view in views]
    both = changed.images["both.fourier.turns-flips"]
    assert [part["view"] for part in both.stack] == ["fourier", "fourier"] and both.turns == "flips"
    assert [part["convert"] for part in changed.images["both.turns-flips"].stack] == ["percentile_stretch", "log"]
    assert list(with_variants(dataset, converts=["log", "sqrt"]).images) == [
        *("bf.log", "bf.sqrt", "two", "two.sqrt", "both.log", "both.sqrt")
    ]


def test_a_stack_has_a_key_of_its_own(make_dataset: Make) -> None:
    dataset = load_dataset(make_dataset(STACK + '[images.back]\nstack = ["two", "bf"]\n', n_rows=4))
    first, both, back = (dataset.images[name].keys() for name in ("bf", "both", "back"))
    assert len({*first, *both}) == 8
    assert back == both  # here both parts are the same file
    assert view_settings(dataset.images["back"]) != view_settings(dataset.images["both"])


def test_wrong_words_are_refused_as_in_a_spec(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=re.escape("the options: images.bf.view: there is no view 'fourir'. Did you")):
        with_variants(dataset, views=["fourir"])
    with pytest.raises(InputError, match="tiles and tile_px both"):
        with_variants(dataset, tiles="2x2", tile_px=64)


def test_tiles_of_one_kind_replace_the_other(make_dataset: Make) -> None:
    dataset = with_variants(load_dataset(make_dataset()), tiles="2x2", pool="max")
    [block] = with_variants(dataset, tile_px=32).images.values()
    assert (block.tiles, block.tile_px, block.pool) == (None, 32, "max")
