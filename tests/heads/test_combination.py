import pytest

from heads.combination import combinations, fused_columns
from store import InputError

BLOCKS = ["image:bf@a", "image:bf@b", "text:note@n", "metadata"]


def test_every_modality_is_in_or_out_with_one_space_each():
    found = combinations(BLOCKS)
    assert len(found) == len(set(found)) == (3 * 2 * 2 - 1) + 1
    assert found[0] == ("image:bf@a",)
    assert ("image:bf@a", "image:bf@b") not in found
    assert found[-1] == tuple(sorted(BLOCKS))
    assert all(list(blocks) == sorted(blocks) for blocks in found)


def test_one_block_is_one_combination():
    assert combinations(["metadata"]) == [("metadata",)]


def test_two_image_blocks_are_two_modalities():
    assert combinations(["image:bf@a", "image:fl@a"]) == [
        ("image:bf@a",),
        ("image:fl@a",),
        ("image:bf@a", "image:fl@a"),
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("image", [("image:bf@a",), ("image:bf@b",)]),
        ("a+metadata", [("image:bf@a", "metadata")]),
        ("image:bf + text", [("image:bf@a", "text:note@n"), ("image:bf@b", "text:note@n")]),
        ("image:bf@b", [("image:bf@b",)]),
        ("image:bf@a+image:bf@b", [("image:bf@a", "image:bf@b")]),
        ("bf@a", [("image:bf@a",)]),
        ("bf@a+note@n", [("image:bf@a", "text:note@n")]),
        ("bf", [("image:bf@a",), ("image:bf@b",)]),
        ("image@b + note", [("image:bf@b", "text:note@n")]),
    ],
)
def test_wanted_combinations_are_kept(wanted, found):
    assert combinations(BLOCKS, wanted=[wanted]) == found


def test_a_misspelt_part_names_the_nearest():
    with pytest.raises(InputError, match=r"'metdata' fits no block.*Did you mean 'metadata'"):
        combinations(BLOCKS, wanted=["image+metdata"])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("bf@aa", r"'bf@aa' fits no block; there is image:bf@a, .*Did you mean 'bf@a'"),
        ("bf.log", r"'bf.log' fits no block; .* It is a variant: give the --convert, --view or other option that made"),
        ("image:bf.log@a", "It is a variant: give the --convert"),
        ("fl.log", r"'fl.log' fits no block; there is [^.]*\.$"),
        ("same", "'same' may be image:same or text:same; give one of them"),
    ],
)
def test_a_part_that_fits_nothing_or_too_much_says_what_was_expected(wanted, message):
    with pytest.raises(InputError, match=message):
        combinations([*BLOCKS, "image:same@a", "text:same@n"], wanted=[wanted])


def test_a_narrow_block_is_repeated_beside_a_wide_one() -> None:
    slices = {"image": slice(0, 100), "metadata": slice(100, 103)}
    assert fused_columns(slices, ["image"]).tolist() == list(range(100))
    fused = fused_columns(slices, ["image", "metadata"]).tolist()
    assert fused == [*range(100), *[100, 101, 102] * 3]
    assert fused_columns(slices, []).tolist() == []


def test_variants_of_a_block_are_alternatives() -> None:
    log, sqrt = "image:bf.log@texture", "image:bf.sqrt@texture"
    assert combinations([log, sqrt, "metadata"]) == [
        (log,),
        (sqrt,),
        ("metadata",),
        (log, "metadata"),
        (sqrt, "metadata"),
        (log, sqrt, "metadata"),
    ]
    assert combinations([log, sqrt, "metadata"], wanted=["image:bf"]) == [(log,), (sqrt,)]
    assert combinations([log, sqrt], wanted=["image:bf.log"]) == [(log,)]
