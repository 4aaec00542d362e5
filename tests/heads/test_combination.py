import pytest

from heads.combination import combinations, fused_columns
from store import InputError

BLOCKS = ["image:bf@a", "image:bf@b", "text:note@n", "metadata"]


def test_every_modality_is_out_or_in_with_one_space_or_all_of_them():
    images = [(), ("image:bf@a",), ("image:bf@b",), ("image:bf@a", "image:bf@b")]
    others = [(), ("metadata",), ("text:note@n",), ("metadata", "text:note@n")]
    found = combinations(BLOCKS)
    assert len(found) == 4 * 2 * 2 - 1
    assert set(found) == {image + other for image in images for other in others} - {()}
    assert found[0] == ("image:bf@a",)
    assert found[-1] == tuple(sorted(BLOCKS))


@pytest.mark.parametrize("n_spaces", [5, 12])
def test_many_encoders_or_variants_add_one_choice(n_spaces):
    spaces = [f"image:bf@{chr(97 + i)}" for i in range(n_spaces)]
    found = combinations([*spaces, "metadata"])
    assert len(found) == (1 + n_spaces + 1) * 2 - 1
    assert found[-2:] == [tuple(spaces), (*spaces, "metadata")]


def test_of_two_places_all_of_one_or_all_of_both_are_tried_and_no_mixtures():
    bf, fl = ("image:bf@a", "image:bf@b"), ("image:fl@a", "image:fl@b")
    found = combinations([*bf, *fl])
    assert len(found) == (3 * 3 - 1) + 2 + 1
    assert {bf, fl, bf + fl} <= set(found)
    assert not [blocks for blocks in found if len(blocks) == 3]


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
        ("image", [("image:bf@a",), ("image:bf@b",), ("image:bf@a", "image:bf@b")]),
        ("a+metadata", [("image:bf@a", "metadata")]),
        (
            "image:bf + text",
            [("image:bf@a", "text:note@n"), ("image:bf@b", "text:note@n"), ("image:bf@a", "image:bf@b", "text:note@n")],
        ),
        ("image:bf@b", [("image:bf@b",)]),
        ("image:bf@a+image:bf@b", [("image:bf@a", "image:bf@b")]),
        ("bf@a", [("image:bf@a",)]),
        ("bf@a+note@n", [("image:bf@a", "text:note@n")]),
        ("bf", [("image:bf@a",), ("image:bf@b",), ("image:bf@a", "image:bf@b")]),
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


def test_variants_of_a_block_are_alternatives_or_all_together() -> None:
    log, sqrt = "image:bf.log@texture", "image:bf.sqrt@texture"
    assert combinations([log, sqrt, "metadata"]) == [
        (log,),
        (sqrt,),
        ("metadata",),
        (log, sqrt),
        (log, "metadata"),
        (sqrt, "metadata"),
        (log, sqrt, "metadata"),
    ]
    assert combinations([log, sqrt, "metadata"], wanted=["image:bf"]) == [(log,), (sqrt,), (log, sqrt)]
    assert combinations([log, sqrt], wanted=["image:bf.log"]) == [(log,)]
